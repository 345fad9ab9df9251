"""Claims about the bundles, and a count: what a door loads for one message."""

from __future__ import annotations

import ast
import marshal
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from smtp_peer import Peer

from postfix_archive.system import import_bundle

import private_postfix

PYTHON = ["/usr/bin/python3", "-I", "-S"]
LETTER = (
    b"Received: from client.example.org (client.example.org [192.0.2.7])\n"
    b"\tby mail.example.com (Postfix) with ESMTP id 4Zx1Yk2Pp7z9Qw\n"
    b"\tfor <bob@example.net>; Sun, 22 Nov 2026 12:53:00 +0100 (CET)\n"
    b"From: alice@example.org\nTo: bob@example.net\nSubject: hello\n\nHello.\n"
)
STAMP = (
    *("--nexthop", "legal@example.com", "--queue-id", "4Zx1Yk2Pp7z9Qw"),
    *("--size", "264"),
    *("--client-address", "192.0.2.7", "--client-protocol", "ESMTP"),
    *("--sender", "alice@example.org", "--", "bob@example.net", "bob@example.net"),
)
ARCHIVE = ("--queue-id", "4Zx1Yk3AA1z9Qx")
# Runs a launcher as the kernel does, and tells at its end which modules it has loaded.
TELLING = """
import posix, sys
leave = posix._exit
def told(code):
    posix.write(2, "\\n".join(sys.modules).encode())
    leave(code)
posix._exit = told
path, sys.argv = sys.argv[1], sys.argv[1:]
with open(path) as opened:
    text = opened.read()
exec(compile(text, path, "exec"), {"__name__": "__main__", "__file__": path})
"""
# What the doors load for one message, every import counted: each costs about 0.05 ms
# of CPU from a bundle, 0.2 from a file of its own, a C module in a file up to 2.4; a
# bare start has 7. What is needed seldom is imported where it is needed.
BOTH = """
    _operator _sha256 _socket _stat binascii
    postfix_archive errors
    archive_transport config intake message postfix stamp_filter store system
    archive_transport.archive_job archive_transport.copy_plan
    archive_transport.transport
    config.archive_cf config.settings
    intake.pipe
    message.address message.archive_copy message.capsule message.dates message.digest
    message.envelope message.header message.keyring message.mime message.queue_ids
    message.log_fields message.received_header message.smtp_data message.stamp
    postfix.main_cf postfix.smtp_client
    stamp_filter.transaction
    store.archive store.copy_file store.fallback store.journal store.journal_end
    system.deadline system.files system.spool
    fcntl itertools zlib
"""
LOADED = {
    "archive-stamp": f"""{BOTH}
        errno marshal
        intake.end_of_file
        message.request
        postfix.queue_file_size
        stamp_filter.capture stamp_filter.capture_plan stamp_filter.write_through
        system.child_process
    """,
    "archive": BOTH,
}


class Host:
    """The program as it is laid down, settings, a key, and a peer for Postfix."""

    def __init__(self, folder: Path, peer: Peer, program: Path) -> None:
        self.folder = folder
        self.program = folder / "lib"
        self.release = self.program / "releases" / "one"
        self.peer = peer
        shutil.copytree(program, self.program)
        self.release.mkdir(parents=True)
        for each in ("postfix_archive", "bundles"):
            (self.program / each).rename(self.release / each)
        (self.program / "current").symlink_to("releases/one")
        self._set_up()

    def _set_up(self) -> None:
        names = ("handback", "capsule", "copy")
        lines = [f"archive_{n}_address = 127.0.0.1:{self.peer.port}\n" for n in names]
        lines.append("myhostname = mail.example.com\n")
        for name in ("store", "spool", "fallback"):
            (self.folder / name).mkdir()
            lines.append(f"archive_{name}_directory = {self.folder}/{name}\n")
        (self.folder / "archive.cf").write_text("".join(lines))
        (self.folder / "archive.key").write_text(private_postfix.KEY)

    def run(self, door: str, *words: str, message: bytes = LETTER) -> list[str]:
        """Run a door on a message; return the modules it has loaded for that."""
        done = subprocess.run(
            [*PYTHON, "-c", TELLING, f"{self.program}/{door}", *words],
            input=message,
            capture_output=True,
            env={"MAIL_CONFIG": str(self.folder)},
            check=True,
        )
        assert done.stdout.startswith(b"id=20261122-"), done.stdout
        return done.stderr.decode().split("\n")

    def runs(self) -> dict[str, list[str]]:
        """Run both doors, the second on the capsule of the first."""
        loaded = {"archive-stamp": self.run("archive-stamp", *STAMP)}
        with (self.folder / "archive.cf").open("a") as settings:
            settings.write("archive_write_through_time_limit = 0\n")
        self.run("archive-stamp", *STAMP)
        [capsule] = self.peer.took("capsule@archive-request.invalid")
        content = capsule.content.replace(b"\r\n", b"\n")
        loaded["archive"] = self.run("archive", *ARCHIVE, message=content)
        [copy] = self.peer.took("legal@example.com")
        assert b"Hello." in copy.content
        return loaded

    def came_from_bundle(self) -> bool:
        """Tell whether a run of the stamp filter took its modules out of the bundle."""
        loaded = self.run("archive-stamp", *STAMP)
        return "__future__" not in loaded  # a bundle has no annotations


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program as it is laid down, not to be changed."""
    folder = tmp_path_factory.mktemp("program") / "lib"
    private_postfix.install_program(folder)
    return folder


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    """What the doors take for Postfix's ports."""
    said = "250 2.0.0 Ok: queued as 4Zx1Yk4BB2z9Qy"
    extensions = ("8BITMIME", "DSN", "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE")
    with Peer(lambda transaction, to: said, extensions=extensions) as listening:
        yield listening


@pytest.fixture
def host(tmp_path: Path, peer: Peer, program: Path) -> Host:
    """A host without a Postfix."""
    peer.taken.clear()
    return Host(tmp_path, peer, program)


def bare() -> set[str]:
    """The modules of an interpreter that does nothing."""
    program = "import sys; print(*sys.modules)"
    done = subprocess.run([*PYTHON, "-c", program], capture_output=True, check=True)
    return set(done.stdout.decode().split())


def usual(name: str) -> str:
    """A module by the name that it has in the lists here."""
    if name.startswith("postfix_archive."):
        return name.removeprefix("postfix_archive.")
    return "_sha256" if name == "_sha2" else name  # Python 3.12 and later


def test_a_door_loads_these_modules_for_a_message_and_no_others(host: Host) -> None:
    for door, loaded in host.runs().items():
        more = {usual(each) for each in set(loaded) - bare()}
        assert sorted(more) == sorted(set(LOADED[door].split()) - bare()), door


def test_without_bundles_the_doors_do_the_same(host: Host) -> None:
    shutil.rmtree(host.release / import_bundle.DIRECTORY)
    loaded = host.runs()
    assert "__future__" in loaded["archive-stamp"]
    assert "__future__" in loaded["archive"]


def test_a_bundle_spares_the_search_for_each_module(host: Host) -> None:
    assert host.came_from_bundle()


@pytest.mark.parametrize("door", sorted(import_bundle.PROGRAMS))
def test_a_bundle_holds_what_the_door_imports_each_after_its_own(door: str) -> None:
    rooms = import_bundle.PROGRAMS[door]
    program = "import sys; sys.path.insert(0, sys.argv[1])\n"
    program += "".join(f"import postfix_archive.{room}\n" for room in rooms)
    program += "print(*(n for n in sys.modules if n.startswith('postfix_archive')))"
    root = str(private_postfix.ROOT)
    command = [*PYTHON, "-c", program, root]
    done = subprocess.run(command, capture_output=True, check=True)
    needed = import_bundle.required_modules(rooms, root)
    assert sorted(needed) == sorted(done.stdout.decode().split())
    for number, name in enumerate(needed):
        own = (
            import_bundle.required_modules((name.partition(".")[2],), root)
            if "." in name
            else []
        )
        assert set(own) <= set(needed[: number + 1])


def test_a_source_edited_in_place_is_heeded(host: Host) -> None:
    room = host.release / "postfix_archive" / "stamp_filter" / "capture_plan.py"
    text = room.read_text()
    room.write_text(text + "# a word\n")
    assert not host.came_from_bundle()
    # As long as before and in the same second: as in a .pyc, that is another one.
    told = room.stat()
    room.write_text(text)
    os.utime(room, ns=(told.st_atime_ns, told.st_mtime_ns + 1))
    assert not host.came_from_bundle()


@pytest.mark.parametrize("fault", ["missing", "empty", "cut", "other", "rubbish"])
def test_a_bundle_that_cannot_be_used_is_none(host: Host, fault: str) -> None:
    path = host.release / import_bundle.DIRECTORY / "archive-stamp"
    made = path.read_bytes()
    path.unlink()
    if fault != "missing":
        other = bytes((made[0] ^ 1,)) + made[1:]  # that of another Python
        contents = {"empty": b"", "cut": made[:-1], "other": other}
        path.write_bytes(contents.get(fault, made[:4] + b"\xff" * 100))
    assert not host.came_from_bundle()


def test_a_module_out_of_a_bundle_names_its_file_and_finds_its_neighbours(
    host: Host,
) -> None:
    text = f"""
import sys
sys.argv = ["x"]
launcher = {{"__name__": "launcher"}}
exec(open({str(host.program / "archive")!r}).read(), launcher)
import marshal, posix
from _frozen_importlib_external import MAGIC_NUMBER
launcher.update(marshal=marshal, posix=posix, MAGIC_NUMBER=MAGIC_NUMBER)
launcher["load_bundle"]({str(host.release)!r}, "archive")
from postfix_archive.message import dates
from postfix_archive.postfix import qmqp_client
from postfix_archive.store import archive
assert "__future__" in sys.modules  # of qmqp_client, which no bundle has
print(archive.__file__, qmqp_client.__file__, dates.parse_rfc5322.__code__.co_filename)
"""
    command = [*PYTHON, "-c", text]
    done = subprocess.run(command, capture_output=True, check=True)
    package = host.release / "postfix_archive"
    *files, code = done.stdout.decode().split()
    assert files == [
        str(package / "store" / "archive.py"),
        str(package / "postfix" / "qmqp_client.py"),
    ]
    assert code.endswith("/postfix_archive/message/dates.py")  # where it was made


def test_code_in_a_bundle_bears_the_path_that_the_release_will_have(
    tmp_path: Path,
) -> None:
    shutil.copytree(
        private_postfix.ROOT / "postfix_archive", tmp_path / import_bundle.PACKAGE
    )
    import_bundle.make(str(tmp_path), "/usr/lib/postfix-archive/releases/0")
    made = (tmp_path / import_bundle.DIRECTORY / "archive").read_bytes()
    for name, place, size, _, code in marshal.loads(made[4:]):
        assert code.co_filename == f"/usr/lib/postfix-archive/releases/0/{place}"
        assert size == (tmp_path / place).stat().st_size
        assert place.startswith(name.replace(".", "/"))


def test_a_door_is_found_through_links_to_it(host: Host) -> None:
    first, second = host.folder / "archive-first", host.folder / "second"
    first.symlink_to("lib/archive-stamp")
    second.symlink_to(first)
    command = [*PYTHON, str(second), *STAMP]
    done = subprocess.run(
        command,
        input=LETTER,
        env={"MAIL_CONFIG": str(host.folder)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"id=")


def test_only_annotations_and_docstrings_are_left_out() -> None:
    text = '''"""Doc."""
from __future__ import annotations
class A:
    """Doc."""
    x: int
    y: int = 2
def f(a: int, *b: int, c: int = 3, **d: int) -> A:
    """Doc."""
    e: int = a + c
    return e
assert f(1) == 4 and A.y == 2
said = [f.__annotations__, f.__doc__, A.__doc__, getattr(A, "x", None)]
'''
    tree = ast.fix_missing_locations(
        import_bundle.AnnotationRemover().visit(ast.parse(text))
    )
    known: dict[str, object] = {}
    exec(compile(tree, "x", "exec", dont_inherit=True, optimize=2), known)
    assert known["said"] == [{}, None, None, None]
    exec(compile(tree, "x", "exec", dont_inherit=True, optimize=0), {})  # its assert
    assert "annotations" not in known
