"""What a sender sees of the archive in a delay notice or DSN: nothing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator

import pytest

from mails import mail
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
SENDER = "ann@example.org"
# Names of services in Postfix's own text.
POSTFIX_NAMES = re.compile(rb"archive-(?:stamp|handback|refused|cleanup)\b")
# Where a launcher is missing, in a field that no filter reaches (docs/limits.md).
DIAGNOSTIC_CODE = re.compile(
    rb"^Diagnostic-Code: x-unix; pipe: fatal: [^\n]*\n .*\n", re.M
)
# In the header of the delivered message, which a notice of success returns.
STAMP = re.compile(rb"^Archive-Stamp:[^\n]*\n(?:[ \t][^\n]*\n)*", re.M)


@pytest.fixture(params=["pipe", "lmtp"])
def host(request: pytest.FixtureRequest) -> Iterator[PrivatePostfix]:
    postfix = PrivatePostfix(mode=request.param)
    postfix.postconf(delay_warning_time="1s")
    yield postfix
    shutil.rmtree(postfix.directory, ignore_errors=True)


def missing_key(host: PrivatePostfix) -> None:
    (host.etc / "archive.key").unlink()


def store_and_fallback_gone(host: PrivatePostfix) -> None:
    host.set_archive_cf(archive_capsule_address="127.0.0.1:9")
    for directory in (host.store, host.fallback):
        directory.rename(directory.with_name(f"{directory.name}-away"))


def missing_program(host: PrivatePostfix) -> None:
    """The release is gone; the launcher is there."""
    package = host.program_directory / "postfix_archive"
    package.rename(package.with_name("away"))
    (host.program_directory / "bundles").rename(host.program_directory / "bundles-away")


def raising_module(host: PrivatePostfix) -> None:
    path = host.program_directory / "postfix_archive" / "message" / "stamp.py"
    path.write_text(path.read_text() + "\nraise RuntimeError('in stamp.py')\n")


def missing_launcher(host: PrivatePostfix) -> None:
    for name in ("archive-stamp", "archive-lmtp"):
        (host.program_directory / name).unlink()


def dying_launcher(host: PrivatePostfix) -> None:
    for name in ("archive-stamp", "archive-lmtp"):
        (host.program_directory / name).write_text("#!/bin/sh\nkill -9 $$\n")


FAULTS: dict[Callable[[PrivatePostfix], None], str] = {
    missing_key: "error=KeyMissing reason=.*archive.key",
    store_and_fallback_gone: "error=PostfixUnreachable reason=.*127.0.0.1:9",
    missing_program: "",
    missing_launcher: "",
    dying_launcher: "",
    raising_module: "error=RuntimeError reason=in stamp.py",
}


def assert_shows_no_archive(host: PrivatePostfix, notice: bytes) -> None:
    text = POSTFIX_NAMES.sub(b"", DIAGNOSTIC_CODE.sub(b"", STAMP.sub(b"", notice)))
    for trace in (
        str(host.directory),
        str(host.program_directory),
        "legal@example.com",
        "archive",
    ):
        assert trace.encode() not in text.lower()
    assert b"Traceback" not in text and b"KeyMissing" not in text


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_delay_notice_shows_no_archive_and_the_log_has_the_reason(
    host: PrivatePostfix, fault: Callable[[PrivatePostfix], None]
) -> None:
    fault(host)
    with host:
        host.send(mail("late"), sender=SENDER)
        host.wait_for_log("status=(deferred|SOFTBOUNCE)")

        def notices() -> list[bytes]:
            host.flush()
            return [delivery.content for delivery in host.delivered_to(SENDER)]

        host.wait(lambda: notices(), "the delay notice")
        for notice in notices():
            assert_shows_no_archive(host, notice)
        assert re.search(FAULTS[fault], host.last_failure())


def test_a_notice_of_success_shows_no_archive(host: PrivatePostfix) -> None:
    with host:
        host.send(mail("fine"), sender=SENDER, rcpt_options=("NOTIFY=SUCCESS",))
        host.wait(lambda: host.delivered_to(SENDER), "the notice of success")
        host.wait_for_empty_queue()
        for delivery in host.delivered_to(SENDER):
            assert_shows_no_archive(host, delivery.content)
