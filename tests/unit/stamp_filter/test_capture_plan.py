"""Claims about the plan of the stamp filter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.config.settings import Settings
from postfix_archive.message import capsule, request, stamp
from postfix_archive.message.envelope import Client
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
    set_up,
    task,
)

BOB = b"bob@example.com"
HR_REQUEST = request.make_recipient(HR, KEYS)
DAY = 86400
STORING = set_up()
MAIL_ALONE = set_up("archive_delivery = mail\n")


def planned(
    message: bytes = MESSAGE,
    wanted: capture_plan.DeliveryRequest | None = None,
    *,
    settings: Settings = STORING,
    keys: Keyring = KEYS,
    now: int = NOW,
) -> capture_plan.Plan:
    wanted = wanted or task(BOB)
    reading = capture_plan.HeaderScan(
        message, wanted, settings, keys, user_id=examples.mail_owner
    )
    digests = examples.digests(message, reading.offsets)
    return capture_plan.make(
        wanted, reading, digests, len(message), settings, keys, now=now
    )


def stamped(message: bytes = MESSAGE, **known: int) -> bytes:
    """The message as it goes on after its first pass."""
    return planned(message, now=known.get("now", NOW)).stamps + message


def verdict_on(message: bytes, archive: str) -> str:
    found = stamp.find(message, KEYS)
    digests = examples.digests(message, found.content_offsets)
    return stamp.verify(found, archive, digests, KEYS).result


def asked_by(plan: capture_plan.Plan) -> dict[str, str]:
    assert plan.envelope is not None
    return {each.address: each.source for each in plan.envelope.requests}


def test_the_plan_holds_the_whole_envelope() -> None:
    sealed = planned(wanted=task(BOB, b"eve@example.com")).envelope
    assert sealed is not None
    assert (sealed.host, sealed.queue_id, sealed.sender) == (HOST, QUEUE_ID, SENDER)
    assert [each.final for each in sealed.recipients] == [BOB, b"eve@example.com"]
    assert sealed.arrival == NOW
    assert sealed.sha256 == examples.sha256(MESSAGE).hex()
    assert sealed.size == len(MESSAGE)
    assert sealed.client.address == b"192.0.2.7"
    assert not sealed.is_incomplete


def test_the_stamp_that_is_planned_is_valid_for_the_message() -> None:
    assert verdict_on(stamped(), LEGAL) == stamp.VALID


def test_requests_from_all_sources_add_up() -> None:
    plan = planned(wanted=task(BOB, HR_REQUEST))
    assert asked_by(plan) == {LEGAL: "nexthop", HR: "recipient"}
    assert verdict_on(plan.stamps + MESSAGE, LEGAL) == stamp.VALID
    assert verdict_on(plan.stamps + MESSAGE, HR) == stamp.VALID


def test_an_archive_that_is_asked_for_twice_gets_one_copy() -> None:
    again = request.make_recipient(LEGAL, KEYS)
    plan = planned(wanted=task(BOB, again, nexthop=f"{LEGAL},{LEGAL}"))
    assert asked_by(plan) == {LEGAL: "nexthop"}
    assert plan.stamps.count(b"Archive-Stamp:") == 1


def test_request_recipients_are_nobody_in_the_envelope_and_in_the_hand_back() -> None:
    wanted = task(HR_REQUEST, BOB)
    assert [each.final for each in wanted.recipients] == [BOB]
    sealed = planned(wanted=wanted).envelope
    assert sealed is not None
    assert [each.final for each in sealed.recipients] == [BOB]


def test_nothing_is_archived_where_nobody_asks() -> None:
    plan = planned(wanted=task(BOB, nexthop="on-request"))
    assert plan.envelope is None
    assert plan.stamps == b""


def test_a_forged_request_asks_for_nothing_and_is_told() -> None:
    forged = request.make_recipient(HR, examples.STRANGERS)
    wanted = task(BOB, forged, nexthop="on-request")
    assert planned(wanted=wanted).envelope is None
    assert capture_plan.alarms(wanted) == ["forged"]


def test_a_message_that_a_filter_took_around_is_archived_and_marked() -> None:
    wanted = task(HR_REQUEST, nexthop="on-request")
    assert wanted.is_incomplete
    sealed = planned(wanted=wanted).envelope
    assert sealed is not None and sealed.is_incomplete
    assert capture_plan.alarms(wanted) == ["incomplete"]


def test_a_message_with_its_recipients_did_not_go_around() -> None:
    assert not task(HR_REQUEST, BOB, nexthop="on-request").is_incomplete
    assert not task(HR_REQUEST, nexthop=LEGAL).is_incomplete
    assert capture_plan.alarms(task(BOB)) == []


def test_all_pieces_of_a_message_share_one_id() -> None:
    ids = set()
    for people in ((BOB,), (b"eve@example.com",), (BOB, HR_REQUEST)):
        sealed = planned(wanted=task(*people)).envelope
        assert sealed is not None
        ids.add(sealed.archive_id)
    assert len(ids) == 1


def test_a_retry_later_has_the_same_id() -> None:
    first, later = (planned(now=now).envelope for now in (NOW, NOW + DAY))
    assert first is not None and later is not None
    assert first.archive_id == later.archive_id


def test_a_requeued_message_has_the_same_id_and_its_whole_content_in_the_record() -> (
    None
):
    again = examples.REQUEUED + MESSAGE
    run = task(BOB)
    run.queue_id = b"4Zz9Requeued00"
    first, later = planned().envelope, planned(again, run).envelope
    assert first is not None and later is not None
    assert first.archive_id == later.archive_id
    assert later.sha256 == examples.sha256(again).hex()


@pytest.mark.parametrize("settings", [STORING, set_up("archive_delivery = store\n")])
def test_with_a_store_a_stamped_message_always_goes_there(
    settings: Settings,
) -> None:
    relayed = FROM_SMTP + stamped()
    plan = planned(relayed, settings=settings)
    assert plan.envelope is not None
    (wanted,) = plan.envelope.requests
    assert wanted.verdict == stamp.VALID
    assert wanted.stamp_offset == len(FROM_SMTP)
    first = planned().envelope
    assert first is not None and wanted.stamp_id == first.archive_id


def test_a_validly_stamped_message_gets_no_second_stamp() -> None:
    assert planned(FROM_SMTP + stamped()).stamps == b""


def test_an_altered_message_is_captured_and_stamped_anew() -> None:
    changed = FROM_SMTP + stamped() + b"-- \r\nfooter\r\n"
    plan = planned(changed)
    assert plan.envelope is not None
    (wanted,) = plan.envelope.requests
    assert (wanted.verdict, wanted.stamp_offset) == (stamp.ALTERED, None)
    assert verdict_on(plan.stamps + changed, LEGAL) == stamp.VALID


def test_a_second_archive_gets_a_stamp_above_the_first() -> None:
    relayed = FROM_SMTP + stamped()
    plan = planned(relayed, task(BOB, nexthop=f"{LEGAL},{HR}"))
    assert plan.envelope is not None
    verdicts = {each.address: each.verdict for each in plan.envelope.requests}
    assert verdicts == {LEGAL: stamp.VALID, HR: stamp.ABSENT}
    assert plan.stamps.count(b"Archive-Stamp:") == 1
    assert verdict_on(plan.stamps + relayed, HR) == stamp.VALID
    assert verdict_on(plan.stamps + relayed, LEGAL) == stamp.VALID


def spared(plan: capture_plan.Plan) -> dict[str, bool]:
    """For each archive that is asked for, whether a stamp spares it a second copy."""
    assert plan.envelope is not None
    return {each.address: each.is_stamp_trusted for each in plan.envelope.requests}


@pytest.mark.parametrize(
    ("age", "again"),
    [(0, False), (5 * DAY, False), (5 * DAY + 1, True), (-5 * DAY - 1, True)],
)
def test_with_mail_alone_a_young_stamp_sends_no_second_copy(
    age: int, again: bool
) -> None:
    plan = planned(FROM_SMTP + stamped(), settings=MAIL_ALONE, now=NOW + age)
    assert spared(plan) == {LEGAL: not again}
    assert plan.stamps == b""


def test_the_lifetime_of_a_stamp_is_a_setting() -> None:
    text = "archive_delivery = mail\narchive_stamp_lifetime = 1h\n"
    for age, again in ((3600, False), (3601, True)):
        plan = planned(FROM_SMTP + stamped(), settings=set_up(text), now=NOW + age)
        assert spared(plan) == {LEGAL: not again}


@pytest.mark.parametrize("tail", [b"footer\r\n", b""])
def test_with_mail_alone_only_a_valid_stamp_saves_a_copy(tail: bytes) -> None:
    message = FROM_SMTP + stamped() + tail
    plan = planned(message, settings=MAIL_ALONE)
    assert spared(plan) == {LEGAL: not tail}


def test_with_mail_alone_a_copy_for_one_archive_goes_out_without_the_other() -> None:
    wanted = task(BOB, nexthop=f"{LEGAL},{HR}")
    plan = planned(FROM_SMTP + stamped(), wanted, settings=MAIL_ALONE)
    assert spared(plan) == {LEGAL: True, HR: False}


def test_with_a_store_no_stamp_spares_anything() -> None:
    assert spared(planned(FROM_SMTP + stamped())) == {LEGAL: False}


def test_a_copy_that_came_back_is_known_as_one() -> None:
    tag = stamp.archive_tag(LEGAL, KEYS.current, generation=1)
    line = stamp.make(ARCHIVE_ID, tag, examples.sha256(MESSAGE), NOW, KEYS.current)
    plan = planned(FROM_SMTP + line + MESSAGE)
    assert plan.envelope is not None
    (wanted,) = plan.envelope.requests
    assert wanted.generation == 1 and wanted.verdict == stamp.VALID
    assert plan.stamps == b""


def test_a_stamp_of_an_old_key_needs_no_new_one() -> None:
    assert planned(FROM_SMTP + stamped(), keys=ROTATED).stamps == b""


def test_the_envelope_survives_its_capsule() -> None:
    sealed = planned(wanted=task(BOB, HR_REQUEST)).envelope
    assert sealed is not None
    preamble = capsule.make_preamble(sealed, KEYS, sender=b"a@example.com", now=NOW)
    again = capsule.unseal(preamble, KEYS).envelope
    assert examples.facts(again) == examples.facts(sealed)


def test_a_stamp_does_not_change_a_byte_below() -> None:
    assert stamped().endswith(MESSAGE)
    assert planned().stamps.endswith(b"\r\n")


# On top of a message Postfix has a header field or an empty line, never white space.
@given(st.binary(max_size=300).filter(lambda noise: noise[:1] not in (b" ", b"\t")))
def test_any_message_can_be_planned(noise: bytes) -> None:
    for message in (noise, FROM_SMTP + noise):
        plan = planned(message)
        assert plan.envelope is not None
        assert verdict_on(plan.stamps + message, LEGAL) == stamp.VALID


GREEN = "grün@example.com".encode()
LATIN = b"gr\xfcn@example.com"
UTF8_HEADER = "Subject: grün\r\n\r\n".encode()
LOCAL = Client()


@pytest.mark.parametrize(
    ("people", "sender", "client", "head", "needed"),
    [
        ((BOB,), SENDER, None, MESSAGE, False),
        ((GREEN,), SENDER, None, MESSAGE, True),
        ((BOB,), GREEN, None, MESSAGE, True),
        ((GREEN, BOB), b"", None, MESSAGE, True),
        # 8-bit addresses that are no UTF-8 cannot be said with SMTPUTF8.
        ((LATIN,), SENDER, None, MESSAGE, False),
        ((GREEN, LATIN), SENDER, None, MESSAGE, False),
        # A client that did not ask for it, with raw 8-bit headers: as before.
        ((BOB,), SENDER, None, FROM_SMTP + UTF8_HEADER, False),
        ((BOB,), SENDER, LOCAL, FROM_SMTP + UTF8_HEADER, True),
        ((BOB,), SENDER, LOCAL, MESSAGE + "grün\r\n".encode(), False),
        (
            (BOB,),
            SENDER,
            None,
            MESSAGE.replace(b"with ESMTPS", b"with UTF8SMTPS"),
            True,
        ),
    ],
)
def test_smtputf8_is_asked_for_again_when_it_was_there(
    people: tuple[bytes, ...],
    sender: bytes,
    client: Client | None,
    head: bytes,
    needed: bool,
) -> None:
    run = task(*people, sender=sender, client=client)
    reading = capture_plan.HeaderScan(
        head, run, STORING, KEYS, user_id=examples.mail_owner
    )
    assert capture_plan.needs_smtputf8(run, reading, head) == needed


def test_smtputf8_is_asked_for_when_the_client_of_the_door_asks_for_it() -> None:
    run = task(BOB, smtputf8=True)
    reading = capture_plan.HeaderScan(
        MESSAGE, run, STORING, KEYS, user_id=examples.mail_owner
    )
    assert capture_plan.needs_smtputf8(run, reading, MESSAGE)


def test_the_plan_has_the_dsn_parameter_ret() -> None:
    sealed = planned(wanted=task(BOB, ret=b"HDRS")).envelope
    assert sealed is not None and sealed.ret == b"HDRS"


@pytest.mark.parametrize(
    ("protocol", "content", "eightbit"),
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
    protocol: bytes, content: bytes, eightbit: bool
) -> None:
    run = task(BOB, client=Client(address=b"192.0.2.7", protocol=protocol))
    assert capture_plan.needs_8bitmime(run, examples.shape(content)) == eightbit


@pytest.mark.parametrize(
    ("address", "networks", "local"),
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
def test_who_is_local(address: bytes, networks: tuple[str, ...], local: bool) -> None:
    assert capture_plan.is_local_client(Client(address=address), networks) == local


def test_who_logged_in_is_local_where_the_setting_says_so() -> None:
    client = Client(address=b"192.0.2.7", sasl_username=b"ann")
    assert capture_plan.is_local_client(client, ("permit_sasl_authenticated",))
    assert not capture_plan.is_local_client(client, ("127.0.0.0/8",))
