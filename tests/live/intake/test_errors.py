"""Whatever is wrong, mail waits: exit code 75, one line, never a traceback."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_archive import errors
from postfix_archive.system import failure_log

import mails
from private_postfix import (
    GROUP,
    USER,
    WITHOUT_WRITE_THROUGH,
    PrivatePostfix,
    free_ports,
)

pytestmark = pytest.mark.live
STAMP_ARGUMENTS = [
    "--nexthop",
    "legal@example.com",
    "--queue-id",
    "4Zx",
    "--size",
    "17",
    "--sender",
    "a@example.org",
]
RECIPIENT_ARGUMENTS = ["--", "bob@example.net", "bob@example.net"]


@pytest.fixture
def host() -> Iterator[PrivatePostfix]:
    """An instance of its own for each test, to be broken."""
    postfix = PrivatePostfix()
    yield postfix
    shutil.rmtree(postfix.directory, ignore_errors=True)


def run_program(
    host: PrivatePostfix,
    launcher: str,
    *arguments: str,
    message: bytes = b"Subject: x\n\nx\n",
) -> str:
    """Run a transport as pipe(8) would; it must defer. Return the reason for the log.

    What it prints, the sender may see.
    """
    for path in last_errors(host):
        path.unlink()
    process = subprocess.run(
        [host.program_directory / launcher, *arguments],
        input=message,
        capture_output=True,
        env={"MAIL_CONFIG": str(host.etc)},
        user=USER,
        group=GROUP,
        extra_groups=[],
        check=False,
    )
    assert process.returncode == 75
    assert process.stderr == b""
    line = process.stdout.decode()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert re.fullmatch(r"4\.\d\.\d temporary failure\n", line)
    [path] = last_errors(host)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    reason = path.read_text()
    assert reason.count("\n") == 1
    assert re.match(r"time=\S+Z (queue_id=4Zx )?error=[A-Z]\w+ reason=", reason)
    return reason


def last_errors(host: PrivatePostfix) -> list[Path]:
    """Return the files with the last failure of this instance: there is one at most."""
    directories = (str(host.directory / "spool"), failure_log.DEFAULT_DIRECTORY)
    name = failure_log._name(str(host.etc))
    paths = [Path(each, name) for each in directories]
    return [each for each in paths if each.exists()]


def test_a_wrong_setting_names_file_line_and_allowed_values(
    host: PrivatePostfix,
) -> None:
    host.set_archive_cf(archive_report_format="fancy")
    line = run_program(host, "archive-stamp", *STAMP_ARGUMENTS, *RECIPIENT_ARGUMENTS)
    assert "SettingInvalid" in line
    assert re.search(r"archive\.cf, line \d+: archive_report_format = fancy", line)
    assert "hybrid, dsn, journal, message" in line
    assert "queue_id=4Zx" in line


def test_an_unknown_setting_is_named(host: PrivatePostfix) -> None:
    host.set_archive_cf(archive_formt="dsn")
    line = run_program(host, "archive-stamp", *STAMP_ARGUMENTS, *RECIPIENT_ARGUMENTS)
    assert "archive_formt: unknown setting" in line


def test_an_unreadable_archive_cf_is_named(host: PrivatePostfix) -> None:
    (host.etc / "archive.cf").chmod(0o600)
    line = run_program(host, "archive-stamp", *STAMP_ARGUMENTS, *RECIPIENT_ARGUMENTS)
    assert "SettingsUnreadable" in line
    assert str(host.etc / "archive.cf") in line


def test_a_message_cut_short_is_named_with_its_sizes(host: PrivatePostfix) -> None:
    line = run_program(
        host,
        "archive-stamp",
        *STAMP_ARGUMENTS,
        *RECIPIENT_ARGUMENTS,
        message=b"Subject: x\n",
    )
    assert "MessageIncomplete" in line
    assert "17 bytes in the queue file, at most 12 on stdin" in line
    line = run_program(
        host, "archive-stamp", *STAMP_ARGUMENTS, *RECIPIENT_ARGUMENTS, message=b""
    )
    assert "MessageIncomplete" in line


def test_a_missing_key_is_named_and_the_cure(host: PrivatePostfix) -> None:
    (host.etc / "archive.key").unlink()
    line = run_program(host, "archive-stamp", *STAMP_ARGUMENTS, *RECIPIENT_ARGUMENTS)
    assert "KeyMissing" in line
    assert "postfix-archive key create" in line


def test_an_unusable_key_is_named_and_no_secret_shown(host: PrivatePostfix) -> None:
    (host.etc / "archive.key").write_text("test nothexadecimal\n")
    line = run_program(host, "archive-stamp", *STAMP_ARGUMENTS, *RECIPIENT_ARGUMENTS)
    assert "KeyUnreadable" in line
    assert "nothexadecimal" not in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nexthop"],
        ["--nonsense", "x"],
        ["plain"],
        [*STAMP_ARGUMENTS, "--", "bob@example.net"],
        ["--queue-id", "4Zx", "--sender"],
    ],
)
def test_arguments_that_pipe_would_never_send(
    host: PrivatePostfix, arguments: list[str]
) -> None:
    assert "ArgumentsInvalid" in run_program(host, "archive-stamp", *arguments)
    assert "ArgumentsInvalid" in run_program(host, "archive", *arguments)


def test_a_nexthop_that_is_no_address(host: PrivatePostfix) -> None:
    arguments = [
        "--nexthop",
        "../../etc/x@y",
        *STAMP_ARGUMENTS[2:],
        *RECIPIENT_ARGUMENTS,
    ]
    assert "RequestInvalid" in run_program(host, "archive-stamp", *arguments)


def test_no_postfix_behind_the_port(host: PrivatePostfix) -> None:
    assert "PostfixUnreachable" in run_program(
        host, "archive-stamp", *STAMP_ARGUMENTS, *RECIPIENT_ARGUMENTS
    )


def test_a_port_that_does_not_speak_smtp(host: PrivatePostfix) -> None:
    [port] = free_ports(1)
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", SERVER_PROGRAM, str(port)], stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        host.set_archive_cf(archive_handback_address=f"127.0.0.1:{port}")
        line = run_program(
            host, "archive-stamp", *STAMP_ARGUMENTS, *RECIPIENT_ARGUMENTS
        )
        server.kill()
    assert "PostfixUnreachable" in line


SERVER_PROGRAM = """
import socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
peer, _ = listening.accept()
peer.sendall(b"what?\\r\\n")
peer.recv(1)
"""


def test_a_reinjection_port_that_refuses(host: PrivatePostfix) -> None:
    text = (host.etc / "master.cf").read_text()
    refusing = "smtpd_recipient_restrictions=reject"
    host.etc.joinpath("master.cf").write_text(
        text.replace("smtpd_recipient_restrictions=permit_mynetworks,reject", refusing)
    )
    with host:
        line = run_program(
            host, "archive-stamp", *STAMP_ARGUMENTS, *RECIPIENT_ARGUMENTS
        )
        assert "PostfixRefused" in line
        assert "RCPT" in line


def test_no_capsule_at_the_archive_transport(host: PrivatePostfix) -> None:
    assert "CapsuleBroken" in run_program(host, "archive", "--queue-id", "4Zx")
    assert "CapsuleBroken" in run_program(
        host, "archive", "--queue-id", "4Zx", message=b""
    )


def waiting_capsule(host: PrivatePostfix) -> bytes:
    """A real capsule, as the archive transport would get it, with its plain body."""
    host.set_archive_cf(**WITHOUT_WRITE_THROUGH)
    host.postconf(defer_transports="archive")
    host.start()
    host.send(b"Subject: sealed\n\nsealed\n")
    host.wait(lambda: host.delivered_to("bob@example.net"), "it is delivered")
    host.wait(lambda: len(host.mailq()) == 1, "the capsule alone is queued")
    [waiting] = [str(each["queue_id"]) for each in host.mailq()]
    content = mails.read_capsule(host, waiting)
    host.kill()
    return content


def test_a_capsule_with_a_wrong_seal(host: PrivatePostfix) -> None:
    capsule = waiting_capsule(host)
    forged = capsule.replace(b"bob@example.net", b"eve@example.net")
    assert "SealInvalid" in run_program(
        host, "archive", "--queue-id", "4Zx", message=forged
    )
    (host.etc / "archive.key").write_text("other " + "ab" * 32 + "\n")
    assert "SealInvalid" in run_program(
        host, "archive", "--queue-id", "4Zx", message=capsule
    )
    assert not host.stored_files()


def test_a_truncated_capsule_is_not_archived_as_complete(
    host: PrivatePostfix,
) -> None:
    capsule = waiting_capsule(host)
    fields_start = capsule.index(b"Archive-Capsule: 1")
    seal = capsule.index(b"Archive-Seal: ")
    for length in (
        0,
        fields_start,
        fields_start + 5,
        (fields_start + seal) // 2,
        seal + 20,
    ):
        line = run_program(
            host, "archive", "--queue-id", "4Zx", message=capsule[:length]
        )
        assert "CapsuleBroken" in line or "SealInvalid" in line


def test_a_copy_that_waits_for_its_outcome(host: PrivatePostfix) -> None:
    capsule = waiting_capsule(host)
    host.set_archive_cf(archive_wait_for_outcome="1h")
    line = run_program(host, "archive", "--queue-id", "4Zx", message=capsule)
    assert "OutcomePending" in line
    assert "up to 3600 s" in line
    assert not host.stored_files()


def test_a_store_that_cannot_be_written(host: PrivatePostfix) -> None:
    """Nor the fallback directory: else copies go there, see test_store_faults.py."""
    capsule = waiting_capsule(host)
    host.fallback.chmod(0o500)
    host.store.chmod(0o500)
    assert "StoreFailed" in run_program(
        host, "archive", "--queue-id", "4Zx", message=capsule
    )
    host.store.chmod(0o700)
    directory = host.store / "legal@example.com"
    (directory / "drafts").mkdir(parents=True)
    (directory / "journal").touch()  # as in store format 1
    for each in (directory, directory / "drafts"):
        shutil.chown(each, USER, GROUP)
    assert "JournalFailed" in run_program(
        host, "archive", "--queue-id", "4Zx", message=capsule
    )
    assert not host.stored_files()


def test_a_spool_that_cannot_be_written(host: PrivatePostfix) -> None:
    host.set_archive_cf(archive_spool_directory="/nowhere")
    large = b"Subject: x\n\n" + b"x" * 70 + b"\n"
    line = run_program(
        host,
        "archive-stamp",
        *STAMP_ARGUMENTS,
        *RECIPIENT_ARGUMENTS,
        message=large * 80000,
    )
    assert "SpoolFailed" in line
    assert "archive_spool_directory = /nowhere" in line


def test_a_deadline_that_is_over(host: PrivatePostfix) -> None:
    [port] = free_ports(1)
    silent = SERVER_PROGRAM.replace('peer.sendall(b"what?\\r\\n")\n', "")
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", silent, str(port)], stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        host.set_archive_cf(
            archive_handback_address=f"127.0.0.1:{port}", archive_time_limit="1s"
        )
        line = run_program(
            host, "archive-stamp", *STAMP_ARGUMENTS, *RECIPIENT_ARGUMENTS
        )
        server.kill()
    assert "DeadlineExceeded" in line


BROKEN = {
    "syntax": "SyntaxError",
    "missing": "ModuleNotFoundError|ImportError",
    "unreadable": "PermissionError",
    "bug": "RuntimeError",
}


@pytest.mark.parametrize(
    "module", ["errors.py", "message/stamp.py", "store/archive.py"]
)
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_installation_defers(
    host: PrivatePostfix, module: str, fault: str
) -> None:
    path = host.program_directory / "postfix_archive" / module
    shutil.rmtree(path.parent / "__pycache__")
    if fault == "syntax":
        path.write_text("def broken(:\n")
    elif fault == "missing":
        path.unlink()
    elif fault == "unreadable":
        for each in (path, *(host.program_directory / "bundles").iterdir()):
            each.chmod(0)
    else:
        path.write_text(path.read_text() + "\nraise RuntimeError('two\\nlines')\n")
    error = f" error=({BROKEN[fault]}) reason=."
    assert re.search(error, run_program(host, "archive", "--queue-id", "4Zx"))
    if module != "store/archive.py":
        assert re.search(
            error,
            run_program(host, "archive-stamp", *STAMP_ARGUMENTS, *RECIPIENT_ARGUMENTS),
        )


def test_a_bug_in_the_middle_defers(host: PrivatePostfix) -> None:
    path = host.program_directory / "postfix_archive" / "system" / "spool.py"
    text = path.read_text().replace("    spool = Spool()\n", "    spool = 1 // 0\n")
    path.write_text(text)
    line = run_program(host, "archive-stamp", *STAMP_ARGUMENTS, *RECIPIENT_ARGUMENTS)
    assert "ZeroDivisionError" in line


def test_what_waits_arrives_when_the_cause_is_repaired(host: PrivatePostfix) -> None:
    host.set_archive_cf(archive_delivery="nowhere")
    with host:
        host.send(b"Subject: patient\n\nx\n")
        host.wait_for_log("status=(deferred|SOFTBOUNCE).*temporary failure")
        assert "archive_delivery = nowhere" in host.last_failure()
        assert len(host.mailq()) == 1
        assert not host.deliveries()
        host.set_archive_cf()
        host.flush()
        host.wait_for_empty_queue()
        assert len(host.delivered_to("bob@example.net")) == 1
        assert len(host.stored_files()) == 1


# Of commands, and never of mail in flight.
COMMAND_ERRORS = {
    "AcceptanceInvalid",
    "AccessNotRecorded",
    "AccessRefused",
    "AccessServiceFailed",
    "BypassRefused",
    "DecisionRefused",
    "DirectoryFailed",
    "EraseRefused",
    "CopyUnreachable",
    "ExportFailed",
    "FollowerRunning",
    "HoldRefused",
    "ImportFailed",
    "IndexDamaged",
    "IndexFailed",
    "IndexMissing",
    "IndexerRunning",
    "InstallFailed",
    "InstallRefused",
    "LibraryMissing",
    "LogUnreadable",
    "LoginDelayed",
    "LoginFailed",
    "NotRoot",
    "ObjectMissing",
    "ObjectStoreFailed",
    "PasswordWrong",
    "PersonUnknown",
    "PostfixCommandFailed",
    "PostfixMissing",
    "PurgeRefused",
    "QueryInvalid",
    "ReasonMissing",
    "RecordDamaged",
    "RecordHeld",
    "RecordNotFound",
    "RecordRemoved",
    "ReferenceMissing",
    "ReplayFailed",
    "ReplicatorRunning",
    "RestoreFailed",
    "RetentionRuleInvalid",
    "SavedSearchInvalid",
    "SealFailed",
    "TableInvalid",
    "TimeStampFailed",
    "UserInvalid",
    "WebDatabaseFailed",
    "WebServerFailed",
}


def test_every_error_class_is_shown_by_a_test_of_the_real_program() -> None:
    classes = {
        name
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, errors.ArchiveError)
    }
    asserted = re.findall(r'^ +assert "(\w+)" in ', Path(__file__).read_text(), re.M)
    # Where it is not at once, mail goes on: test_write_through.py.
    exceptions = {"ArchiveError", "WriteThroughFailed"}
    exceptions |= {"WriteThroughSkipped", "WriteThroughTimeout"}
    exceptions |= {"MessageIncomplete"}  # test_cut_short.py
    assert classes - exceptions - COMMAND_ERRORS <= set(asserted)
