"""ARCHIVE in tables: compiled by the command, looked up by Postfix itself."""

from __future__ import annotations

import json
import re
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_archive.postfix import archive_services, capture_maps

from mails import LEGAL, archives_of, mail, one_delivery
from private_postfix import PrivatePostfix, free_ports

pytestmark = pytest.mark.live
COMMAND = Path(sys.executable).parent / "postfix-archive"
PORTS: dict[str, int] = {}
ON_REQUEST = {
    "content_filter": archive_services.content_filter_expression(
        1, "$archive_next_filter", True
    ),
    "receive_override_options": archive_services.override_options_expression("", True),
}
TEN_ARCHIVES = [f"archive-{number}@example.com" for number in range(10)]
SOURCES = {
    "hash:senders": "# who\ncarol@example.org ARCHIVE hr@example.com, ceo@example.com"
    " # case 7\nmallory@example.org REJECT not you\n"
    f"ten@example.org ARCHIVE {', '.join(TEN_ARCHIVES)}\n",
    "regexp:headers": "if /^Subject:/\n/: a contract/ ARCHIVE contracts@example.com\n"
    "/: spam/ REJECT no spam\nendif\n",
    "regexp:bodies": "/the merger/ archive board@example.com\n",
    "cidr:clients": "127.0.0.0/8 ARCHIVE net@example.com\n",
}


def run_tables(
    postfix: PrivatePostfix, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the command tables; return what it says and complains."""
    return subprocess.run(
        [COMMAND, "-c", str(postfix.etc), "tables", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def write_sources(postfix: PrivatePostfix, sources: dict[str, str]) -> None:
    """Write source tables, each under type:name, and name them in archive.cf."""
    for table, text in sources.items():
        (postfix.etc / f"{table.partition(':')[2]}.in").write_text(text)
    tables = (table.replace(":", f":{postfix.etc}/") + ".in" for table in sources)
    postfix.set_archive_cf(archive_tables=", ".join(tables))


@pytest.fixture(scope="module")
def five_sources_host() -> Iterator[PrivatePostfix]:
    """An instance whose requests come from five sources at once."""
    [other_port, off_port] = free_ports(2)
    PORTS.update(other=other_port, off=off_port)
    postfix = PrivatePostfix(
        main=ON_REQUEST,
        master=f"127.0.0.1:{other_port} inet n - n - - smtpd\n"
        "  -o archive=other@example.com\n"
        f"127.0.0.1:{off_port} inet n - n - - smtpd\n  -o archive=\n"
        "  -o smtpd_client_restrictions=\n",
    )
    write_sources(postfix, SOURCES)
    process = run_tables(postfix)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    postfix.postconf(
        smtpd_client_restrictions=f"check_client_access cidr:{postfix.etc}/clients",
        smtpd_sender_restrictions=f"check_sender_access hash:{postfix.etc}/senders",
        header_checks=f"regexp:{postfix.etc}/headers",
        body_checks=f"regexp:{postfix.etc}/bodies",
    )
    with postfix:
        yield postfix


TABLES = ["board", "ceo", "contracts", "hr", "net"]


@pytest.mark.parametrize(("port", "default"), [("", "legal"), ("other", "other")])
def test_requests_of_five_sources_add_up(
    five_sources_host: PrivatePostfix, port: str, default: str
) -> None:
    name = f"a contract by {default}"
    content = mail(name) + b"about the merger\n"
    five_sources_host.send(content, sender="carol@example.org", port=PORTS.get(port))
    five_sources_host.wait_for_empty_queue()
    expected = sorted(f"{each}@example.com" for each in [*TABLES, default])
    assert archives_of(five_sources_host, name) == expected
    content = one_delivery(five_sources_host, name, "bob@example.net").content
    assert content.count(b"Archive-Stamp:") == len(expected)
    assert b"archive-request" not in content


def test_a_table_requests_where_the_service_does_not(
    five_sources_host: PrivatePostfix,
) -> None:
    five_sources_host.send(
        mail("no default"), sender="carol@example.org", port=PORTS["off"]
    )
    five_sources_host.send(mail("nothing"), port=PORTS["off"])
    five_sources_host.wait_for_empty_queue()
    assert archives_of(five_sources_host, "no default") == [
        "ceo@example.com",
        "hr@example.com",
    ]
    assert archives_of(five_sources_host, "nothing") == []


def test_ten_archives_in_one_line_all_get_it(five_sources_host: PrivatePostfix) -> None:
    five_sources_host.send(mail("ten"), sender="ten@example.org", port=PORTS["off"])
    five_sources_host.wait_for_empty_queue()
    assert archives_of(five_sources_host, "ten") == TEN_ARCHIVES


def test_native_lines_beside_still_work(five_sources_host: PrivatePostfix) -> None:
    with pytest.raises(smtplib.SMTPResponseException, match="not you"):
        five_sources_host.send(mail("rejected"), sender="mallory@example.org")
    with pytest.raises(smtplib.SMTPResponseException, match="no spam"):
        five_sources_host.send(mail("spam"))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("lmdb", "# since 2019\ncarol@example.org\n    ARCHIVE hr@example.com\n"),
        ("texthash", "carol@example.org ARCHIVE hr@example.com # case 7\n"),
        ("pcre", "# whoever\n/^carol@/i\n  ARCHIVE hr@example.com\n"),
    ],
)
def test_every_kind_of_table_can_request(kind: str, text: str) -> None:
    postfix = PrivatePostfix(main=ON_REQUEST, archive="")
    write_sources(postfix, {f"{kind}:senders": text})
    process = run_tables(postfix)
    assert (process.returncode, process.stderr) == (0, "")
    rules = f"check_sender_access {kind}:{postfix.etc}/senders"
    postfix.postconf(smtpd_sender_restrictions=rules)
    with postfix:
        postfix.send(mail("asked"), sender="carol@example.org")
        postfix.send(mail("not asked"), sender="dave@example.org")
        postfix.wait_for_empty_queue()
        assert archives_of(postfix, "asked") == ["hr@example.com"]
        assert archives_of(postfix, "not asked") == []


def test_a_changed_hash_table_counts_without_reload(
    five_sources_host: PrivatePostfix,
) -> None:
    path = five_sources_host.etc / "senders.in"
    path.write_text(path.read_text() + "dave@example.org ARCHIVE dave@example.com\n")
    process = run_tables(five_sources_host)
    assert "senders.in:5  dave@example.org -> dave@example.com" in process.stdout
    assert f"{five_sources_host.etc}/senders written" in process.stdout
    assert f"{five_sources_host.etc}/headers unchanged" in process.stdout
    assert "reload" not in process.stdout
    five_sources_host.send(mail("dave"), sender="dave@example.org", port=PORTS["off"])
    five_sources_host.wait_for_empty_queue()
    assert archives_of(five_sources_host, "dave") == ["dave@example.com"]


def test_a_lost_database_is_made_again(five_sources_host: PrivatePostfix) -> None:
    (five_sources_host.etc / "senders.db").unlink()
    assert (
        f"{five_sources_host.etc}/senders written"
        in run_tables(five_sources_host).stdout
    )
    assert (five_sources_host.etc / "senders.db").exists()
    assert (
        f"{five_sources_host.etc}/senders unchanged"
        in run_tables(five_sources_host).stdout
    )
    assert not list(five_sources_host.etc.glob(".*draft*"))


def test_a_duplicate_key_is_reported() -> None:
    with PrivatePostfix(main=ON_REQUEST) as postfix:
        write_sources(postfix, {"hash:a": "x REJECT\nx ARCHIVE legal@example.com\n"})
        process = run_tables(postfix)
        assert process.returncode == 0
        assert f'{postfix.etc}/a.db: duplicate entry: "x"' in process.stderr


def test_tables_warn_of_mail_that_bypasses_the_filter() -> None:
    with PrivatePostfix() as postfix:
        assert "set archive_tables" in run_tables(postfix).stdout
        write_sources(postfix, {"texthash:a": "x ARCHIVE legal@example.com\n"})
        process = run_tables(postfix, "--dry-run")
        assert process.returncode == 0
        assert "would be written" in process.stdout
        assert not (postfix.etc / "a").exists()
        assert "make install ON_REQUEST=yes" in process.stderr
        assert ON_REQUEST["content_filter"] in process.stderr


def test_tables_warn_of_mail_that_native_mode_does_not_capture() -> None:
    with PrivatePostfix(mode="native") as postfix:
        write_sources(postfix, {"texthash:a": "x ARCHIVE legal@example.com\n"})
        process = run_tables(postfix)
        assert process.returncode == 0
        assert "make install ON_REQUEST=yes" in process.stderr
        assert "content_filter" not in process.stderr
        [(name, value)] = re.findall(r"^  (\S+) = (.*)$", process.stderr, re.M)
        postfix.postconf(**{name: value})
        assert run_tables(postfix).stderr == ""


def test_a_native_host_that_captures_all_mail_knows_the_archive_of_main_cf() -> None:
    """postconf(1) does not list a parameter that no other one uses."""
    parameter = capture_maps.PARAMETER
    on_request = {parameter: capture_maps.main_expression(on_request=True)}
    with PrivatePostfix(mode="native", main=on_request) as postfix:
        assert f"pickup/unix: {LEGAL}\n" in explain(
            postfix, "--from", "a@example.org", "--to", "b@example.net"
        )
        findings = json.loads(postfix.run_command("doctor", "--json").stdout)[
            "findings"
        ]
        assert "capture-map" not in [each["check"] for each in findings]
        postfix.send(mail("one"))
        postfix.wait_for_empty_queue()
        assert archives_of(postfix, "one") == [LEGAL]


def test_an_error_is_one_line_and_nothing_is_written() -> None:
    with PrivatePostfix(main=ON_REQUEST) as postfix:
        write_sources(
            postfix,
            {"hash:a": "x ARCHIVE legal@example.com\n", "hash:b": "y ARCHIVE legal\n"},
        )
        process = run_tables(postfix)
        assert process.returncode == 1
        assert f"TableInvalid: {postfix.etc}/b.in, line 1: " in process.stderr
        assert process.stderr.count("\n") == 1
        assert not (postfix.etc / "a").exists()


def explain(postfix: PrivatePostfix, *arguments: str) -> str:
    """What explain says."""
    process = subprocess.run(
        [COMMAND, "-c", str(postfix.etc), "explain", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in process.stderr
    return process.stdout


@pytest.mark.parametrize("sender", ["carol@example.org", "dan@example.org", ""])
@pytest.mark.parametrize("text", ["the merger", "the weather"])
@pytest.mark.parametrize("port", ["", "other", "off"])
def test_what_is_explained_is_what_is_archived(
    five_sources_host: PrivatePostfix, tmp_path: Path, sender: str, text: str, port: str
) -> None:
    name = f"a contract of {sender} on {text} by {port}"
    content = mail(name) + text.encode() + b"\n"
    (tmp_path / "mail.eml").write_bytes(content)
    number = PORTS.get(port) or five_sources_host.smtp_port
    output = explain(
        five_sources_host,
        *("--from", sender or "<>", "--to", "bob@example.net"),
        *("--client", "127.0.0.1", "--service", f"127.0.0.1:{number}/inet"),
        str(tmp_path / "mail.eml"),
    )
    five_sources_host.send(content, sender=sender, port=number)
    five_sources_host.wait_for_empty_queue()
    first = output.splitlines()[0].partition("inet: ")[2]
    assert first.split(", ") == archives_of(five_sources_host, name) or (
        first == "not archived" and not archives_of(five_sources_host, name)
    )


def test_explain_names_the_lines(five_sources_host: PrivatePostfix) -> None:
    arguments = ("--from", "carol@example.org", "--to", "bob@example.net")
    output = explain(five_sources_host, *arguments)
    off_part = output.partition(f":{PORTS['off']}/inet")[2]
    assert "pickup/unix: legal@example.com\n  main.cf: archive = legal@" in output
    assert (
        f"{five_sources_host.etc}/senders.in, line 2\n    check_sender_access: carol@"
        in off_part
    )
    assert "main.cf: archive" not in re.split(r"\n(?! )", off_part)[0]
    assert "not looked up, key unknown: check_client_access" in output
    assert five_sources_host.queue_files() == []


def test_explain_needs_an_existing_service(five_sources_host: PrivatePostfix) -> None:
    process = subprocess.run(
        [
            str(COMMAND),
            "-c",
            str(five_sources_host.etc),
            "explain",
            "--from",
            "a",
            "--to",
            "b",
        ]
        + ["--service", "smtps/inet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "smtps/inet does not receive mail" in process.stderr
