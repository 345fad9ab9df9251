"""Claims about the plan of the stamp filter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.config.settings import Settings
from postfix_archive.message import capsule, request, stamp
from postfix_archive.message.address import quote, unquote
from postfix_archive.message.envelope import Client, serialise
from postfix_archive.message.keyring import Keyring
from postfix_archive.stamp_filter import capture_plan

from unit import examples
from unit.examples import (
    ARCHIVE_ID,
    FROM_SMTP,
    HOST,
    HR,
    KEYS,
    LEGAL,
    MESSAGE,
    NOW,
    QUEUE_ID,
    ROTATED,
    SENDER,
    delivery_request,
    make_settings,
)

BOB = b"bob@example.com"
HR_REQUEST = request.make_recipient(HR, KEYS)
DAY = 86400
STORE_SETTINGS = make_settings()
MAIL_SETTINGS = make_settings("archive_delivery = mail\n")


def make_plan(
    message: bytes = MESSAGE,
    delivery: capture_plan.DeliveryRequest | None = None,
    *,
    settings: Settings = STORE_SETTINGS,
    keys: Keyring = KEYS,
    now: int = NOW,
) -> capture_plan.Plan:
    delivery = delivery or delivery_request(BOB)
    reading = capture_plan.HeaderScan(
        message, delivery, settings, keys, user_id=examples.mail_owner
    )
    digests = examples.digests(message, reading.offsets)
    return capture_plan.make(
        delivery, reading, digests, len(message), settings, keys, now=now
    )


def stamp_message(message: bytes = MESSAGE, **parameters: int) -> bytes:
    """The message as it goes on after its first pass."""
    return make_plan(message, now=parameters.get("now", NOW)).stamps + message


def verdict_on(message: bytes, archive: str) -> str:
    stamps = stamp.find(message, KEYS)
    digests = examples.digests(message, stamps.content_offsets)
    return stamp.verify(stamps, archive, digests, KEYS).result


def sources_by_archive(plan: capture_plan.Plan) -> dict[str, str]:
    assert plan.envelope is not None
    return {each.address: each.source for each in plan.envelope.requests}


def test_the_plan_has_the_complete_envelope() -> None:
    envelope = make_plan(delivery=delivery_request(BOB, b"eve@example.com")).envelope
    assert envelope is not None
    assert (envelope.host, envelope.queue_id, envelope.sender) == (
        HOST,
        QUEUE_ID,
        SENDER,
    )
    assert [each.final for each in envelope.recipients] == [BOB, b"eve@example.com"]
    assert envelope.arrival == NOW
    assert envelope.sha256 == examples.sha256(MESSAGE).hex()
    assert envelope.size == len(MESSAGE)
    assert envelope.client.address == b"192.0.2.7"
    assert not envelope.is_incomplete


def test_a_retry_with_recipients_in_another_order_is_the_same_capsule() -> None:
    eve = b"eve@example.com"
    first, second = (
        make_plan(delivery=delivery_request(*each)).envelope
        for each in ((BOB, eve), (eve, BOB))
    )
    assert first is not None and second is not None
    assert serialise(first) == serialise(second)


def test_the_stamp_that_is_planned_is_valid_for_the_message() -> None:
    assert verdict_on(stamp_message(), LEGAL) == stamp.VALID


def test_requests_from_all_sources_add_up() -> None:
    plan = make_plan(delivery=delivery_request(BOB, HR_REQUEST))
    assert sources_by_archive(plan) == {LEGAL: "nexthop", HR: "recipient"}
    assert verdict_on(plan.stamps + MESSAGE, LEGAL) == stamp.VALID
    assert verdict_on(plan.stamps + MESSAGE, HR) == stamp.VALID


def test_an_archive_that_is_requested_twice_gets_one_copy() -> None:
    request_recipient = request.make_recipient(LEGAL, KEYS)
    plan = make_plan(
        delivery=delivery_request(BOB, request_recipient, nexthop=f"{LEGAL},{LEGAL}")
    )
    assert sources_by_archive(plan) == {LEGAL: "nexthop"}
    assert plan.stamps.count(b"Archive-Stamp:") == 1


def test_request_recipients_are_neither_in_the_envelope_nor_reinjected() -> None:
    delivery = delivery_request(HR_REQUEST, BOB)
    assert [each.final for each in delivery.recipients] == [BOB]
    envelope = make_plan(delivery=delivery).envelope
    assert envelope is not None
    assert [each.final for each in envelope.recipients] == [BOB]


def test_nothing_is_archived_without_a_request() -> None:
    plan = make_plan(delivery=delivery_request(BOB, nexthop="on-request"))
    assert plan.envelope is None
    assert plan.stamps == b""


def test_a_forged_request_archives_nothing_and_is_reported() -> None:
    forged = request.make_recipient(HR, examples.FOREIGN_KEYS)
    delivery = delivery_request(BOB, forged, nexthop="on-request")
    assert make_plan(delivery=delivery).envelope is None
    assert capture_plan.alarms(delivery) == ["forged"]


def test_a_message_that_a_filter_took_around_is_archived_and_marked() -> None:
    delivery = delivery_request(HR_REQUEST, nexthop="on-request")
    assert delivery.is_incomplete
    envelope = make_plan(delivery=delivery).envelope
    assert envelope is not None and envelope.is_incomplete
    assert capture_plan.alarms(delivery) == ["incomplete"]


def test_a_message_with_its_recipients_did_not_go_around() -> None:
    assert not delivery_request(HR_REQUEST, BOB, nexthop="on-request").is_incomplete
    assert not delivery_request(HR_REQUEST, nexthop=LEGAL).is_incomplete
    assert capture_plan.alarms(delivery_request(BOB)) == []


def test_all_pieces_of_a_message_share_one_id() -> None:
    ids = set()
    for recipients in ((BOB,), (b"eve@example.com",), (BOB, HR_REQUEST)):
        envelope = make_plan(delivery=delivery_request(*recipients)).envelope
        assert envelope is not None
        ids.add(envelope.archive_id)
    assert len(ids) == 1


def test_a_retry_later_has_the_same_id() -> None:
    first, later = (make_plan(now=now).envelope for now in (NOW, NOW + DAY))
    assert first is not None and later is not None
    assert first.archive_id == later.archive_id


def test_a_requeued_message_has_the_same_id_and_its_complete_content_recorded() -> None:
    requeued = examples.REQUEUED + MESSAGE
    delivery = delivery_request(BOB)
    delivery.queue_id = b"4Zz9Requeued00"
    first, later = make_plan().envelope, make_plan(requeued, delivery).envelope
    assert first is not None and later is not None
    assert first.archive_id == later.archive_id
    assert later.sha256 == examples.sha256(requeued).hex()


@pytest.mark.parametrize(
    "settings", [STORE_SETTINGS, make_settings("archive_delivery = store\n")]
)
def test_with_a_store_a_stamped_message_always_goes_there(
    settings: Settings,
) -> None:
    relayed = FROM_SMTP + stamp_message()
    plan = make_plan(relayed, settings=settings)
    assert plan.envelope is not None
    (archive_request,) = plan.envelope.requests
    assert archive_request.verdict == stamp.VALID
    assert archive_request.stamp_offset == len(FROM_SMTP)
    first = make_plan().envelope
    assert first is not None and archive_request.stamp_id == first.archive_id


def test_a_validly_stamped_message_gets_no_second_stamp() -> None:
    assert make_plan(FROM_SMTP + stamp_message()).stamps == b""


def test_an_altered_message_is_captured_and_stamped_anew() -> None:
    changed = FROM_SMTP + stamp_message() + b"-- \r\nfooter\r\n"
    plan = make_plan(changed)
    assert plan.envelope is not None
    (archive_request,) = plan.envelope.requests
    assert (archive_request.verdict, archive_request.stamp_offset) == (
        stamp.ALTERED,
        None,
    )
    assert verdict_on(plan.stamps + changed, LEGAL) == stamp.VALID


def test_a_second_archive_gets_a_stamp_above_the_first() -> None:
    relayed = FROM_SMTP + stamp_message()
    plan = make_plan(relayed, delivery_request(BOB, nexthop=f"{LEGAL},{HR}"))
    assert plan.envelope is not None
    verdicts = {each.address: each.verdict for each in plan.envelope.requests}
    assert verdicts == {LEGAL: stamp.VALID, HR: stamp.ABSENT}
    assert plan.stamps.count(b"Archive-Stamp:") == 1
    assert verdict_on(plan.stamps + relayed, HR) == stamp.VALID
    assert verdict_on(plan.stamps + relayed, LEGAL) == stamp.VALID


def trusted_by_archive(plan: capture_plan.Plan) -> dict[str, bool]:
    """For each archive that is asked for, whether a stamp spares it a second copy."""
    assert plan.envelope is not None
    return {each.address: each.is_stamp_trusted for each in plan.envelope.requests}


@pytest.mark.parametrize(
    ("age", "is_copied_again"),
    [(0, False), (5 * DAY, False), (5 * DAY + 1, True), (-5 * DAY - 1, True)],
)
def test_with_mail_alone_a_young_stamp_sends_no_second_copy(
    age: int, is_copied_again: bool
) -> None:
    plan = make_plan(FROM_SMTP + stamp_message(), settings=MAIL_SETTINGS, now=NOW + age)
    assert trusted_by_archive(plan) == {LEGAL: not is_copied_again}
    assert plan.stamps == b""


def test_the_lifetime_of_a_stamp_is_a_setting() -> None:
    text = "archive_delivery = mail\narchive_stamp_lifetime = 1h\n"
    for age, is_copied_again in ((3600, False), (3601, True)):
        plan = make_plan(
            FROM_SMTP + stamp_message(), settings=make_settings(text), now=NOW + age
        )
        assert trusted_by_archive(plan) == {LEGAL: not is_copied_again}


@pytest.mark.parametrize("footer", [b"footer\r\n", b""])
def test_with_mail_alone_only_a_valid_stamp_saves_a_copy(footer: bytes) -> None:
    message = FROM_SMTP + stamp_message() + footer
    plan = make_plan(message, settings=MAIL_SETTINGS)
    assert trusted_by_archive(plan) == {LEGAL: not footer}


def test_with_mail_alone_a_copy_for_one_archive_is_mailed_without_the_other() -> None:
    delivery = delivery_request(BOB, nexthop=f"{LEGAL},{HR}")
    plan = make_plan(FROM_SMTP + stamp_message(), delivery, settings=MAIL_SETTINGS)
    assert trusted_by_archive(plan) == {LEGAL: True, HR: False}


def test_with_a_store_no_stamp_spares_anything() -> None:
    assert trusted_by_archive(make_plan(FROM_SMTP + stamp_message())) == {LEGAL: False}


def test_a_copy_that_came_back_is_known_as_one() -> None:
    tag = stamp.archive_tag(LEGAL, KEYS.current, generation=1)
    line = stamp.make(ARCHIVE_ID, tag, examples.sha256(MESSAGE), NOW, KEYS.current)
    plan = make_plan(FROM_SMTP + line + MESSAGE)
    assert plan.envelope is not None
    (archive_request,) = plan.envelope.requests
    assert archive_request.generation == 1 and archive_request.verdict == stamp.VALID
    assert plan.stamps == b""


def test_a_copy_for_one_archive_is_known_as_one_to_the_others() -> None:
    """Else two archives, both of which come back, would mail each other for ever."""
    tag = stamp.archive_tag(LEGAL, KEYS.current, generation=1)
    line = stamp.make(ARCHIVE_ID, tag, examples.sha256(MESSAGE), NOW, KEYS.current)
    delivery = delivery_request(BOB, nexthop=f"{LEGAL},{HR}")
    plan = make_plan(FROM_SMTP + line + MESSAGE, delivery)
    assert plan.envelope is not None
    requests = {each.address: each for each in plan.envelope.requests}
    assert requests[HR].verdict == stamp.ABSENT
    assert [requests[each].generation for each in (LEGAL, HR)] == [1, 1]


def test_a_stamp_of_an_old_key_needs_no_new_one() -> None:
    assert make_plan(FROM_SMTP + stamp_message(), keys=ROTATED).stamps == b""


def test_the_envelope_survives_its_capsule() -> None:
    envelope = make_plan(delivery=delivery_request(BOB, HR_REQUEST)).envelope
    assert envelope is not None
    preamble = capsule.make_preamble(envelope, KEYS, sender=b"a@example.com", now=NOW)
    unsealed = capsule.unseal(preamble, KEYS).envelope
    assert examples.envelope_values(unsealed) == examples.envelope_values(envelope)


def test_a_stamp_does_not_change_a_byte_below() -> None:
    assert stamp_message().endswith(MESSAGE)
    assert make_plan().stamps.endswith(b"\r\n")


# On top of a message Postfix has a header field or an empty line, never white space.
@given(st.binary(max_size=300).filter(lambda noise: noise[:1] not in (b" ", b"\t")))
def test_any_message_can_be_planned(noise: bytes) -> None:
    for message in (noise, FROM_SMTP + noise):
        plan = make_plan(message)
        assert plan.envelope is not None
        assert verdict_on(plan.stamps + message, LEGAL) == stamp.VALID


UTF8_ADDRESS = "grün@example.com".encode()
LATIN1_ADDRESS = b"gr\xfcn@example.com"
UTF8_HEADER = "Subject: grün\r\n\r\n".encode()
LOCAL_CLIENT = Client()


@pytest.mark.parametrize(
    ("recipients", "sender", "client", "head", "needs_smtputf8"),
    [
        ((BOB,), SENDER, None, MESSAGE, False),
        ((UTF8_ADDRESS,), SENDER, None, MESSAGE, True),
        ((BOB,), UTF8_ADDRESS, None, MESSAGE, True),
        ((UTF8_ADDRESS, BOB), b"", None, MESSAGE, True),
        # 8-bit addresses that are no UTF-8 cannot be said with SMTPUTF8.
        ((LATIN1_ADDRESS,), SENDER, None, MESSAGE, False),
        ((UTF8_ADDRESS, LATIN1_ADDRESS), SENDER, None, MESSAGE, False),
        # A client that did not ask for it, with raw 8-bit headers: as before.
        ((BOB,), SENDER, None, FROM_SMTP + UTF8_HEADER, False),
        ((BOB,), SENDER, LOCAL_CLIENT, FROM_SMTP + UTF8_HEADER, True),
        ((BOB,), SENDER, LOCAL_CLIENT, MESSAGE + "grün\r\n".encode(), False),
        (
            (BOB,),
            SENDER,
            None,
            MESSAGE.replace(b"with ESMTPS", b"with UTF8SMTPS"),
            True,
        ),
    ],
)
def test_smtputf8_is_requested_again_when_it_was_there(
    recipients: tuple[bytes, ...],
    sender: bytes,
    client: Client | None,
    head: bytes,
    needs_smtputf8: bool,
) -> None:
    delivery = delivery_request(*recipients, sender=sender, client=client)
    reading = capture_plan.HeaderScan(
        head, delivery, STORE_SETTINGS, KEYS, user_id=examples.mail_owner
    )
    assert capture_plan.needs_smtputf8(delivery, reading, head) == needs_smtputf8


def test_smtputf8_is_requested_when_the_lmtp_client_requests_it() -> None:
    delivery = delivery_request(BOB, smtputf8=True)
    reading = capture_plan.HeaderScan(
        MESSAGE, delivery, STORE_SETTINGS, KEYS, user_id=examples.mail_owner
    )
    assert capture_plan.needs_smtputf8(delivery, reading, MESSAGE)


def test_the_plan_has_the_dsn_parameter_ret() -> None:
    envelope = make_plan(delivery=delivery_request(BOB, ret=b"HDRS")).envelope
    assert envelope is not None and envelope.ret == b"HDRS"


@pytest.mark.parametrize(
    ("protocol", "content", "is_8bitmime"),
    [
        (b"ESMTP", b"gr\xfcn\r\n", True),
        (b"ESMTPSA", b"gr\xfcn\r\n", True),
        (b"UTF8SMTP", b"gr\xfcn\r\n", True),
        (b"SMTP", b"gr\xfcn\r\n", False),
        (b"", b"gr\xfcn\r\n", False),
        (b"ESMTP", b"plain\r\n", False),
    ],
)
def test_eightbit_is_declared_where_a_client_could(
    protocol: bytes, content: bytes, is_8bitmime: bool
) -> None:
    delivery = delivery_request(
        BOB, client=Client(address=b"192.0.2.7", protocol=protocol)
    )
    assert (
        capture_plan.needs_8bitmime(delivery, examples.content_properties(content))
        == is_8bitmime
    )


@pytest.mark.parametrize("is_8bitmime", [True, False])
@pytest.mark.parametrize("content", [b"gr\xfcn\r\n", b"plain\r\n"])
def test_eightbit_is_declared_where_lmtp_declares_it(
    content: bytes, is_8bitmime: bool
) -> None:
    client = Client(address=b"192.0.2.7", protocol=b"ESMTP")
    delivery = delivery_request(BOB, client=client, is_8bitmime=is_8bitmime)
    shape = examples.content_properties(content)
    assert capture_plan.needs_8bitmime(delivery, shape) == is_8bitmime


@pytest.mark.parametrize(
    ("address", "networks", "is_local"),
    [
        (b"", (), True),
        (b"127.0.0.1", ("127.0.0.0/8",), True),
        (b"127.255.255.255", ("127.0.0.0/8",), True),
        (b"128.0.0.1", ("127.0.0.0/8",), False),
        (b"192.0.2.7", ("127.0.0.0/8", "192.0.2.7"), True),
        (b"192.0.2.70", ("192.0.2.7",), False),
        (b"192.0.2.7", ("192.0.2.0/29",), True),
        (b"192.0.2.8", ("192.0.2.0/29",), False),
        (b"192.0.2.7", ("0.0.0.0/0",), True),
        (b"192.0.2.7", ("192.0.2.7/32",), True),
        (b"192.0.2.6", ("192.0.2.7/32",), False),
        (b"::1", ("127.0.0.0/8", "::1"), True),
        (b"2001:db8::1", ("127.0.0.0/8", "::1"), False),
        (b"2001:db8::1", ("0.0.0.0/0",), False),
        (b"192.0.2.7", (), False),
        (b"192.0.2.7", ("nonsense/x", "1.2/8", "192.0.2.0/33"), False),
        (b"\xff\xfe", ("127.0.0.0/8",), False),
        (b"192.0.2.7", ("permit_sasl_authenticated",), False),
    ],
)
def test_who_is_local(
    address: bytes, networks: tuple[str, ...], is_local: bool
) -> None:
    assert capture_plan.is_local_client(Client(address=address), networks) == is_local


def test_an_authenticated_client_is_local_where_configured() -> None:
    client = Client(address=b"192.0.2.7", sasl_username=b"ann")
    assert capture_plan.is_local_client(client, ("permit_sasl_authenticated",))
    assert not capture_plan.is_local_client(client, ("127.0.0.0/8",))


def capture_recipient(address: bytes, archive: str = LEGAL) -> bytes:
    """What cleanup(8) adds for a recipient, as lmtp(8) and pipe(8) quote it."""
    capture = request.capture_table(archive, KEYS).split()[-1].encode()
    return quote(capture.replace(b"$1", address))


def test_in_native_mode_capture_recipients_are_the_envelope_and_the_request() -> None:
    captured = (capture_recipient(BOB), capture_recipient(b"al@x.example"), HR_REQUEST)
    delivery = delivery_request(*captured, nexthop=request.CAPTURE_NEXTHOP)
    envelope = make_plan(delivery=delivery).envelope
    assert envelope is not None and not envelope.is_incomplete
    assert [each.final for each in envelope.recipients] == [b"al@x.example", BOB]
    sources = {each.address: each.source for each in envelope.requests}
    assert sources == {LEGAL: "nexthop", HR: "recipient"}
    assert not delivery.recipients


def test_a_native_capture_has_the_archive_id_of_a_filter_of_the_message() -> None:
    native = delivery_request(capture_recipient(BOB), nexthop=request.CAPTURE_NEXTHOP)
    envelope = make_plan(delivery=native).envelope
    filtered = make_plan().envelope
    assert envelope is not None and filtered is not None
    assert envelope.archive_id == filtered.archive_id


def test_native_capture_with_requests_alone_is_incomplete() -> None:
    delivery = delivery_request(HR_REQUEST, nexthop=request.CAPTURE_NEXTHOP)
    envelope = make_plan(delivery=delivery).envelope
    assert envelope is not None and envelope.is_incomplete


def test_native_mode_without_a_request_archives_nothing() -> None:
    captured = capture_recipient(BOB, request.ON_REQUEST)
    delivery = delivery_request(captured, nexthop=request.CAPTURE_NEXTHOP)
    assert make_plan(delivery=delivery).envelope is None


def test_a_stamp_filter_archives_capture_recipients_and_reinjects_to_none_of_them() -> (
    None
):
    """Mail that native mode has left in the queue of a host with another mode."""
    delivery = delivery_request(capture_recipient(BOB), nexthop=request.ON_REQUEST)
    envelope = make_plan(delivery=delivery).envelope
    assert envelope is not None and not delivery.recipients
    assert [each.final for each in envelope.recipients] == [BOB]
    assert [each.address for each in envelope.requests] == [LEGAL]
    both = delivery_request(BOB, capture_recipient(BOB))
    assert [each.final for each in both.envelope_recipients] == [BOB]
    assert [each.final for each in both.recipients] == [BOB]


def test_capture_recipients_of_nobody_that_a_filter_delivers_to_are_counted() -> None:
    """A switch from native mode leaves those of the recipients, a local user others."""
    assert delivery_request(BOB, capture_recipient(BOB)).added_count == 0
    assert delivery_request(BOB, capture_recipient(b"ceo@example.com")).added_count == 1
    left = delivery_request(capture_recipient(BOB), nexthop=request.ON_REQUEST)
    assert left.added_count == 0


@pytest.mark.parametrize("true_sender", [b"list@x.example", b'"the list"@x.example'])
def test_xverp_in_native_mode_has_the_true_sender(true_sender: bytes) -> None:
    captured = capture_recipient(b'"b o"@example.net')
    local, _, domain = unquote(captured).rpartition(b"@")
    sender_local, _, origin = unquote(true_sender).rpartition(b"@")
    made = quote(sender_local + b"+" + local + b"=" + domain + b"@" + origin)
    delivery = delivery_request(captured, nexthop=request.CAPTURE_NEXTHOP, sender=made)
    assert delivery.sender == true_sender
