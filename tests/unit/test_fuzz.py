"""Claims about foreign bytes: whatever they are, a parser reads them or refuses them.

No exception but ours, and it ends. Noise alone never comes far, so most bytes here are
what we write ourselves, with a few of them changed. Parsers of which there is more to
say have their property in a test file of their own.
"""

from __future__ import annotations

import contextlib
import datetime
import gzip
import json
import shutil
import socket
from binascii import hexlify
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postfix_archive.archive_transport import archive_job, fallback_import, transport
from postfix_archive.bypass import switch
from postfix_archive.cli import record_view, status
from postfix_archive.config import settings as archive_settings
from postfix_archive.errors import ArchiveError
from postfix_archive.message import (
    address,
    archive_copy,
    capsule,
    envelope,
    keyring,
    printable,
    request,
    stamp,
)
from postfix_archive.message.envelope import Client, Recipient
from postfix_archive.postfix import (
    archive_services,
    configuration,
    lookup_tables,
    mail_queue,
    postfix_command,
    qmqp_client,
    smtp_client,
)
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.reconcile import acceptances, archive_lookup
from postfix_archive.rescue import queue_rescue, rescue_plan
from postfix_archive.stamp_filter import transaction
from postfix_archive.store import (
    copy_file,
    fallback,
    journal,
    record_reader,
    verifier,
)
from postfix_archive.system import spool
from postfix_archive.tables import table_source

import journal_lines
from unit import examples, samples
from unit.examples import ARCHIVE_ID, HR, KEYS, LEGAL, MESSAGE, NOW, QUEUE_ID, SENDER
from unit.store.test_archive import NAME, Capture

MANY_EXAMPLES = settings(max_examples=200)
NOISE = st.binary(max_size=200)
TEXTS = st.text(max_size=60)
FIELDS = envelope.serialise(examples.make_envelope())
PREAMBLE = capsule.make_preamble(
    examples.make_envelope(), KEYS, sender=b"a@b.c", now=NOW
)
TAG = stamp.archive_tag(LEGAL, KEYS.current)
STAMP = stamp.make(ARCHIVE_ID, TAG, examples.sha256(MESSAGE), NOW, KEYS.current)
COPY = Capture().copy
REQUEST = request.make_recipient(f"{LEGAL},{HR}", KEYS)
SESSION_BYTES = (
    b"220 mail ESMTP\r\n250-mail\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n"
    b"250 XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n250 Ok\r\n"
    b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data\r\n250 Ok: queued as 4Zx\r\n"
)
QMQP_REPLY = b"27:Kok: queued as 4Zx1Yk2Pp7z9,"
QUEUE_LISTING = (
    b'{"queue_name":"deferred","queue_id":"4Zx","arrival_time":1795348380,'
    b'"sender":"ann@example.org","recipients":[{"address":"bob@example.com",'
    b'"delay_reason":"no route"}]}\n'
)
POSTCAT = b"*** ENVELOPE RECORDS deferred/4Zx ***\ncontent_filter: archive-stamp:x@y\n"
MAIN_CF = b"mail_version = 3.7.11\narchive = a@x\nb = ${archive?{c:$archive}}\nq = 5d\n"
MASTER_CF = (
    b"smtp inet n - y - - smtpd -o { archive = b@x } -o a=check_x_access hash:y\n"
)
TABLE = b"/a\\/b/i ARCHIVE legal@example.com, hr@example.com # why\n  # go on\nif /x/\n"


@st.composite
def changed(draw: st.DrawFn, *texts: bytes) -> bytes:
    """One of these texts with a few bytes flipped, put in, taken out or doubled."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(0, 4))):
        offset = draw(st.integers(0, len(text)))
        to = min(len(text), offset + draw(st.integers(0, 40)))
        new = draw(st.sampled_from([b"", text[offset:to] * 2]) | st.binary(max_size=8))
        text = text[:offset] + new + text[to:]
    return text


def as_text(noise: bytes) -> str:
    return noise.decode("latin-1")


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Let our own errors pass, if they say in one line what is the matter."""
    try:
        yield
    except ArchiveError as error:
        assert str(error)


@contextlib.contextmanager
def replace_attribute(target: object, name: str, value: object) -> Iterator[None]:
    """Put something else into the place of a function for a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, value)
        yield


def make_spool(content: bytes) -> spool.Spool:
    message = spool.Spool()
    message.add(content, "/nowhere")
    return message


# --- messages ---------------------------------------------------------------------


@MANY_EXAMPLES
@given(changed(STAMP + MESSAGE, STAMP * 3 + MESSAGE))
def test_a_changed_stamp_is_valid_only_if_it_means_the_same(message: bytes) -> None:
    stamps = stamp.find(message, KEYS)
    digests = examples.digests(message, stamps.content_offsets)
    verdict = stamp.verify(stamps, LEGAL, digests, KEYS)
    if verdict.result == stamp.VALID:
        assert verdict.stamp is not None and verdict.stamp.archive_id == ARCHIVE_ID
        assert message.endswith(MESSAGE)


@given(changed(PREAMBLE + MESSAGE) | NOISE)
def test_a_changed_capsule_opens_as_it_was_or_not_at_all(content: bytes) -> None:
    assert capsule.fields_offset(content) <= len(content)
    with refusals():
        assert capsule.unseal(content, KEYS).fields == FIELDS


@MANY_EXAMPLES
@given(changed(FIELDS))
def test_fields_that_can_be_read_are_written_so_that_they_read_the_same(
    fields: bytes,
) -> None:
    with refusals():
        rewritten = envelope.serialise(envelope.parse(fields))
        assert envelope.serialise(envelope.parse(rewritten)) == rewritten


def make_capsule(fields: bytes, original: bytes) -> bytes:
    """A capsule with a good seal around whatever fields."""
    fields = capsule.MAGIC + fields
    proof = hexlify(KEYS.current.mac(capsule.SEAL_PURPOSE, fields))
    seal = b"k=" + KEYS.current.key_id.encode() + b"; h=" + proof
    return (
        b"\r\n" + fields + b"\r\n" + capsule.SEAL_FIELD + seal + b"\r\n\r\n" + original
    )


@given(
    changed(FIELDS), changed(MESSAGE), st.sampled_from(archive_settings.REPORT_FORMATS)
)
def test_what_has_a_good_seal_is_mailed_whatever_it_holds(
    fields: bytes, original: bytes, form: str
) -> None:
    text = f"archive_delivery = mail\narchive_report_format = {form}\n"
    message = make_spool(make_capsule(fields, original))
    case = archive_job.ArchiveJob(message, examples.make_settings(text), KEYS, NOW)

    def submit(_: object, __: bytes, ___: object, content: Any, **____: object) -> str:
        return f"4Z{sum(map(len, content))}"

    with replace_attribute(smtp_client, "submit", submit), refusals():
        assert "result=" in transport.archive_message(case)


@MANY_EXAMPLES
@given(changed(COPY, COPY.replace(b"multipart/report", b"multipart/mixed")) | NOISE)
def test_the_parts_of_a_changed_copy_lie_within_it(copy: bytes) -> None:
    assert -1 <= archive_copy.original_offset(copy) <= len(copy)
    assert archive_copy.envelope_fields(copy) in copy


@given(
    examples.LINES_LF, changed(b"\nX-MS-Journal-Report:\n") | NOISE, examples.OFFSETS
)
def test_no_marker_is_left_wherever_the_pieces_part(
    before: bytes, noise: bytes, marks: list[int]
) -> None:
    content = before + noise + b"\nX-MS-Journal-Report" + noise
    chunks = examples.split_at(content, marks)
    assert archive_copy.has_marker(chunks)
    lowercased = b"".join(archive_copy.lowercase_markers(chunks))
    assert not archive_copy.has_marker([lowercased])
    assert lowercased.lower() == content.lower()


SUBJECTS = changed(
    b"=?utf-8?B?R3LDvMOfZQ==?= =?iso-8859-1?Q?Gr=FC=DFe?=",
    b"=?utf-16?B?a?= =?hex?Q?zz?= =?unknown-8bit?B?!!!?= =?utf-7?Q?+2AA-?=",
    "Grüße, 日本語 und mehr".encode(),
    "Grüße aus Köln".encode("latin-1"),
    "日本語の件名".encode("iso-2022-jp"),
    "日本語の件名".encode("euc-jp"),
)


@MANY_EXAMPLES
@given(SUBJECTS | NOISE)
def test_any_subject_can_be_shown_on_one_line(subject: bytes) -> None:
    displayed = record_view.subject(b"Subject: " + subject + b"\r\n\r\n")
    assert samples.is_safe_line(displayed)


# --- envelopes and argv -----------------------------------------------------------


@given(changed(REQUEST))
def test_a_changed_request_requests_the_same_or_nothing(
    word: bytes,
) -> None:
    parts = request.SplitRecipients([Recipient(word)], KEYS)
    archives = tuple(parts.table_archives)
    assert archives in ((LEGAL, HR), ())
    assert (
        len(parts.recipients) + parts.forged_count + bool(archives) == 1
        or word == request.CAPSULE_RECIPIENT
    )


@given(TEXTS | changed(b"legal@example.com,hr@example.com").map(as_text))
def test_a_nexthop_names_archives_or_is_refused(nexthop: str) -> None:
    with refusals():
        for each in request.from_nexthop(nexthop):
            assert address.is_plain(each.encode())


@given(examples.ADDRESSES)
def test_any_address_can_be_written_into_a_command(mailbox: bytes) -> None:
    for encoded in (address.xtext(mailbox), address.orcpt(mailbox)):
        assert not {0x20, 0x0D, 0x0A, 0x00} & {*encoded}
    assert len(address.unquote(mailbox)) <= len(mailbox)
    assert samples.is_safe_line(printable.safe_text(mailbox))


@given(NOISE, changed(b"192.0.2.0/24", b"IPv6:2001:db8::1", b"::ffff:192.0.2.1"))
def test_whatever_a_client_is_called_it_is_in_a_network_or_not(
    client: bytes, network: bytes
) -> None:
    text = network.decode("latin-1")
    assert address.is_in_network(client, text) in (True, False)
    assert address.is_in_network(network, "192.0.2.0/24") in (True, False)
    assert address.is_network(text) in (True, False)


ARGUMENTS = (
    st.sampled_from([b"--", *(b"--" + each for each in transaction.OPTIONS)]) | NOISE
)


@given(st.lists(ARGUMENTS, max_size=20))
def test_any_command_line_is_read_or_refused(words: list[bytes]) -> None:
    with refusals():
        macros, recipients = transaction.parse_arguments(words)
        assert macros.keys() == {*transaction.OPTIONS}
        assert not recipients or len(recipients) * 2 < len(words)


# --- the store --------------------------------------------------------------------


@pytest.fixture(scope="module")
def pristine_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one message, supplemented and mailed, and a bypass."""
    directory = tmp_path_factory.mktemp("store")
    assert Capture().store_in(directory)
    with journal.Journal(str(directory / LEGAL)) as events:
        time = "2026-11-22T11:53:00Z"
        bypass_fields = {"started": time, "started_by": "root", "reason": "disk"}
        events.append("bypass-started", time, **bypass_fields)
        events.append("mailed", time, id=ARCHIVE_ID, capsule="c", queued_as="4Zx 4Zy")
        fields = FIELDS.decode()
        capture_fields = {
            "id": ARCHIVE_ID,
            "capsule": "d",
            "sha256": "e",
            "stamp": "valid",
        }
        envelope_fields = {"envelope": fields, "above": "x\r\n"}
        events.append("supplement", time, size=1, **capture_fields, **envelope_fields)
    return directory


def rechain(text: bytes) -> bytes:
    """The lines of a journal with numbers and hashes that fit."""
    last, lines = "0" * 64, []
    for line in text.split(b"\n"):
        chained, tab, details = line.partition(b"\t")
        offset = chained.rfind(b',"prev":"')
        if offset > 0:
            chained = chained[:offset] + b',"prev":"' + last.encode() + b'"}'
        last = journal_lines.line_sha256(chained)
        lines.append(chained + tab + details)
    return b"\n".join(lines)


ODD_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner),
    max_leaves=5,
)


@st.composite
def journals(draw: st.DrawFn, pristine: Path) -> bytes:
    """The journal with bytes changed, or with other values in it; perhaps chained."""
    text = journal_lines.segment(pristine / LEGAL).read_bytes()
    if draw(st.booleans()):
        text = draw(changed(text))
    else:
        events = [journal_lines.parse(line) for line in text.splitlines()]
        event = draw(st.sampled_from(events))
        event[draw(st.sampled_from(sorted(event)))] = draw(ODD_VALUES)
        text = journal_lines.make_lines(events)
    return rechain(text) if draw(st.booleans()) else text


@contextlib.contextmanager
def store_with_journal(pristine: Path, directory: Path, text: bytes) -> Iterator[Path]:
    """A copy of the store with another journal."""
    shutil.copytree(pristine, directory / "harmed", dirs_exist_ok=True)
    journal_lines.segment(directory / "harmed" / LEGAL).write_bytes(text)
    try:
        yield directory / "harmed"
    finally:
        shutil.rmtree(directory / "harmed")


@MANY_EXAMPLES
@given(st.data())
def test_a_changed_journal_is_shown_or_refused(
    pristine_store: Path, tmp_path: Path, data: st.DataObject
) -> None:
    text = data.draw(journals(pristine_store))
    with store_with_journal(pristine_store, tmp_path, text) as store, refusals():
        settings = examples.make_settings(f"archive_store_directory = {store}\n")
        for period in archive_lookup.bypass_periods(str(store), settings, 0):
            assert period.contains(NOW) in (True, False)
        for record in record_reader.records(str(store), LEGAL):
            lines = [
                json.dumps(record_view.to_json(record, ())),
                *record_view.summary_lines(settings, record, []),
            ]
            lines += record_view.lines(settings, record, [])
            assert all(map(samples.is_safe_line, lines))
            assert datetime.datetime.fromisoformat(record.events[0]["time"]).tzinfo


@MANY_EXAMPLES
@given(st.data())
def test_verify_reports_problems_of_any_journal(
    pristine_store: Path, tmp_path: Path, data: st.DataObject
) -> None:
    text = data.draw(journals(pristine_store))
    with store_with_journal(pristine_store, tmp_path, text) as store:
        result = verifier.verify_archive(f"{store}/{LEGAL}")
        same = text == journal_lines.segment(pristine_store / LEGAL).read_bytes()
        assert bool(result.findings) != same
        assert all(map(str, result.findings)) and verifier.summary(result)


@given(st.data())
def test_a_changed_journal_is_written_on_or_refused(
    pristine_store: Path, tmp_path: Path, data: st.DataObject
) -> None:
    text = data.draw(journals(pristine_store) | NOISE)
    marker_content = data.draw(
        changed((pristine_store / LEGAL / "journal.last").read_bytes())
    )
    with store_with_journal(pristine_store, tmp_path, text) as store, refusals():
        (store / LEGAL / "journal.last").write_bytes(marker_content)
        with journal.Journal(f"{store}/{LEGAL}") as events:
            assert isinstance(events.recent_events("c"), set)
            assert events.last_event("none", "none") == ""
            events.append("after", "2026-11-22T11:53:00Z")
        assert journal_lines.segment(store / LEGAL).read_bytes().startswith(text)


@given(st.data())
def test_verify_and_show_take_any_file_for_a_copy(
    pristine_store: Path, tmp_path: Path, data: st.DataObject
) -> None:
    packed = (pristine_store / LEGAL / NAME).read_bytes()
    content = data.draw(changed(packed) | changed(COPY).map(gzip.compress) | NOISE)
    text = journal_lines.segment(pristine_store / LEGAL).read_bytes()
    with store_with_journal(pristine_store, tmp_path, text) as store:
        path = store / LEGAL / NAME
        path.chmod(0o600)
        path.write_bytes(content)
        result = verifier.verify_archive(f"{store}/{LEGAL}")
        assert bool(result.error_count) == (content != packed)
        with refusals():
            copy_file.read_capture(str(path), LEGAL)
        with refusals():
            record = record_reader.find_record(str(store), ARCHIVE_ID, LEGAL)
            assert len(b"".join(record_reader.original(str(store), record))) == len(
                MESSAGE
            )


@given(st.data())
def test_any_file_in_the_fallback_directory_is_archived_or_stays(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "x.capsule"
    path.write_bytes(data.draw(changed(PREAMBLE + MESSAGE) | NOISE))
    text = f"archive_store_directory = {tmp_path}/store\narchive_delivery = store\n"
    with refusals():
        fallback_import._archive_capsule(examples.make_settings(text), KEYS, str(path))
    is_still_there = fallback.waiting_capsules(str(tmp_path)) != []
    assert is_still_there != (tmp_path / "store" / LEGAL / NAME).exists()
    shutil.rmtree(tmp_path / "store", ignore_errors=True)


@given(st.binary(max_size=40) | ODD_VALUES.map(json.dumps).map(str.encode))
def test_any_record_of_held_mail_a_bypass_or_acceptance_is_read_or_refused(
    tmp_path: Path, said: bytes
) -> None:
    names = (queue_rescue.HOLD_FILE, switch.RECORD_FILE, acceptances.FILE_NAME)
    for name in names:
        (tmp_path / name).write_bytes(said)
    with refusals():
        assert all(
            isinstance(each, str)
            for each in queue_rescue.read_hold_times(str(tmp_path)).values()
        )
    with refusals():
        bypass_record = switch.read_record(str(tmp_path))
        assert bypass_record is None or status.bypass_warning(
            bypass_record.period
        ).startswith("BYPASS: ")
    with refusals():
        assert isinstance(acceptances.read(str(tmp_path)), tuple)


# --- what the host says -----------------------------------------------------------


@given(TEXTS | changed(b"k2026 " + b"ab" * 32 + b"\n# x\n").map(as_text))
def test_any_key_file_gives_keys_that_work_or_is_refused(text: str) -> None:
    with refusals():
        keys = keyring.parse(text, path="/etc/postfix/archive.key")
        line = stamp.make(ARCHIVE_ID, TAG, bytes(32), NOW, keys.current)
        assert [each.archive_id for each in stamp.find(line, keys).ours] == [ARCHIVE_ID]


@MANY_EXAMPLES
@given(changed(TABLE) | NOISE, st.sampled_from(["hash", "cidr", "regexp", "pcre"]))
def test_any_table_is_compiled_or_refused(source: bytes, kind: str) -> None:
    with refusals():
        table = table_source.compile_table(
            source, table_type=kind, path="/x.in", keys=KEYS
        )
        assert table.content.startswith(table_source.MARKER)
    for line in table_source.logical_lines(source):
        assert table_source.right_side(line.text, kind) in line.text.strip()


@MANY_EXAMPLES
@given(changed(QUEUE_LISTING, QUEUE_LISTING * 3) | NOISE, changed(POSTCAT))
def test_any_queue_listing_is_understood_or_refused(
    queue: bytes, postcat: bytes
) -> None:
    listing, records = (e.decode("utf-8", "surrogateescape") for e in (queue, postcat))
    with (
        replace_attribute(postfix_command, "run", lambda *words: listing),
        replace_attribute(
            postfix_command, "read_envelopes", lambda *words: (records, True)
        ),
        refusals(),
    ):
        waiting = mail_queue.list_messages("/etc/postfix")
        lifetimes = rescue_plan.Lifetimes(1, 1, 1)
        assert (
            rescue_plan.plan_rescue(
                waiting, lifetimes, {}, can_filter_run=True
            ).to_release
            == ()
        )
        assert all(samples.is_safe_line(each.delay_reason) for each in waiting)


@MANY_EXAMPLES
@given(changed(MAIN_CF), changed(MASTER_CF))
def test_whatever_postconf_prints_is_understood(main: bytes, master: bytes) -> None:
    parameters = configuration.parse_parameters(main.decode("utf-8", "surrogateescape"))
    services = configuration.parse_services(master.decode("utf-8", "surrogateescape"))
    config = Configuration("/etc/postfix", parameters, parameters, services)
    assert all(number >= 0 for number in config.version)
    for service in (None, *services):
        for name in parameters:
            assert config.value(name, service) is not None
            assert (config.seconds(name, service) or 0) >= 0
    assert all(":" in each.table for each in lookup_tables.in_configuration(config))
    assert all(
        address.is_plain(each.encode())
        for each in archive_services.configured_archives(config)
    )


@contextlib.contextmanager
def server_reply(reply: bytes) -> Iterator[None]:
    """A peer that says this whatever it is told, and hangs up."""
    local_end, remote_end = socket.socketpair()
    remote_end.sendall(reply)
    remote_end.shutdown(1)
    local_end.settimeout(5)
    try:
        with replace_attribute(smtp_client, "connect", lambda _: local_end):
            yield
    finally:
        local_end.close()
        remote_end.close()


@MANY_EXAMPLES
@given(
    changed(SESSION_BYTES, SESSION_BYTES.replace(b"250 2.1.0", b"501 5.1.7")) | NOISE
)
def test_any_reply_of_a_server_is_an_acceptance_or_an_error(said: bytes) -> None:
    with server_reply(said), refusals():
        session = smtp_client.Session(("127.0.0.1", 10026))
        session.prepare_xforward(Client(address=b"192.0.2.7"), QUEUE_ID, local=False)
        if session.send_envelope(SENDER, (Recipient(b"bob@example.com"),)):
            assert len(session.send_message([MESSAGE]).split()) == 1
        session.close()


@MANY_EXAMPLES
@given(changed(QMQP_REPLY) | NOISE)
def test_any_reply_of_a_qmqp_server_is_an_acceptance_or_an_error(said: bytes) -> None:
    to = (Recipient(b"b\nb@example.com"),)
    with server_reply(said), refusals():
        port = ("127.0.0.1", 10030)
        queue_id = qmqp_client.send_message(port, SENDER, to, lambda: [MESSAGE])
        assert len(queue_id.split()) == 1
