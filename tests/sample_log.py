"""Makes the sample lines of Postfix's log that the tests of the log's readers use.

    tests/sample_log.py FILE       as root, with the Postfix of this host or chroot

Plays the outcomes' scenarios without the archive, and besides what else Postfix logs
of a queue file: access and header actions, a milter, logins, TLS, probes, odd and
hostile addresses, hostile replies. FILE gets one line of each form, as it is but for
this instance's folder. With Python's standard library alone, for the chroots of other
releases. What a line is to be read as is written beside it by hand: unit/samples.py.
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

from outcome_scenarios import EXPIRING, PLAIN, Group, play  # noqa: E402
from outcome_world import World  # noqa: E402
from smtp_peer import Peer, Transaction  # noqa: E402

from mails import mail  # noqa: E402
from private_postfix import Client, free_ports  # noqa: E402

FORGED = "relay=none, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250 ok)"
TOLD = f"yes@far.example.net>, {FORGED}"
LONG = "2.7.1 " + "refused for a long reason; " * 90
REPLIES = {  # by local part, to RCPT
    "no-sent": "550 5.1.1 status=sent (250 2.0.0 Ok: queued as 4BBBBBBBBBzBBBB)",
    "no-line": f"550 5.1.1 no>, {FORGED}",
    "later-line": f"450 4.2.0 no>, orig_to=<a@example.com>, {FORGED}",
    "no-long": f"550 5.7.1 {LONG}",
    "no-brackets": "550 5.1.1 )))) ((( status=deferred (",
    "no-utf8": "550 5.1.1 kein Postfach für Müller",
    "no-binary": "550 5.1.1 \udcff\udcfe\x01\x7f no",
}
ENDS = {  # after the message
    "yes-queued": "250 2.0.0 Ok: queued as ABCDEF0123",
    "yes-line": f"250 2.0.0 ok), x>, {FORGED}",
    "yes-long": "250 2.0.0 " + "accepted for a long reason; " * 90,
    "yes-bare": "250",
    "gate-end": "451 4.3.0 not now; status=sent (ok)",
}
ODD = (
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
UTF8 = (
    "grün@odd.example.net",
    "a@bücher.example.com",
    "nel\x85ls\u2028x@odd.example.net",
)
# Recipients and senders that are to look like what a delivery agent says.
HOSTILE = (
    f'"x>, {FORGED}"@error.example.com',
    f'"{TOLD}"@error.example.com',
    f'"yes@far.example.net>, orig_to=<x@example.com>, {FORGED}"@error.example.com',
    f'"\\"q\\">, {FORGED}"@error.example.com',
    '"status=sent (ok)"@error.example.com',
)
# Longer than Postfix's lines: cut in the middle, and at a closing bracket.
TOO_LONG = (
    f'"x>, {FORGED} {"y" * 1900}"@error.example.com',
    f'"x>, {FORGED[:-1]} {"y" * 1400}{")" * 500}"@error.example.com',
)
BY_SENDMAIL = (  # what smtpd(8) refuses and sendmail(1) takes
    f"x>, {FORGED}",
    f"x@error.example.com>, {FORGED}",
    f'yes@"far.example.net>, {FORGED}"',
    f"yes@[far.example.net>, {FORGED}]",
    f'@"yes@far.example.net>, {FORGED}":x@error.example.com',
    f'yes@"far.example.net>, {FORGED[:-1]} {"y" * 1400}{")" * 500}"',
    "a b@error.example.com",
    'x@"a>b"',
)
ACTIONS = """
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
HEADERS = """
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


class Samples(World):
    """The world, mostly without the archive, and more that leaves traces in the log."""

    def __init__(
        self, *, has_archive: bool = False, main: dict[str, str] | None = None
    ) -> None:
        self.odd = Peer(_at_end, at_rcpt=_at_rcpt)
        self.mill = Milter()
        [self.milter_port] = free_ports(1)
        text = MASTER.format(milter=self.milter_port, mill=self.mill.port)
        super().__init__(has_archive=has_archive, main=main, master=text)

    def start(self) -> None:
        """Start everything."""
        self.odd.start()
        self.mill.start()
        super().start()

    def _world_main(self) -> dict[str, str]:
        return {
            **super()._world_main(),
            "compatibility_level": "2",
            "header_checks": f"regexp:{self.folder}/headers",
            "smtp_connection_cache_destinations": self.remote.place,
            "delay_warning_time": "1s",
            "notify_classes": "bounce, delay, resource, software",
            "smtputf8_enable": "yes",
            "line_length_limit": "4096",
        }

    def _lay_out(self) -> None:
        super()._lay_out()
        place = self.remote.place
        (self.folder / "senders").write_text(ACTIONS.format(place=place))
        (self.folder / "headers").write_text(HEADERS.format(place=place))
        with open(self.folder / "transport", "a", encoding="utf-8") as table:
            table.write(TRANSPORTS.format(odd=self.odd.port, place=place))


def _local_part(address: str) -> str:
    return address.rpartition("@")[0]


def _at_rcpt(transaction: Transaction, address: str) -> str:
    return REPLIES.get(_local_part(address), "250 2.1.5 ok")


def _at_end(transaction: Transaction, address: str) -> str:
    return ENDS.get(_local_part(address), "250 2.0.0 taken")


class Milter:
    """Speaks the milter protocol, version 6, and does what the header X-Milter says."""

    def __init__(self) -> None:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Milling)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def start(self) -> None:
        """Answer from now on."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


class _Milling(socketserver.StreamRequestHandler):
    DOES = {b"reject": b"r", b"tempfail": b"t", b"discard": b"d", b"accept": b"a"}

    def handle(self) -> None:
        does = b""
        while True:
            head = self.rfile.read(5)
            if len(head) < 5 or head[4:] == b"Q":
                return
            data = self.rfile.read(struct.unpack("!I", head[:4])[0] - 1)
            if head[4:] == b"O":
                self._say(b"O" + struct.pack("!III", 6, 0x20, 0))
            elif head[4:] == b"E":
                self._end(does)
            elif head[4:] not in (b"D", b"A"):
                if head[4:] == b"L" and data.startswith(b"X-Milter\0"):
                    does = data.split(b"\0")[1].strip()
                self._say(b"c")

    def _end(self, does: bytes) -> None:
        if does == b"quarantine":
            self._say(b"qheld by a milter\0")
        self._say(self.DOES.get(does, b"c"))

    def _say(self, packet: bytes) -> None:
        self.wfile.write(struct.pack("!I", len(packet)) + packet)


def send(
    world: World, *to: str, name: str = "x", header: str = "", **more: Any
) -> None:
    """Send one message; a refusal is what was asked for."""
    try:
        world.send(header.encode() + mail(name), to=to, **more)
    except OSError as refused:  # smtplib's errors are such
        print(f"{to} {more}: {refused}")


def odd_addresses(world: World) -> None:
    """One message to each odd address, and from each."""
    for each in ODD:
        send(world, each)
    for each in UTF8:
        _send_utf8(world, each)
    for each in (*HOSTILE, *TOO_LONG):
        send(world, each)
    for each in (*HOSTILE, '"two words"@example.org', ""):
        send(world, "yes-sender@far.example.net", sender=each)
    for each in BY_SENDMAIL:
        world.sendmail(mail("x"), sender="alice@example.org", to=[each])
        world.sendmail(mail("x"), sender=each, to=["yes-a@far.example.net"])


def _send_utf8(world: World, address: str) -> None:
    with Client(world.smtp_port) as client:
        client.must(f"MAIL FROM:<{address}> SMTPUTF8", 250)
        client.must(f"RCPT TO:<{address}>", 250)
        client.must("DATA", 354)
        client.smtp.send(mail("x").replace(b"\n", b"\r\n") + b".\r\n")
        client.smtp.getreply()


def actions(world: Samples) -> None:
    """What access tables, header checks and milters do."""
    for line in ACTIONS.split():
        if line.startswith("/^"):
            user = line[2:-2]
            send(world, f"yes-{user}@far.example.net", sender=f"{user}@example.org")
    for does in HEADERS.split():
        if does.endswith("/"):
            word = does[:-1]
            send(world, f"yes-h-{word}@far.example.net", header=f"X-Do: {word}\n")
    for does in ("reject", "tempfail", "discard", "accept", "quarantine"):
        header = f"X-Milter: {does}\n"
        port = world.milter_port
        send(world, f"yes-m-{does}@far.example.net", header=header, port=port)
    send(world, "x@nowhere.example.org", sender="a@b..c")


def submission(world: Samples) -> None:
    """Logins; TLS; probes; what is sent at once; DSN on success."""
    with Client(world.smtp_port) as client:
        word = base64.b64encode(b"\0carol@mail.example.com\0secret").decode()
        client.must(f"AUTH PLAIN {word}", 235)
        client.send(mail("x"), to=["yes-login@far.example.net"])
    for host in ("secure", "maybe"):
        send(world, f"yes-{host}@{host}.example.net")
    for to in ("yes-probe@far.example.net", "no-probe@far.example.net"):
        command = ["/usr/sbin/sendmail", "-C", str(world.etc), "-bv", to]
        subprocess.run(command, check=True)
    for number in range(12):
        send(world, f"gate-{number}@far.example.net")
    for number in range(12):
        world.waits(f"gate-{number}@far.example.net")
        world.remote.open(f"gate-{number}")
    world.flush()
    never = ("NOTIFY=SUCCESS,DELAY,FAILURE", "ORCPT=rfc822;first@example.com")
    send(world, "yes-dsn@far.example.net", rcpt_options=never)
    send(world, "daemon+dsn@here.example.com", rcpt_options=never)


def filters(world: Samples) -> None:
    """Content filters of four kinds, as the archive's next filter would be."""
    for name in ("told", "silent"):
        port = world.scans[name].port
        play(world, Group(name, {"content_filter": f"scan:[127.0.0.1]:{port}"}))
    world.postconf(content_filter="")
    world.reload()


def certificate(folder: str) -> dict[str, str]:
    """Make a certificate for the remote side."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=mx.example.net"
    words = [*command.split(), "-keyout", f"{folder}/key", "-out", f"{folder}/cert"]
    subprocess.run(words, check=True, capture_output=True)
    return {
        "smtpd_tls_cert_file": f"{folder}/cert",
        "smtpd_tls_key_file": f"{folder}/key",
        "smtpd_tls_security_level": "may",
        "relay_domains": "far.example.net soft.example.net secure.example.net"
        " maybe.example.net",
    }


def collect(keys: str, main: dict[str, str], whole: bool) -> str:
    """Play everything, or just the odd addresses, and return the log."""
    world = Samples(main=main)
    world.remote.postconf(compatibility_level="2", **certificate(keys))
    world.add_login("carol", "mail.example.com", "secret")
    with world:
        if whole:
            play(world, EXPIRING)
            play(world, PLAIN)
            filters(world)
            actions(world)
            submission(world)
        odd_addresses(world)
        quiet(world)
        return world.log().replace(str(world.folder), "/srv/mail")


def quiet(world: World) -> None:
    """Return when nothing has come to the log for some looks at the queue."""
    active = os.path.join(str(world.queue), "active")
    before = -1
    while before != len(world.log()):
        before = len(world.log())
        world.wait(lambda: not os.listdir(active), "nothing is active")
        subprocess.run(["sleep", "0.7"], check=True)


LONG_ID = r"\b[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,14}z[0-9A-Za-z]{1,14}\b"
FORMS = (  # what does not matter for the form of a line, by what stands in its place
    (r"^.{15} \S+ ", ""),
    (LONG_ID, "LONG"),
    (r"\b[0-9A-F]{8,13}\b", "SHORT"),
    (r"\b(yes|no|gate|later|nodata|daemon|backup)[-+][a-z0-9-]+@", r"\1@"),
    (r"message-id=<[^>]*>", "message-id"),
    (r"delays?=[\d./]+", "delay"),
    (r"\d+", "N"),
    (r"y{99,}", "y"),
)


def of_each_form(log: str) -> str:
    """Return the first line of each form."""
    seen: dict[str, str] = {}
    for line in log.split("\n"):
        form = line
        for pattern, instead in FORMS:
            form = re.sub(pattern, instead, form)
        seen.setdefault(form, line)
    return "\n".join(seen.values()) + "\n"


def main(path: str) -> None:
    """Write the lines of several instances, each with other settings."""
    with tempfile.TemporaryDirectory() as keys:
        log = collect(keys, {}, True)
        log += collect(keys, {"enable_long_queue_ids": "no"}, False)
        log += collect(keys, {"info_log_address_format": "internal"}, False)
    text = of_each_form(log)
    Path(path).write_text(text, encoding="utf-8", errors="surrogateescape")


if __name__ == "__main__":
    main(sys.argv[1])
