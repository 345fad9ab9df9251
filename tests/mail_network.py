"""A private Postfix with the archive, from which mail really goes somewhere.

SMTP to a remote side, LMTP to a mailbox, local(8) with aliases and .forward,
virtual(8), discard, error, a list manager, and content filters that give back in four
ways. What has arrived is looked up where it arrived: arrived().

    with World() as world:
        world.send(mail("one"), to=["yes-one@far.example.net"])
"""

from __future__ import annotations

import os
import shutil
import smtplib
import socketserver
import subprocess
import threading
from pathlib import Path
from typing import Any

from remote_postfix import DOMAIN, RemotePostfix
from smtp_peer import Peer, Transaction, hang_up

from mails import is_named
from private_postfix import Client, PrivatePostfix, free_ports

LIST_ADDRESS = "list@lists.example.com"
LIST_MEMBERS = ("yes-member@far.example.net", "daemon+member@here.example.com")
XFORWARD_EXTENSION = "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"
ALIASES = """
three daemon+three, yes-three@far.example.net, no-three@far.example.net
run "|cat >>{out}/run"
broken "|exit 67"
nested daemon+nested, nest
nest yes-nested@far.example.net, backup+nested
"""
FORWARDS = {  # by user; local(8) reads the first that is there
    "games": "backup+games@here.example.com\n",
    "news": "yes-news@far.example.net\n",
    "irc": "\\irc, yes-irc@far.example.net\n",
    "lp": "no-lp@far.example.net\n",
}
VIRTUAL_ALIASES = """
trio@alias.example.com yes-trio@far.example.net known@box.example.com no-trio@{far}
solo@alias.example.com yes-solo@far.example.net
known+alias@alias.example.com known@box.example.com
"""
TRANSPORTS = """
far.example.net smtp:{place}
soft.example.net softly:{place}
hangup.example.net smtp:[127.0.0.1]:{hangup}
lmtp.example.net lmtp:inet:127.0.0.1:{lmtp}
discard.example.com discard:thrown away by a transport
error.example.com error:5.1.2 there is no such place
retry.example.com retry:4.3.2 this place is closed for now
lists.example.com lists:
archive-request.invalid {archive}
"""
ARCHIVE_ROUTES = {
    "native": "archive-capture:unix:private/archive.capture",
    "native-pipe": "archive-capture:capture",
}
SENDER_ACCESS = """
/^hold@/ HOLD to be looked at
/^throw@/ DISCARD thrown away at the door
"""
MASTER = """
softly unix - - n - - smtp -o soft_bounce=yes
scan unix - - n - 10 smtp
  -o smtp_send_xforward_command=yes -o disable_dns_lookups=yes
lists unix - n n - 10 pipe
  flags=q user=nobody:nogroup null_sender=
  argv={directory}/again {directory}/again.socket {{${{sender}}}} list
scanpipe unix - n n - 10 pipe
  flags=q user=nobody:nogroup null_sender=
  argv={directory}/again {directory}/again.socket {{${{sender}}}} {{${{recipient}}}}
127.0.0.1:{back} inet n - n - - smtpd
  -o syslog_name=postfix/back -o content_filter= -o cleanup_service_name=back-cleanup
  -o smtpd_sender_restrictions= -o smtpd_authorized_xforward_hosts=127.0.0.0/8
  -o receive_override_options=no_unknown_recipient_checks,no_address_mappings
back-cleanup unix n - n - 0 cleanup
  -o syslog_name=postfix/back -o header_checks=regexp:{directory}/throw
"""
# Hands a message to whoever may run sendmail(1) on this instance, and exits as it says.
RESEND_SCRIPT = """#!/usr/bin/python3 -IS
import os, socket, sys
with socket.socket(socket.AF_UNIX) as peer:
    peer.connect(sys.argv[1])
    words = b"\\0".join(os.fsencode(each) for each in sys.argv[2:])
    peer.sendall(words + b"\\0\\0" + sys.stdin.buffer.read())
    peer.shutdown(socket.SHUT_WR)
    sys.exit(int(peer.recv(10)))
"""


class MailNetwork(PrivatePostfix):
    """The instance with all its neighbours."""

    def __init__(self, **options: Any) -> None:
        self.remote = RemotePostfix()
        self.hangup_peer = Peer(hang_up)
        self.lmtp_peer = Peer(_answer_as_mailbox, is_lmtp=True)
        self.scanners = {
            "told": Peer(
                self._scan_and_report_queue_id,
                extensions=("8BITMIME", XFORWARD_EXTENSION),
            ),
            "passed": Peer(self._scan_and_report_queue_id),
            "silent": Peer(self._scan_and_answer_ok),
        }
        [self.reinjection_port] = free_ports(1)
        super().__init__(**options)
        self._resend_server = _ResendServer(str(self.directory / "again.socket"), self)
        (self.directory / "again.socket").chmod(0o777)

    def start(self) -> None:
        """Start everything; return when Postfix answers."""
        self.remote.start()
        for each in (self.hangup_peer, self.lmtp_peer, *self.scanners.values()):
            each.start()
        threading.Thread(target=self._resend_server.serve_forever, daemon=True).start()
        super().start()

    def __exit__(self, exc_type: object, *exc_details: object) -> None:
        super().__exit__(exc_type, *exc_details)
        for each in (self.hangup_peer, self.lmtp_peer, *self.scanners.values()):
            each.stop()
        self._resend_server.shutdown()
        self._resend_server.server_close()
        self.remote.__exit__(exc_type)

    @property
    def remote_names(self) -> dict[str, str]:
        """How Postfix's log names the neighbours."""
        ports = {
            "far": self.remote.smtp_port,
            "hangup": self.hangup_peer.port,
            "lmtp": self.lmtp_peer.port,
        }
        return {name: f"127.0.0.1[127.0.0.1]:{ports[name]}" for name in ports}

    # --- the truth ------------------------------------------------------------------

    def count_arrivals(self, name: str, address: str) -> int:
        """Return how often a message has come to an address, as is found there."""
        user, _, domain = address.partition("@")
        if domain == "box.example.com":
            return _count_in_mailbox(name, self.directory / "virtual" / user)
        if address == "run@here.example.com":
            path = self.directory / "out" / "run"
            return int(path.exists() and is_named(path.read_bytes(), name))
        if domain == "here.example.com":
            return _count_in_mailbox(
                name, self.directory / "boxes" / user.partition("+")[0]
            )
        if domain == "lmtp.example.net":
            return sum(
                is_named(t.content, name) for t in self.lmtp_peer.accepted_for(address)
            )
        deliveries = self.remote.delivered_to(address)
        return sum(is_named(each.content, name) for each in deliveries)

    # --- what the postmaster does ---------------------------------------------------

    def postsuper(self, option: str, queue_id: str) -> None:
        """Run postsuper(1) on one message."""
        command = ["postsuper", "-c", str(self.etc), option, queue_id]
        subprocess.run(command, check=True, capture_output=True)

    def wait_for_queued(self, recipient: str, queue: str = "deferred") -> str:
        """Return the queue id of what waits there for a recipient, when it does."""
        queue_ids: list[str] = (
            []
        )  # by the look that saw it: the next one may find it active

        def is_queued() -> bool:
            queue_ids.extend(self._queued_ids(recipient, queue))
            return bool(queue_ids)

        self.wait(is_queued, f"{recipient} is {queue}")
        return queue_ids[0]

    def _queued_ids(self, recipient: str, queue: str) -> list[str]:
        return [
            str(each["queue_id"])
            for each in self.mailq()
            if each["queue_name"] == queue and recipient in _addresses(each)
        ]

    def queued_recipients(self) -> set[str]:
        """Return all recipients for which something is in the queue."""
        return {address for each in self.mailq() for address in _addresses(each)}

    def set_service(self, name: str, value: str | None) -> None:
        """Set a parameter of one service, as service/type/parameter; None unsets."""
        arguments = ["-PX", name] if value is None else ["-P", f"{name}={value}"]
        subprocess.run(["postconf", "-c", str(self.etc), *arguments], check=True)

    # --- content filters ------------------------------------------------------------

    def _scan_and_report_queue_id(self, transaction: Transaction, _: str) -> str:
        """Give back, and answer as amavisd-new does."""
        if b"\nX-Spam: yes" in transaction.content:
            return "250 2.7.0 Ok, discarded, id=00001-01 - spam"
        parts = [transaction.recipients]
        if b"\nX-Split: yes" in transaction.content:
            parts = [[each] for each in transaction.recipients]
        for each in parts:
            reply = self._reinject(transaction, each)
        return f"250 2.0.0 from MTA(smtp:[127.0.0.1]:{self.reinjection_port}): {reply}"

    def _scan_and_answer_ok(self, transaction: Transaction, _: str) -> str:
        self._reinject(transaction, transaction.recipients)
        return "250 ok"

    def _reinject(self, transaction: Transaction, recipients: list[str]) -> str:
        with Client(self.reinjection_port, "scanner.example.com") as client:
            if transaction.xforward:
                attributes = [
                    f"{name}={value}" for name, value in transaction.xforward.items()
                ]
                client.command(" ".join(["XFORWARD", *attributes]), 250)
            scanned = b"X-Scanned: yes\r\n" + transaction.content
            queue_id = client.send(scanned, sender=transaction.sender, to=recipients)
        return f"250 2.0.0 Ok: queued as {queue_id}"

    def resend(self, addresses: list[str], content: bytes) -> int:
        """Send on by sendmail(1): to the members of the list, or to whom it was for."""
        sender, *recipients = addresses
        if recipients == ["list"]:
            content = b"X-List: " + LIST_ADDRESS.encode() + b"\n" + content
            sender, recipients = "list-bounces@lists.example.com", list(LIST_MEMBERS)
        return self.sendmail(content, sender=sender, to=recipients).returncode

    # --- configuration --------------------------------------------------------------

    def _main_lines(self) -> Any:
        self._main = {**self._network_main(), **self._main}
        self._write_files()
        return super()._main_lines()

    def _network_main(self) -> dict[str, str]:
        directory = self.directory
        return {
            "mydestination": "here.example.com",
            "myorigin": "here.example.com",
            "recipient_delimiter": "+",
            "alias_maps": f"texthash:{directory}/aliases",
            "local_recipient_maps": "",
            "mail_spool_directory": f"{directory}/boxes/",
            "forward_path": f"{directory}/forwards/$user",
            "virtual_alias_domains": "alias.example.com",
            "virtual_alias_maps": f"texthash:{directory}/valias",
            "virtual_mailbox_domains": "box.example.com",
            "virtual_mailbox_base": f"{directory}/virtual",
            "virtual_mailbox_maps": f"texthash:{directory}/vmailbox",
            "virtual_uid_maps": "static:65534",
            "virtual_gid_maps": "static:65534",
            "transport_maps": f"texthash:{directory}/transport",
            "smtpd_sender_restrictions": "check_sender_access"
            f" regexp:{directory}/senders",
            "smtpd_reject_unlisted_recipient": "no",
            "smtp_tls_security_level": "none",
            "lists_destination_recipient_limit": "1",
        }

    def _write_files(self) -> None:
        texts = {
            "aliases": ALIASES.format(out=self.directory / "out"),
            "valias": VIRTUAL_ALIASES.format(far=DOMAIN),
            "vmailbox": "known@box.example.com known/\n",
            "senders": SENDER_ACCESS,
            "throw": "/^X-Throw: away/ DISCARD thrown away by a rule\n",
            "transport": TRANSPORTS.format(
                place=self.remote.nexthop,
                hangup=self.hangup_peer.port,
                lmtp=self.lmtp_peer.port,
                archive=ARCHIVE_ROUTES.get(self._mode, "archive-stamp:on-request"),
            ),
            "again": RESEND_SCRIPT,
        }
        for name, text in texts.items():
            (self.directory / name).write_text(text)
        (self.directory / "again").chmod(0o755)
        for name in ("boxes", "virtual", "out"):
            (self.directory / name).mkdir()
            (self.directory / name).chmod(0o1777)
        (self.directory / "forwards").mkdir()
        for user, text in FORWARDS.items():
            path = self.directory / "forwards" / user
            path.write_text(text)
            shutil.chown(path, user)

    def _master_text(self) -> str:
        entries = MASTER.format(back=self.reinjection_port, directory=self.directory)
        return super()._master_text() + entries


def _count_in_mailbox(name: str, mailbox: Path) -> int:
    return sum(is_named(each.read_bytes(), name) for each in mailbox.glob("new/*"))


def _answer_as_mailbox(transaction: Transaction, address: str) -> str:
    """Answer as a mailbox does: full-… is full, gone-… is gone."""
    if address.startswith("full-"):
        return "452 4.2.2 mailbox is full"
    if address.startswith("gone-"):
        return "550 5.1.1 that mailbox is gone"
    return f"250 2.1.5 <{address}> saved"


def _addresses(entry: dict[str, Any]) -> list[str]:
    return [str(each["address"]) for each in entry["recipients"]]


class _ResendServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: str, network: MailNetwork) -> None:
        self.network = network
        super().__init__(path, _ResendSession)


class _ResendSession(socketserver.StreamRequestHandler):
    server: _ResendServer

    def handle(self) -> None:
        envelope, _, content = self.rfile.read().partition(b"\0\0")
        addresses = [os.fsdecode(each) for each in envelope.split(b"\0")]
        try:
            exit_code = self.server.network.resend(addresses, content)
        except (OSError, smtplib.SMTPException):
            exit_code = 75
        self.wfile.write(str(exit_code).encode())
