"""Mail that postsuper -r requeued, before and after its capture, is not missing."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from mails import mail
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
LARGE = 5_000_000  # bytes: more than a stamp filter keeps in memory
UNDELIVERABLE = "nobody@error.example.net"


def reconcile(postfix: PrivatePostfix) -> dict[str, Any]:
    """Return what reconcile says about the whole log."""
    result: dict[str, Any] = json.loads(
        postfix.run_command("reconcile", "--json").stdout
    )
    return result


def set_deferred(postfix: PrivatePostfix, transports: str) -> None:
    """Keep what goes to these transports in the queue."""
    postfix.postconf(defer_transports=transports)
    postfix.reload()


def requeue_all(postfix: PrivatePostfix) -> None:
    """Requeue all that waits, and let it go."""
    command = ["postsuper", "-c", str(postfix.etc), "-r", "ALL"]
    subprocess.run(command, check=True, capture_output=True)
    set_deferred(postfix, "")
    postfix.flush()
    postfix.wait_for_empty_queue()


@pytest.mark.parametrize("size", [100, LARGE])
@pytest.mark.parametrize("transport", ["archive-stamp", "sink"])
def test_requeued_mail_is_archived(size: int, transport: str) -> None:
    with PrivatePostfix() as postfix:
        set_deferred(postfix, transport)
        queue_id = postfix.send(mail("requeued") + b"x" * 70 * (size // 70) + b"\n")
        postfix.wait_for_log("deferred transport")
        assert queue_id
        requeue_all(postfix)
        result = reconcile(postfix)
        assert result["messages"] == []
        assert (result["accepted"], result["archived"]) == (1, 1)
        assert result["unclear"] == 0


def test_a_requeued_bounce_is_not_missing() -> None:
    main = {"smtpd_reject_unlisted_recipient": "no"}
    with PrivatePostfix(main=main) as postfix:
        (postfix.etc / "routes").write_text(
            "archive-request.invalid archive-stamp:on-request\n"
            "error.example.net error:5.1.1 no such user\n"
        )
        postfix.postconf(transport_maps=f"texthash:{postfix.etc}/routes")
        set_deferred(postfix, "sink")
        postfix.send(mail("bounced"), to=[UNDELIVERABLE])
        postfix.wait_for_log("from=<>.*queue active")
        postfix.wait_for_log("to=<alice@example.org>.*deferred transport")
        requeue_all(postfix)
        result = reconcile(postfix)
        assert result["messages"] == []
        assert result["accepted"] == result["archived"]
