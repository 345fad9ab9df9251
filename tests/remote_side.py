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
PUT_OFF = 2  # times that later-… is put off
REFUSED = "550 5.1.1 no such user here"
NOT_YET = "450 4.2.0 come back later"
NO_DATA = "554 5.7.1 we do not want to read this"
MAIN = {
    "myhostname": "mx.example.net",
    "mydomain": "example.net",
    "relay_transport": "sink:",
    "relay_domains": f"{DOMAIN}, soft.example.net",
    "smtpd_client_event_limit_exceptions": "static:all",
    "smtpd_delay_reject": "yes",
}


class RemoteSide(PrivatePostfix):
    """A running Postfix without archive, and the policy that it asks."""

    def __init__(self, *, main: dict[str, str] | None = None, **more: Any) -> None:
        self.policy = Policy()
        ask = f"check_policy_service inet:127.0.0.1:{self.policy.port}"
        asking = {
            "smtpd_relay_restrictions": f"{ask}, permit_mynetworks, reject",
            "smtpd_recipient_restrictions": "permit_mynetworks, reject",
            "smtpd_end_of_data_restrictions": ask,
        }
        super().__init__(
            has_archive=False, main={**MAIN, **asking, **(main or {})}, **more
        )

    def start(self) -> None:
        """Start the policy and Postfix."""
        self.policy.start()
        super().start()

    def __exit__(self, kind: object, *more: object) -> None:
        super().__exit__(kind, *more)
        self.policy.stop()

    @property
    def place(self) -> str:
        """The nexthop by which it is reached."""
        return f"[127.0.0.1]:{self.smtp_port}"

    def open(self, local_part: str) -> None:
        """Accept a recipient gate-… from now on."""
        self.policy.opened.add(local_part)

    def times_refused(self, address: str) -> int:
        """Return how often its log says that it refused or put off a recipient."""
        reject = rf"reject: (?:RCPT|END-OF-MESSAGE) from .*: [45]\d\d .*{address}"
        return len(re.findall(reject, self.log()))


class Policy:
    """Postfix's policy protocol (SMTPD_POLICY_README): the recipients' local parts."""

    def __init__(self) -> None:
        self.opened: set[str] = set()
        self._asked: Counter[str] = Counter()
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

    def action(self, words: dict[str, str]) -> str:
        """Return what Postfix is to do about one request."""
        seen = self._recipients[words.get("instance", "")]
        if words.get("protocol_state") == "END-OF-MESSAGE":
            refused = any(each.startswith("nodata-") for each in seen)
            return NO_DATA if refused else "DUNNO"
        local_part = words.get("recipient", "").rpartition("@")[0]
        seen.append(local_part)
        return self._of_recipient(local_part)

    def _of_recipient(self, local_part: str) -> str:
        kind = local_part.partition("-")[0]
        if kind == "no":
            return REFUSED
        if kind == "gate" and local_part not in self.opened:
            return NOT_YET
        if kind == "later":
            self._asked[local_part] += 1
            return NOT_YET if self._asked[local_part] <= PUT_OFF else "DUNNO"
        return "DUNNO"


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    policy: Policy


class _Session(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        words: dict[str, str] = {}
        for raw in self.rfile:
            name, equals, value = raw.decode("utf-8", "replace").strip().partition("=")
            if equals:
                words[name] = value
                continue
            action = self.server.policy.action(words)
            words = {}
            self.wfile.write(f"action={action}\n\n".encode())
