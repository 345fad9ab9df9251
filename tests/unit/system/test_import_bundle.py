"""Claims about the bundles, and a count: what a transport loads for one message."""

from __future__ import annotations

import ast
import marshal
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import isal
import pytest
from smtp_peer import Peer

from postfix_archive.message import keyring, request
from postfix_archive.system import import_bundle

import private_postfix

PYTHON = ["/usr/bin/python3", "-I", "-S"]
MESSAGE = (
    b"Received: from client.example.org (client.example.org [192.0.2.7])\n"
    b"\tby mail.example.com (Postfix) with ESMTP id 4Zx1Yk2Pp7z9Qw\n"
    b"\tfor <bob@example.net>; Sun, 22 Nov 2026 12:53:00 +0100 (CET)\n"
    b"From: alice@example.org\nTo: bob@example.net\nSubject: hello\n\nHello.\n"
)
STAMP_ARGUMENTS = (
    *("--nexthop", "legal@example.com", "--queue-id", "4Zx1Yk2Pp7z9Qw"),
    *("--size", "264"),
    *("--client-address", "192.0.2.7", "--client-protocol", "ESMTP"),
    *("--sender", "alice@example.org", "--", "bob@example.net", "bob@example.net"),
)
CAPTURE_RECIPIENT = (
    request.capture_table(
        "legal@example.com", keyring.parse(private_postfix.KEY, path="KEY")
    )
    .split()[-1]
    .replace("$1", "bob@example.net")
    .replace("capture.", '"capture.')
    .replace("@archive-request", '"@archive-request')
)
CAPTURE_ARGUMENTS = (
    *("--nexthop", request.CAPTURE_NEXTHOP, "--queue-id", "4Zx1Yk2Pp8z9Qw"),
    *STAMP_ARGUMENTS[4 : STAMP_ARGUMENTS.index("--") + 1],
    CAPTURE_RECIPIENT,
    CAPTURE_RECIPIENT,
)
ARCHIVE_ARGUMENTS = ("--queue-id", "4Zx1Yk3AA1z9Qx")
# Runs a launcher as the kernel does, and tells at its end which modules it has loaded.
LOADED_MODULES_PROGRAM = """
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
# What transports load for one message, every import counted: each costs about 0.05 ms
# of CPU from a bundle, 0.2 from a file of its own, a C module in a file up to 2.4; a
# bare start has 7. What is needed seldom is imported where it is needed.
BOTH_PROGRAM = """
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
    store.archive store.copy_file store.fallback store.journal store.journal_format
    store.journal_segment store.known_end
    system.deadline system.draft system.files system.spool
    fcntl itertools zlib
"""
EXPECTED_MODULES = {
    "archive-stamp": f"""{BOTH_PROGRAM}
        marshal
        intake.end_of_file
        message.request message.verp
        postfix.process_stat postfix.queue_file_size
        stamp_filter.capture stamp_filter.capture_plan stamp_filter.write_through
        system.child_process
    """,
    # And in its child process _sqlite3, with what that imports.
    "archive-capture": f"""{BOTH_PROGRAM}
        marshal
        archive_transport.recent_captures
        intake.end_of_file
        message.request message.verp
        postfix.process_stat postfix.queue_file_size
        stamp_filter.capture_plan stamp_filter.native_capture stamp_filter.write_through
        system.child_process
    """,
    "archive": BOTH_PROGRAM,
}


class Host:
    """The program as it is laid down, settings, a key, and a peer for Postfix."""

    def __init__(self, directory: Path, peer: Peer, program: Path) -> None:
        self.directory = directory
        self.program_directory = directory / "lib"
        self.release = self.program_directory / "releases" / "one"
        self.peer = peer
        shutil.copytree(program, self.program_directory)
        self.release.mkdir(parents=True)
        for each in ("postfix_archive", "bundles"):
            (self.program_directory / each).rename(self.release / each)
        (self.program_directory / "current").symlink_to("releases/one")
        self._set_up()

    def _set_up(self) -> None:
        names = ("handback", "capsule", "copy")
        lines = [f"archive_{n}_address = 127.0.0.1:{self.peer.port}\n" for n in names]
        lines.append("myhostname = mail.example.com\n")
        for name in ("store", "spool", "fallback"):
            (self.directory / name).mkdir()
            lines.append(f"archive_{name}_directory = {self.directory}/{name}\n")
        (self.directory / "archive.cf").write_text("".join(lines))
        (self.directory / "archive.key").write_text(private_postfix.KEY)

    def run(
        self, launcher: str, *arguments: str, message: bytes = MESSAGE
    ) -> list[str]:
        """Run a transport on a message; return the modules it has loaded for that."""
        process = subprocess.run(
            [
                *PYTHON,
                "-c",
                LOADED_MODULES_PROGRAM,
                f"{self.program_directory}/{launcher}",
                *arguments,
            ],
            input=message,
            capture_output=True,
            env={"MAIL_CONFIG": str(self.directory)},
            check=True,
        )
        assert process.stdout.startswith((b"id=20261122-", b"220 ")), process.stdout
        return process.stderr.decode().split("\n")

    def run_all(self) -> dict[str, list[str]]:
        """Run all transports, that for capsules on the capsule of the first."""
        loaded = {"archive-stamp": self.run("archive-stamp", *STAMP_ARGUMENTS)}
        with (self.directory / "archive.cf").open("a") as settings:
            settings.write("archive_write_through_time_limit = 0\n")
        self.run("archive-stamp", *STAMP_ARGUMENTS)
        [capsule] = self.peer.accepted_for("capsule@archive-request.invalid")
        content = capsule.content.replace(b"\r\n", b"\n")
        loaded["archive"] = self.run("archive", *ARCHIVE_ARGUMENTS, message=content)
        [copy] = self.peer.accepted_for("legal@example.com")
        assert b"Hello." in copy.content
        # The first message makes the database of recent captures.
        other_message = MESSAGE.replace(b"4Zx1Yk2Pp7z9Qw", b"4Zx1Yk2Pp8z9Qw")
        for text in (b"Hello.", b"Again."):
            content = other_message.replace(b"Hello.", text)
            loaded["archive-capture"] = self.run(
                "archive-capture", *CAPTURE_ARGUMENTS, message=content
            )
        assert len(self.peer.accepted_for("legal@example.com")) == 3
        return loaded

    def is_from_bundle(self) -> bool:
        """Tell whether a run of the stamp filter took its modules out of the bundle."""
        loaded = self.run("archive-stamp", *STAMP_ARGUMENTS)
        return "__future__" not in loaded  # a bundle has no annotations


@pytest.fixture(scope="module")
def installed_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program as it is laid down, not to be changed."""
    directory = tmp_path_factory.mktemp("program") / "lib"
    private_postfix.install_program(directory)
    return directory


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    """What the transports take for Postfix's ports."""
    reply = "250 2.0.0 Ok: queued as 4Zx1Yk4BB2z9Qy"
    extensions = ("8BITMIME", "DSN", "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE")
    with Peer(lambda transaction, to: reply, extensions=extensions) as listening:
        yield listening


@pytest.fixture
def host(tmp_path: Path, peer: Peer, installed_program: Path) -> Host:
    """A host without a Postfix."""
    peer.accepted.clear()
    return Host(tmp_path, peer, installed_program)


def bare_modules() -> set[str]:
    """The modules of an interpreter that does nothing."""
    program = "import sys; print(*sys.modules)"
    process = subprocess.run([*PYTHON, "-c", program], capture_output=True, check=True)
    return set(process.stdout.decode().split())


def plain_name(name: str) -> str:
    """A module by the name that it has in the lists here."""
    if name.startswith("postfix_archive."):
        return name.removeprefix("postfix_archive.")
    return "_sha256" if name == "_sha2" else name  # Python 3.12 and later


def test_a_transport_loads_these_modules_for_a_message_and_no_others(
    host: Host,
) -> None:
    for launcher, loaded in host.run_all().items():
        extra = {plain_name(each) for each in set(loaded) - bare_modules()}
        assert sorted(extra) == sorted(
            set(EXPECTED_MODULES[launcher].split()) - bare_modules()
        ), launcher


def test_without_bundles_the_transports_do_the_same(host: Host) -> None:
    shutil.rmtree(host.release / import_bundle.DIRECTORY)
    loaded = host.run_all()
    assert "__future__" in loaded["archive-stamp"]
    assert "__future__" in loaded["archive"]


def test_a_bundle_spares_the_search_for_each_module(host: Host) -> None:
    assert host.is_from_bundle()


def test_a_worker_alone_takes_a_package_of_the_commands(host: Host) -> None:
    """One that is not there is not missed."""
    assert "isal" not in host.run("archive-lmtp", message=b"")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = host.release / "commands" / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "isal").symlink_to(Path(isal.__file__).parent)
    assert "isal.isal_zlib" in host.run("archive-lmtp", message=b"")
    assert "isal" not in host.run("archive-stamp", *STAMP_ARGUMENTS)


@pytest.mark.parametrize("launcher", sorted(import_bundle.PROGRAMS))
def test_a_bundle_holds_what_the_transport_imports_in_import_order(
    launcher: str,
) -> None:
    modules = import_bundle.PROGRAMS[launcher]
    program = "import sys; sys.path.insert(0, sys.argv[1])\n"
    program += "".join(f"import postfix_archive.{module}\n" for module in modules)
    program += "print(*(n for n in sys.modules if n.startswith('postfix_archive')))"
    root = str(private_postfix.ROOT)
    command = [*PYTHON, "-c", program, root]
    process = subprocess.run(command, capture_output=True, check=True)
    needed = import_bundle.required_modules(modules, root)
    assert sorted(needed) == sorted(process.stdout.decode().split())
    for number, name in enumerate(needed):
        required = (
            import_bundle.required_modules((name.partition(".")[2],), root)
            if "." in name
            else []
        )
        assert set(required) <= set(needed[: number + 1])


def test_a_source_edited_in_place_is_used(host: Host) -> None:
    path = host.release / "postfix_archive" / "stamp_filter" / "capture_plan.py"
    text = path.read_text()
    path.write_text(text + "# a word\n")
    assert not host.is_from_bundle()
    # As long as before and in the same second: as in a .pyc, that is another one.
    stat = path.stat()
    path.write_text(text)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert not host.is_from_bundle()


@pytest.mark.parametrize("fault", ["missing", "empty", "cut", "other", "rubbish"])
def test_a_bundle_that_cannot_be_used_is_none(host: Host, fault: str) -> None:
    path = host.release / import_bundle.DIRECTORY / "archive-stamp"
    bundle = path.read_bytes()
    path.unlink()
    if fault != "missing":
        other = bytes((bundle[0] ^ 1,)) + bundle[1:]  # that of another Python
        contents = {"empty": b"", "cut": bundle[:-1], "other": other}
        path.write_bytes(contents.get(fault, bundle[:4] + b"\xff" * 100))
    assert not host.is_from_bundle()


def test_a_module_from_a_bundle_names_its_file_and_imports_its_package(
    host: Host,
) -> None:
    text = f"""
import sys
sys.argv = ["x"]
launcher = {{"__name__": "launcher"}}
exec(open({str(host.program_directory / "archive")!r}).read(), launcher)
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
    process = subprocess.run(command, capture_output=True, check=True)
    package = host.release / "postfix_archive"
    *files, code = process.stdout.decode().split()
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
    bundle = (tmp_path / import_bundle.DIRECTORY / "archive").read_bytes()
    for name, path, size, _, code in marshal.loads(bundle[4:]):
        assert code.co_filename == f"/usr/lib/postfix-archive/releases/0/{path}"
        assert size == (tmp_path / path).stat().st_size
        assert path.startswith(name.replace(".", "/"))


def test_a_launcher_is_found_through_links_to_it(host: Host) -> None:
    first, second = host.directory / "archive-first", host.directory / "second"
    first.symlink_to("lib/archive-stamp")
    second.symlink_to(first)
    command = [*PYTHON, str(second), *STAMP_ARGUMENTS]
    process = subprocess.run(
        command,
        input=MESSAGE,
        env={"MAIL_CONFIG": str(host.directory)},
        capture_output=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout.startswith(b"id=")


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
    namespace: dict[str, object] = {}
    exec(compile(tree, "x", "exec", dont_inherit=True, optimize=2), namespace)
    assert namespace["said"] == [{}, None, None, None]
    exec(compile(tree, "x", "exec", dont_inherit=True, optimize=0), {})  # its assert
    assert "annotations" not in namespace
