"""The remote side: another Postfix, that accepts, refuses or puts off by local part.

    yes-…     is accepted and delivered; deliveries() has it
    no-…      550 at RCPT
    later-…   450 at RCPT for the first two times
    gate-…    450 at RCPT until opened
    nodata-…  554 after DATA

What it did stands in its own deliveries and its own log. Who hangs up is a Peer.
"""

from __future__ import annotations

import re
import socketserver
import threading
from collections import Counter, defaultdict
from typing import Any

from private_postfix import PrivatePostfix

DOMAIN = "far.example.net"
DEFERRALS = 2  # times that later-… is put off
REFUSED = "550 5.1.1 no such user here"
DEFERRED = "450 4.2.0 come back later"
REFUSED_DATA = "554 5.7.1 we do not want to read this"
MAIN = {
    "myhostname": "mx.example.net",
    "mydomain": "example.net",
    "relay_transport": "sink:",
    "relay_domains": f"{DOMAIN}, soft.example.net",
    "smtpd_client_event_limit_exceptions": "static:all",
    "smtpd_delay_reject": "yes",
}


class RemotePostfix(PrivatePostfix):
    """A running Postfix without archive, and the policy that it asks."""

    def __init__(self, *, main: dict[str, str] | None = None, **options: Any) -> None:
        self.policy = Policy()
        policy_check = f"check_policy_service inet:127.0.0.1:{self.policy.port}"
        restrictions = {
            "smtpd_relay_restrictions": f"{policy_check}, permit_mynetworks, reject",
            "smtpd_recipient_restrictions": "permit_mynetworks, reject",
            "smtpd_end_of_data_restrictions": policy_check,
        }
        super().__init__(
            has_archive=False, main={**MAIN, **restrictions, **(main or {})}, **options
        )

    def start(self) -> None:
        """Start the policy and Postfix."""
        self.policy.start()
        super().start()

    def __exit__(self, exc_type: object, *exc_details: object) -> None:
        super().__exit__(exc_type, *exc_details)
        self.policy.stop()

    @property
    def nexthop(self) -> str:
        """The nexthop by which it is reached."""
        return f"[127.0.0.1]:{self.smtp_port}"

    def accept(self, local_part: str) -> None:
        """Accept a recipient gate-… from now on."""
        self.policy.accepted.add(local_part)

    def times_refused(self, address: str) -> int:
        """Return how often its log says that it refused or put off a recipient."""
        reject = rf"reject: (?:RCPT|END-OF-MESSAGE) from .*: [45]\d\d .*{address}"
        return len(re.findall(reject, self.log()))


class Policy:
    """Postfix's policy protocol (SMTPD_POLICY_README): the recipients' local parts."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self._attempts: Counter[str] = Counter()
        self._recipients: defaultdict[str, list[str]] = defaultdict(list)
        self._server = _Server(("127.0.0.1", 0), _Session)
        self._server.policy = self
        self.port = int(self._server.server_address[1])

    def start(self) -> None:
        """Answer from now on."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def action(self, attributes: dict[str, str]) -> str:
        """Return what Postfix is to do about one request."""
        local_parts = self._recipients[attributes.get("instance", "")]
        if attributes.get("protocol_state") == "END-OF-MESSAGE":
            is_refused = any(each.startswith("nodata-") for each in local_parts)
            return REFUSED_DATA if is_refused else "DUNNO"
        local_part = attributes.get("recipient", "").rpartition("@")[0]
        local_parts.append(local_part)
        return self._recipient_action(local_part)

    def _recipient_action(self, local_part: str) -> str:
        prefix = local_part.partition("-")[0]
        if prefix == "no":
            return REFUSED
        if prefix == "gate" and local_part not in self.accepted:
            return DEFERRED
        if prefix == "later":
            self._attempts[local_part] += 1
            return DEFERRED if self._attempts[local_part] <= DEFERRALS else "DUNNO"
        return "DUNNO"


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    policy: Policy


class _Session(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        attributes: dict[str, str] = {}
        for raw_line in self.rfile:
            name, separator, value = (
                raw_line.decode("utf-8", "replace").strip().partition("=")
            )
            if separator:
                attributes[name] = value
                continue
            action = self.server.policy.action(attributes)
            attributes = {}
            self.wfile.write(f"action={action}\n\n".encode())
