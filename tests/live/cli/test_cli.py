"""The commands list and show, run as people run them."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
COMMAND = Path(sys.executable).parent / "postfix-archive"


@pytest.fixture(scope="module")
def filled_host() -> Iterator[PrivatePostfix]:
    """An instance with a few messages in two archives."""
    with PrivatePostfix() as postfix:
        subjects = [
            b"=?utf-8?Q?Gr=C3=BC=C3=9Fe?= aus Berlin",
            "Привет из Москвы, это письмо для архива".encode("koi8-r"),
            "grüße".encode(),
            b"plain \x1b[31mred",
        ]
        for number, subject in enumerate(subjects):
            postfix.send(
                b"Subject: " + subject + b"\nMessage-Id: <%d@x>\n\nx\n" % number,
                to=["bob@example.net", "carol@example.net"],
            )
        postfix.wait_for_empty_queue()
        yield postfix


def run_command(postfix: PrivatePostfix, *arguments: str, exit_code: int = 0) -> str:
    """Run the command; return what it says, or what it complains."""
    process = subprocess.run(
        [COMMAND, "-c", str(postfix.etc), *arguments], capture_output=True, check=False
    )
    assert process.returncode == exit_code, process.stderr
    assert b"Traceback" not in process.stderr
    return (process.stderr if exit_code else process.stdout).decode()


def record_ids(postfix: PrivatePostfix) -> list[str]:
    """The archive ids that list shows."""
    return [line.split()[0] for line in run_command(postfix, "list").splitlines()]


def test_list_has_a_line_for_each_message(filled_host: PrivatePostfix) -> None:
    lines = run_command(filled_host, "list").splitlines()
    assert len(lines) == 4
    assert all("alice@example.org -> bob@example.net +1" in line for line in lines)


def test_subjects_are_readable_in_any_charset(filled_host: PrivatePostfix) -> None:
    output = run_command(filled_host, "list")
    assert "Grüße aus Berlin" in output
    assert "Привет из Москвы" in output
    assert "grüße" in output
    assert "\x1b" not in output


def test_list_as_json_is_read_by_programs(filled_host: PrivatePostfix) -> None:
    rows = [
        json.loads(line)
        for line in run_command(filled_host, "list", "--json").splitlines()
    ]
    assert [row["recipients"] for row in rows] == [
        ["bob@example.net", "carol@example.net"]
    ] * 4


def test_list_can_be_narrowed(filled_host: PrivatePostfix) -> None:
    assert "No archived messages" in run_command(
        filled_host, "list", "--until", "2000-01-01"
    )
    assert (
        len(run_command(filled_host, "list", "--since", "1 Jan 2020").splitlines()) == 4
    )
    assert len(run_command(filled_host, "list", "--last", "2").splitlines()) == 2
    process = filled_host.run_command("list", "--archive", "none@example.com")
    assert (process.returncode, process.stdout) == (1, "")
    assert "has no archive none@example.com; it has legal@example.com" in process.stderr


def test_show_prints_the_complete_record(filled_host: PrivatePostfix) -> None:
    output = run_command(filled_host, "show", record_ids(filled_host)[0])
    for expected in (
        "Sender:      alice@example.org",
        "carol@example.net",
        "helo client",
    ):
        assert expected in output
    assert str(filled_host.store) in output


def test_show_raw_is_the_file_and_original_its_digest(
    filled_host: PrivatePostfix,
) -> None:
    row = json.loads(run_command(filled_host, "list", "--json", "--last", "1"))
    file = filled_host.store / row["archive"] / row["files"][0]
    for option, expected in (
        ("--raw", hashlib.sha256(gzip.decompress(file.read_bytes())).hexdigest()),
        ("--original", row["sha256"]),
    ):
        command = [COMMAND, "-c", str(filled_host.etc), "show", option, row["id"]]
        process = subprocess.run(command, capture_output=True, check=True)
        assert hashlib.sha256(process.stdout).hexdigest() == expected


def test_an_id_may_be_cut_off_where_it_is_unique(filled_host: PrivatePostfix) -> None:
    first = record_ids(filled_host)[0]
    assert first in run_command(filled_host, "show", first[:16])
    assert "matches 4 records" in run_command(
        filled_host, "show", first[:8], exit_code=1
    )
    assert "no record" in run_command(filled_host, "show", "nothing", exit_code=1)


def test_a_wrong_setting_names_file_line_and_allowed_values(
    filled_host: PrivatePostfix,
) -> None:
    filled_host.set_archive_cf(archive_report_format="fancy")
    output = run_command(filled_host, "list", exit_code=1)
    filled_host.set_archive_cf()
    assert "archive.cf, line" in output
    assert "archive_report_format = fancy: must be one of hybrid, dsn" in output


def test_a_wrong_date_is_named(filled_host: PrivatePostfix) -> None:
    assert "'yesterdayish' is not a date" in run_command(
        filled_host, "list", "--since", "yesterdayish", exit_code=2
    )


def test_a_damaged_copy_is_named(filled_host: PrivatePostfix) -> None:
    row = json.loads(run_command(filled_host, "list", "--json", "--last", "1"))
    file = filled_host.store / row["archive"] / row["files"][0]
    content = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(content[: len(content) // 2])
    output = run_command(filled_host, "show", "--raw", row["id"], exit_code=1)
    file.write_bytes(content)
    assert "RecordDamaged" in output
    assert str(file) in output


def test_config_directory_comes_from_mail_config_too(
    filled_host: PrivatePostfix,
) -> None:
    process = subprocess.run(
        [COMMAND, "list"],
        capture_output=True,
        check=True,
        env={**os.environ, "MAIL_CONFIG": str(filled_host.etc)},
    )
    assert len(process.stdout.splitlines()) == 4


def test_a_key_is_made_once_and_never_replaced(filled_host: PrivatePostfix) -> None:
    path = filled_host.directory / "new.key"
    filled_host.set_archive_cf(archive_key_file=str(path))
    run_command(filled_host, "key", "create", "--owner", "nobody")
    assert path.stat().st_mode & 0o777 == 0o600
    first = path.read_text()
    assert "already exists" in run_command(filled_host, "key", "create", exit_code=1)
    assert (
        "no user nosuchuser"
        in run_command(
            filled_host, "key", "create", "--owner", "nosuchuser", exit_code=1
        )
        or path.read_text() == first
    )
    assert path.read_text() == first
    filled_host.set_archive_cf()
