"""Who writes what looks like a line of the log changes nobody's outcome."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sample_log import ENDS, FORGED, REPLIES, Samples

from mails import mail
from private_postfix import NotInTime

pytestmark = pytest.mark.live
PADDED = f"{FORGED[:-1]} {'y' * 1400}{')' * 500}"
FORMS = {  # addresses that say that mail for the victim was delivered
    "quoted": '"{victim}>, {line}"@error.example.com',
    "orig_to": '"{victim}>, orig_to=<a@example.com>, {line}"@error.example.com',
    "domain": '{name}@"{domain}>, {line}"',
    "literal": "{name}@[{domain}>, {line}]",
    "route": '@"{victim}>, {line}":x@error.example.com',
}
LINES = {"short": FORGED, "cut at its bracket": PADDED}


@pytest.fixture(scope="module", params=["external", "internal"])
def world(request: pytest.FixtureRequest) -> Iterator[Samples]:
    """A world with the archive, in which addresses are logged in one form."""
    main = {"info_log_address_format": request.param}
    with Samples(has_archive=True, main=main) as made:
        yield made


def outcomes(world: Samples, recipient: str) -> list[dict[str, Any]]:
    """Read the log; return the journal's outcomes of a recipient."""
    done = world.command("outcomes", "--once")
    assert done.returncode == 0, done.stderr
    return [each for each in world.events() if each.get("recipient") == recipient]


def all_settled(world: Samples, recipient: str) -> list[dict[str, Any]]:
    """Return a recipient's outcomes once there is one, or nothing if none comes."""
    try:
        world.wait(lambda: outcomes(world, recipient), f"{recipient} is settled")
    except NotInTime:
        pass
    return outcomes(world, recipient)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("form", FORMS)
def test_a_recipient_that_looks_like_a_delivery_delivers_nothing(
    world: Samples, form: str, line: str
) -> None:
    name = f"no-{form}-{line.partition(' ')[0]}"
    victim = f"{name}@far.example.net"
    hostile = FORMS[form].format(
        victim=victim, name=name, domain="far.example.net", line=LINES[line]
    )
    world.sendmail(mail(name), sender="mallory@example.org", to=[victim, hostile])
    world.settle()
    told = all_settled(world, victim)
    assert [(each["outcome"], each["status"]) for each in told] == [("failed", "5.1.1")]
    good = {"delivered", "relayed", "discarded", "expired"}
    kinds = {str(each.get("outcome")) for each in world.events()}
    assert not good & kinds


@pytest.mark.parametrize("sender", ["quoted", "domain"])
def test_a_sender_that_looks_like_a_delivery_delivers_nothing(
    world: Samples, sender: str
) -> None:
    victim = f"no-sender-{sender}@far.example.net"
    form = FORMS[sender].format(
        victim=victim, name="no-sender", domain="far.example.net", line=FORGED
    )
    world.sendmail(mail(sender), sender=form, to=[victim])
    world.settle()
    assert {each["outcome"] for each in all_settled(world, victim)} == {"failed"}


@pytest.mark.parametrize("name", [*REPLIES, *ENDS])
def test_no_reply_makes_another_outcome(world: Samples, name: str) -> None:
    recipient = f"{name}@odd.example.net"
    truth = {"no": "failed", "yes": "relayed"}.get(name.partition("-")[0], "waiting")
    queue_id = world.send(mail(name), to=[recipient])
    world.wait_for_log(f"{queue_id}: removed")
    world.wait_for_log(f"to=<{recipient}>.*relay=127.0.0.1")
    understood = not name.endswith(("-line", "-long")) and truth != "waiting"
    told = all_settled(world, recipient) if understood else outcomes(world, recipient)
    assert {each["outcome"] for each in told} <= {truth}
    assert told or not understood
