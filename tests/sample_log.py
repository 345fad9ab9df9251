"""Makes the sample lines of Postfix's log that the tests of the log's readers use.

    tests/sample_log.py FILE       as root, with the Postfix of this host or chroot

Plays the outcomes' scenarios without the archive, and besides what else Postfix logs
of a queue file: access and header actions, a milter, logins, TLS, probes, odd and
hostile addresses, hostile replies. FILE gets one line of each form, as it is but for
this instance's directory. With Python's standard library alone, for the chroots of
other releases. What a line is to be read as is written beside it by hand:
unit/samples.py.
"""

from __future__ import annotations

import base64
import os
import re
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from mail_network import MailNetwork  # noqa: E402
from outcome_scenarios import EXPIRING, PLAIN, Group, play  # noqa: E402
from smtp_peer import Peer, Transaction  # noqa: E402

from mails import mail  # noqa: E402
from private_postfix import Client, free_ports  # noqa: E402

FORGED = "relay=none, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250 ok)"
FORGED_DELIVERY = f"yes@far.example.net>, {FORGED}"
LONG_REPLY = "2.7.1 " + "refused for a long reason; " * 90
RCPT_REPLIES = {  # by local part, to RCPT
    "no-sent": "550 5.1.1 status=sent (250 2.0.0 Ok: queued as 4BBBBBBBBBzBBBB)",
    "no-line": f"550 5.1.1 no>, {FORGED}",
    "later-line": f"450 4.2.0 no>, orig_to=<a@example.com>, {FORGED}",
    "no-long": f"550 5.7.1 {LONG_REPLY}",
    "no-brackets": "550 5.1.1 )))) ((( status=deferred (",
    "no-utf8": "550 5.1.1 kein Postfach für Müller",
    "no-binary": "550 5.1.1 \udcff\udcfe\x01\x7f no",
}
DATA_REPLIES = {  # after the message
    "yes-queued": "250 2.0.0 Ok: queued as ABCDEF0123",
    "yes-line": f"250 2.0.0 ok), x>, {FORGED}",
    "yes-long": "250 2.0.0 " + "accepted for a long reason; " * 90,
    "yes-bare": "250",
    "gate-end": "451 4.3.0 not now; status=sent (ok)",
}
ODD_ADDRESSES = (
    '"two words"@odd.example.net',
    '"a>b"@odd.example.net',
    '"a\\"b"@odd.example.net',
    '"a,b;c:d"@odd.example.net',
    '"<a@b>"@odd.example.net',
    '"a@b"@odd.example.net',
    '""@odd.example.net',
    "no-sent@odd.example.net",
    "no-line@odd.example.net",
    "later-line@odd.example.net",
    "no-long@odd.example.net",
    "no-brackets@odd.example.net",
    "no-utf8@odd.example.net",
    "no-binary@odd.example.net",
    "yes-queued@odd.example.net",
    "yes-line@odd.example.net",
    "yes-long@odd.example.net",
    "yes-bare@odd.example.net",
    "gate-end@odd.example.net",
    "user=name/with+all!chars%#@odd.example.net",
    "a@[127.0.0.1]",
)
UTF8_ADDRESSES = (
    "grün@odd.example.net",
    "a@bücher.example.com",
    "nel\x85ls\u2028x@odd.example.net",
)
# Recipients and senders that are to look like what a delivery agent says.
HOSTILE_ADDRESSES = (
    f'"x>, {FORGED}"@error.example.com',
    f'"{FORGED_DELIVERY}"@error.example.com',
    f'"yes@far.example.net>, orig_to=<x@example.com>, {FORGED}"@error.example.com',
    f'"\\"q\\">, {FORGED}"@error.example.com',
    '"status=sent (ok)"@error.example.com',
)
# Longer than Postfix's lines: cut in the middle, and at a closing bracket.
TOO_LONG_ADDRESSES = (
    f'"x>, {FORGED} {"y" * 1900}"@error.example.com',
    f'"x>, {FORGED[:-1]} {"y" * 1400}{")" * 500}"@error.example.com',
)
SENDMAIL_ADDRESSES = (  # what smtpd(8) refuses and sendmail(1) takes
    f"x>, {FORGED}",
    f"x@error.example.com>, {FORGED}",
    f'yes@"far.example.net>, {FORGED}"',
    f"yes@[far.example.net>, {FORGED}]",
    f'@"yes@far.example.net>, {FORGED}":x@error.example.com',
    f'yes@"far.example.net>, {FORGED[:-1]} {"y" * 1400}{")" * 500}"',
    "a b@error.example.com",
    'x@"a>b"',
)
ACCESS_ACTIONS = """
/^hold@/ HOLD to be looked at
/^throw@/ DISCARD thrown away at the door
/^warn@/ WARN look at this
/^info@/ INFO just so
/^filter@/ FILTER smtp:{place}
/^redirect@/ REDIRECT yes-redirected@far.example.net
/^bcc@/ BCC yes-bcc@far.example.net
/^prepend@/ PREPEND X-Seen: yes
/^reject@/ REJECT not you
/^later@/ DEFER not now
"""
HEADER_CHECKS = """
/^X-Do: reject/ REJECT not such a header
/^X-Do: discard/ DISCARD such a header
/^X-Do: hold/ HOLD such a header
/^X-Do: filter/ FILTER smtp:{place}
/^X-Do: redirect/ REDIRECT yes-redirected@far.example.net
/^X-Do: bcc/ BCC yes-bcc@far.example.net
/^X-Do: warn/ WARN such a header
/^X-Do: info/ INFO such a header
/^X-Do: prepend/ PREPEND X-Done: yes
/^X-Do: replace/ REPLACE X-Done: yes
/^X-Do: strip/ STRIP such a header
/^X-Do: ignore/ IGNORE
"""
MASTER = """
127.0.0.1:{milter} inet n - n - - smtpd
  -o syslog_name=postfix/submission/smtpd -o smtpd_milters=inet:127.0.0.1:{mill}
  -o milter_default_action=accept
secure unix - - n - - smtp -o smtp_tls_security_level=encrypt
maybe unix - - n - - smtp -o smtp_tls_security_level=may
plainly unix - - n - - lmtp
"""
TRANSPORTS = """
odd.example.net smtp:[127.0.0.1]:{odd}
xn--bcher-kva.example.com smtp:[127.0.0.1]:{odd}
bücher.example.com smtp:[127.0.0.1]:{odd}
secure.example.net secure:{place}
maybe.example.net maybe:{place}
"""


class SampleNetwork(MailNetwork):
    """The world, mostly without the archive, and more that leaves traces in the log."""

    def __init__(
        self, *, has_archive: bool = False, main: dict[str, str] | None = None
    ) -> None:
        self.odd_peer = Peer(_at_end, at_rcpt=_at_rcpt)
        self.milter = Milter()
        [self.milter_port] = free_ports(1)
        services = MASTER.format(milter=self.milter_port, mill=self.milter.port)
        super().__init__(has_archive=has_archive, main=main, master=services)

    def start(self) -> None:
        """Start everything."""
        self.odd_peer.start()
        self.milter.start()
        super().start()

    def _network_main(self) -> dict[str, str]:
        return {
            **super()._network_main(),
            "compatibility_level": "2",
            "header_checks": f"regexp:{self.directory}/headers",
            "smtp_connection_cache_destinations": self.remote.nexthop,
            "delay_warning_time": "1s",
            "notify_classes": "bounce, delay, resource, software",
            "smtputf8_enable": "yes",
            "line_length_limit": "4096",
        }

    def _write_files(self) -> None:
        super()._write_files()
        nexthop = self.remote.nexthop
        (self.directory / "senders").write_text(ACCESS_ACTIONS.format(place=nexthop))
        (self.directory / "headers").write_text(HEADER_CHECKS.format(place=nexthop))
        with open(self.directory / "transport", "a", encoding="utf-8") as table:
            table.write(TRANSPORTS.format(odd=self.odd_peer.port, place=nexthop))


def _local_part(address: str) -> str:
    return address.rpartition("@")[0]


def _at_rcpt(transaction: Transaction, address: str) -> str:
    return RCPT_REPLIES.get(_local_part(address), "250 2.1.5 ok")


def _at_end(transaction: Transaction, address: str) -> str:
    return DATA_REPLIES.get(_local_part(address), "250 2.0.0 taken")


class Milter:
    """Speaks the milter protocol, version 6, and does what the header X-Milter says."""

    def __init__(self) -> None:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _MilterSession)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def start(self) -> None:
        """Answer from now on."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


class _MilterSession(socketserver.StreamRequestHandler):
    ACTION_REPLIES = {
        b"reject": b"r",
        b"tempfail": b"t",
        b"discard": b"d",
        b"accept": b"a",
    }

    def handle(self) -> None:
        action = b""
        while True:
            header = self.rfile.read(5)
            if len(header) < 5 or header[4:] == b"Q":
                return
            data = self.rfile.read(struct.unpack("!I", header[:4])[0] - 1)
            if header[4:] == b"O":
                self._reply(b"O" + struct.pack("!III", 6, 0x20, 0))
            elif header[4:] == b"E":
                self._end(action)
            elif header[4:] not in (b"D", b"A"):
                if header[4:] == b"L" and data.startswith(b"X-Milter\0"):
                    action = data.split(b"\0")[1].strip()
                self._reply(b"c")

    def _end(self, action: bytes) -> None:
        if action == b"quarantine":
            self._reply(b"qheld by a milter\0")
        self._reply(self.ACTION_REPLIES.get(action, b"c"))

    def _reply(self, packet: bytes) -> None:
        self.wfile.write(struct.pack("!I", len(packet)) + packet)


def send(
    network: MailNetwork, *to: str, name: str = "x", header: str = "", **options: Any
) -> None:
    """Send one message; a refusal is what was asked for."""
    try:
        network.send(header.encode() + mail(name), to=to, **options)
    except OSError as error:  # smtplib's errors are such
        print(f"{to} {options}: {error}")


def odd_addresses(network: MailNetwork) -> None:
    """One message to each odd address, and from each."""
    for address in ODD_ADDRESSES:
        send(network, address)
    for address in UTF8_ADDRESSES:
        _send_utf8(network, address)
    for address in (*HOSTILE_ADDRESSES, *TOO_LONG_ADDRESSES):
        send(network, address)
    for address in (*HOSTILE_ADDRESSES, '"two words"@example.org', ""):
        send(network, "yes-sender@far.example.net", sender=address)
    for address in SENDMAIL_ADDRESSES:
        network.sendmail(mail("x"), sender="alice@example.org", to=[address])
        network.sendmail(mail("x"), sender=address, to=["yes-a@far.example.net"])


def _send_utf8(network: MailNetwork, address: str) -> None:
    with Client(network.smtp_port) as client:
        client.command(f"MAIL FROM:<{address}> SMTPUTF8", 250)
        client.command(f"RCPT TO:<{address}>", 250)
        client.command("DATA", 354)
        client.smtp.send(mail("x").replace(b"\n", b"\r\n") + b".\r\n")
        client.smtp.getreply()


def actions(network: SampleNetwork) -> None:
    """What access tables, header checks and milters do."""
    for token in ACCESS_ACTIONS.split():
        if token.startswith("/^"):
            user = token[2:-2]
            send(network, f"yes-{user}@far.example.net", sender=f"{user}@example.org")
    for pattern in HEADER_CHECKS.split():
        if pattern.endswith("/"):
            action = pattern[:-1]
            send(network, f"yes-h-{action}@far.example.net", header=f"X-Do: {action}\n")
    for pattern in ("reject", "tempfail", "discard", "accept", "quarantine"):
        header = f"X-Milter: {pattern}\n"
        port = network.milter_port
        send(network, f"yes-m-{pattern}@far.example.net", header=header, port=port)
    send(network, "x@nowhere.example.org", sender="a@b..c")


def submission(network: SampleNetwork) -> None:
    """Logins; TLS; probes; what is sent at once; DSN on success."""
    with Client(network.smtp_port) as client:
        credentials = base64.b64encode(b"\0carol@mail.example.com\0secret").decode()
        client.command(f"AUTH PLAIN {credentials}", 235)
        client.send(mail("x"), to=["yes-login@far.example.net"])
    for name in ("secure", "maybe"):
        send(network, f"yes-{name}@{name}.example.net")
    for to in ("yes-probe@far.example.net", "no-probe@far.example.net"):
        command = ["/usr/sbin/sendmail", "-C", str(network.etc), "-bv", to]
        subprocess.run(command, check=True)
    for number in range(12):
        send(network, f"gate-{number}@far.example.net")
    for number in range(12):
        network.wait_for_queued(f"gate-{number}@far.example.net")
        network.remote.accept(f"gate-{number}")
    network.flush()
    dsn_options = ("NOTIFY=SUCCESS,DELAY,FAILURE", "ORCPT=rfc822;first@example.com")
    send(network, "yes-dsn@far.example.net", rcpt_options=dsn_options)
    send(network, "daemon+dsn@here.example.com", rcpt_options=dsn_options)


def filters(network: SampleNetwork) -> None:
    """Content filters of four kinds, as the archive's next filter would be."""
    for name in ("told", "silent"):
        port = network.scanners[name].port
        play(network, Group(name, {"content_filter": f"scan:[127.0.0.1]:{port}"}))
    network.postconf(content_filter="")
    network.reload()


def certificate(directory: str) -> dict[str, str]:
    """Make a certificate for the remote side."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=mx.example.net"
    arguments = [
        *command.split(),
        "-keyout",
        f"{directory}/key",
        "-out",
        f"{directory}/cert",
    ]
    subprocess.run(arguments, check=True, capture_output=True)
    return {
        "smtpd_tls_cert_file": f"{directory}/cert",
        "smtpd_tls_key_file": f"{directory}/key",
        "smtpd_tls_security_level": "may",
        "relay_domains": "far.example.net soft.example.net secure.example.net"
        " maybe.example.net",
    }


def collect(key_directory: str, main: dict[str, str], is_complete: bool) -> str:
    """Play everything, or just the odd addresses, and return the log."""
    network = SampleNetwork(main=main)
    network.remote.postconf(compatibility_level="2", **certificate(key_directory))
    network.add_login("carol", "mail.example.com", "secret")
    with network:
        if is_complete:
            play(network, EXPIRING)
            play(network, PLAIN)
            filters(network)
            actions(network)
            submission(network)
        odd_addresses(network)
        wait_for_quiet_log(network)
        return network.log().replace(str(network.directory), "/srv/mail")


def wait_for_quiet_log(network: MailNetwork) -> None:
    """Return when nothing has come to the log for some looks at the queue."""
    active = os.path.join(str(network.queue_directory), "active")
    length = -1
    while length != len(network.log()):
        length = len(network.log())
        network.wait(lambda: not os.listdir(active), "nothing is active")
        subprocess.run(["sleep", "0.7"], check=True)


LONG_ID = r"\b[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,14}z[0-9A-Za-z]{1,14}\b"
# What does not matter for the form of a line, by what stands in its place.
FORM_PATTERNS = (
    (r"^.{15} \S+ ", ""),
    (LONG_ID, "LONG"),
    (r"\b[0-9A-F]{8,13}\b", "SHORT"),
    (r"\b(yes|no|gate|later|nodata|daemon|backup)[-+][a-z0-9-]+@", r"\1@"),
    (r"message-id=<[^>]*>", "message-id"),
    (r"delays?=[\d./]+", "delay"),
    (r"\d+", "N"),
    (r"y{99,}", "y"),
)


def first_of_each_form(log: str) -> str:
    """Return the first line of each form."""
    first_lines: dict[str, str] = {}
    for line in log.split("\n"):
        form = line
        for pattern, replacement in FORM_PATTERNS:
            form = re.sub(pattern, replacement, form)
        first_lines.setdefault(form, line)
    return "\n".join(first_lines.values()) + "\n"


def main(path: str) -> None:
    """Write the lines of several instances, each with other settings."""
    with tempfile.TemporaryDirectory() as key_directory:
        log = collect(key_directory, {}, True)
        log += collect(key_directory, {"enable_long_queue_ids": "no"}, False)
        log += collect(key_directory, {"info_log_address_format": "internal"}, False)
    text = first_of_each_form(log)
    Path(path).write_text(text, encoding="utf-8", errors="surrogateescape")


if __name__ == "__main__":
    main(sys.argv[1])
