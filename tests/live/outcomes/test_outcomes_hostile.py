"""Who writes what looks like a line of the log changes nobody's outcome."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sample_log import DATA_REPLIES, FORGED, RCPT_REPLIES, SampleNetwork

from mails import mail
from private_postfix import WaitTimeout

pytestmark = pytest.mark.live
PADDED_FORGERY = f"{FORGED[:-1]} {'y' * 1400}{')' * 500}"
FORMS = {  # addresses that say that mail for the victim was delivered
    "quoted": '"{victim}>, {line}"@error.example.com',
    "orig_to": '"{victim}>, orig_to=<a@example.com>, {line}"@error.example.com',
    "domain": '{name}@"{domain}>, {line}"',
    "literal": "{name}@[{domain}>, {line}]",
    "route": '@"{victim}>, {line}":x@error.example.com',
}
LINES = {"short": FORGED, "cut at its bracket": PADDED_FORGERY}


@pytest.fixture(scope="module", params=["external", "internal"])
def network(request: pytest.FixtureRequest) -> Iterator[SampleNetwork]:
    """A world with the archive, in which addresses are logged in one form."""
    main = {"info_log_address_format": request.param}
    with SampleNetwork(has_archive=True, main=main) as instance:
        yield instance


def outcomes(network: SampleNetwork, recipient: str) -> list[dict[str, Any]]:
    """Read the log; return the journal's outcomes of a recipient."""
    process = network.run_command("outcomes", "--once")
    assert process.returncode == 0, process.stderr
    return [each for each in network.events() if each.get("recipient") == recipient]


def settled_outcomes(network: SampleNetwork, recipient: str) -> list[dict[str, Any]]:
    """Return a recipient's outcomes once there is one, or nothing if none comes."""
    try:
        network.wait(lambda: outcomes(network, recipient), f"{recipient} is settled")
    except WaitTimeout:
        pass
    return outcomes(network, recipient)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("form", FORMS)
def test_a_recipient_that_looks_like_a_delivery_delivers_nothing(
    network: SampleNetwork, form: str, line: str
) -> None:
    name = f"no-{form}-{line.partition(' ')[0]}"
    victim = f"{name}@far.example.net"
    hostile = FORMS[form].format(
        victim=victim, name=name, domain="far.example.net", line=LINES[line]
    )
    network.sendmail(mail(name), sender="mallory@example.org", to=[victim, hostile])
    network.wait_for_empty_queue()
    recorded = settled_outcomes(network, victim)
    assert [(each["outcome"], each["status"]) for each in recorded] == [
        ("failed", "5.1.1")
    ]
    good = {"delivered", "relayed", "discarded", "expired"}
    kinds = {str(each.get("outcome")) for each in network.events()}
    assert not good & kinds


@pytest.mark.parametrize("sender", ["quoted", "domain"])
def test_a_sender_that_looks_like_a_delivery_delivers_nothing(
    network: SampleNetwork, sender: str
) -> None:
    victim = f"no-sender-{sender}@far.example.net"
    form = FORMS[sender].format(
        victim=victim, name="no-sender", domain="far.example.net", line=FORGED
    )
    network.sendmail(mail(sender), sender=form, to=[victim])
    network.wait_for_empty_queue()
    assert {each["outcome"] for each in settled_outcomes(network, victim)} == {"failed"}


@pytest.mark.parametrize("name", [*RCPT_REPLIES, *DATA_REPLIES])
def test_no_reply_makes_another_outcome(network: SampleNetwork, name: str) -> None:
    recipient = f"{name}@odd.example.net"
    truth = {"no": "failed", "yes": "relayed"}.get(name.partition("-")[0], "waiting")
    queue_id = network.send(mail(name), to=[recipient])
    network.wait_for_log(f"{queue_id}: removed")
    network.wait_for_log(f"to=<{recipient}>.*relay=127.0.0.1")
    understood = not name.endswith(("-line", "-long")) and truth != "waiting"
    recorded = (
        settled_outcomes(network, recipient)
        if understood
        else outcomes(network, recipient)
    )
    assert {each["outcome"] for each in recorded} <= {truth}
    assert recorded or not understood
