"""An instance whose recipients come to a good end, a bad one, or none yet.

Used by the tests of outcome reports and of copies that wait for the outcome.
"""

from __future__ import annotations

import email
import email.message
import subprocess

from private_postfix import PrivatePostfix

TRANSPORT_TABLE = """\
archive-request.invalid archive-stamp:on-request
no.example.net error:5.1.1 no such user
later.example.net retry:4.3.0 come later
"""
VIRTUAL_ALIASES = """\
pair@example.net one@example.net two@no.example.net
single@virtual.example.net bob@example.net
"""
CANONICAL = "single@canonical.example.net bob@example.net\n"
ALIASES = "single: bob@example.net\n"
LOCAL_DOMAIN = "local.example.net"
# Recipients that this host maps to one address, each by another table.
SINGLE_MEMBERS = [
    "single@virtual.example.net",
    "single@canonical.example.net",
    f"single@{LOCAL_DOMAIN}",
]
RECIPIENTS = ["bob@example.net", "x@no.example.net", "pair@example.net"]
# What becomes of those: Action and Status.
EXPECTED_ACTIONS = {
    "bob@example.net": ("delivered", "2.0.0"),
    "x@no.example.net": ("failed", "5.1.1"),
    "pair@example.net": ("expanded", "2.0.0"),
    "one@example.net": ("delivered", "2.0.0"),
    "two@no.example.net": ("failed", "5.1.1"),
}


def instance(mode: str = "pipe", **archive_cf: str) -> PrivatePostfix:
    """Return an instance, not yet started, that delivers, expands, refuses, defers."""
    postfix = PrivatePostfix(
        main={"smtpd_reject_unlisted_recipient": "no", "archive_relay": "sink:dummy"},
        archive_cf=archive_cf,
        mode=mode,
    )
    (postfix.etc / "routes").write_text(TRANSPORT_TABLE)
    (postfix.etc / "virtual").write_text(VIRTUAL_ALIASES)
    (postfix.etc / "canonical").write_text(CANONICAL)
    (postfix.etc / "aliases").write_text(ALIASES)
    command = ["postalias", "-c", str(postfix.etc), f"hash:{postfix.etc}/aliases"]
    subprocess.run(command, check=True)
    postfix.postconf(
        transport_maps=f"texthash:{postfix.etc}/routes",
        virtual_alias_maps=f"texthash:{postfix.etc}/virtual",
        recipient_canonical_maps=f"texthash:{postfix.etc}/canonical",
        alias_maps=f"hash:{postfix.etc}/aliases",
        mydestination=LOCAL_DOMAIN,
    )
    return postfix


def actions(content: bytes) -> dict[str, tuple[str, str]]:
    """Return Action and Status of each recipient in a copy or a report."""
    groups = [
        group
        for part in email.message_from_bytes(content).walk()
        if part.get_content_type() == "message/delivery-status"
        for group in part.get_payload()
        if isinstance(group, email.message.Message) and group["Final-Recipient"]
    ]
    return {
        str(fields["Final-Recipient"]).partition("; ")[2]: (
            str(fields["Action"]),
            str(fields["Status"]),
        )
        for fields in groups
    }
