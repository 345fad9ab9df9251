"""Native mode on a host whose mailboxes are a real Dovecot's, reached by LMTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from whole_host import HOST, WholeHost, install

pytestmark = pytest.mark.live
LMTP_PORT = 2424
CONFIGURATION = f"""\
base_dir = /var/lib/dovecot-here
state_dir = /var/lib/dovecot-here
log_path = /var/log/dovecot.log
protocols = lmtp
ssl = no
mail_location = maildir:/var/lib/mailboxes/%n
mail_plugins = quota
first_valid_uid = 1
plugin {{
  quota = maildir:User quota
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {LMTP_PORT}
  }}
}}
auth_username_format = %Ln
passdb {{
  driver = passwd-file
  args = /etc/dovecot/users-here
}}
userdb {{
  driver = passwd-file
  args = /etc/dovecot/users-here
}}
"""
USERS = """\
bob::mail:mail::/nonexistent::
carol::mail:mail::/nonexistent::
legal::mail:mail::/nonexistent::
full::mail:mail::/nonexistent::userdb_quota_rule=*:bytes=10
"""
BOB, CAROL, FULL, NOBODY, LIST = (
    f"{name}@{HOST}" for name in ("bob", "carol", "full", "no-such-user", "list")
)
# A list manager: sends what it gets to its members, with an envelope sender of its own.
LIST_MANAGER = f'list: "|/usr/sbin/sendmail -i -f list-bounces@{HOST} {CAROL}"'


@pytest.fixture
def host(stock_host: Path, release: Path) -> Iterator[WholeHost]:
    """A host that gives local mail to Dovecot, and a list; other mail is discarded."""
    with WholeHost(stock_host, release) as whole_host:
        whole_host.run("cat > /etc/dovecot/here.conf", stdin=CONFIGURATION)
        whole_host.run("cat > /etc/dovecot/users-here", stdin=USERS)
        whole_host.run("install -d -o mail -g mail /var/lib/mailboxes")
        whole_host.run("dovecot -c /etc/dovecot/here.conf >/dev/null 2>&1")
        whole_host.run("cat >> /etc/aliases && newaliases", stdin=f"{LIST_MANAGER}\n")
        whole_host.run(
            f"postconf -e mailbox_transport=lmtp:inet:127.0.0.1:{LMTP_PORT}"
            " local_recipient_maps= default_transport=discard:"
        )
        whole_host.run("postfix start")
        yield whole_host


def record(host: WholeHost, verb: str = "list --json") -> str:
    """Return what a command prints of the one record, the probe aside."""
    lines = host.output("postfix-archive list --json").splitlines()
    [line] = [each for each in lines if "archive-probe.invalid" not in each]
    if verb == "list --json":
        return line
    return host.output(f"postfix-archive {verb} {json.loads(line)['id']}")


def test_dovecot_s_replies_are_the_outcomes_and_a_list_post_is_a_supplement(
    host: WholeHost, wheels: Path
) -> None:
    assert "Doctor:     OK: " in host.output(install(wheels, "MODE=native"))
    # What comes back before it is archived itself would be a record of its own.
    host.run("postconf -e defer_transports=local && postfix reload")
    host.send("post", BOB, FULL, NOBODY, LIST)
    host.wait("postfix-archive list --json | grep -q no-such-user", "it is archived")
    host.run("postconf -e defer_transports= && postfix reload")
    host.wait_for_empty_queue()

    host.run("postfix-archive outcomes --once")
    fields = json.loads(record(host))
    assert sorted(fields["recipients"]) == sorted([BOB, FULL, NOBODY, LIST])
    assert fields["outcomes"] == {"delivered": 2, "failed": 2}
    [again] = fields["passes"]
    assert again["sender"] == f"list-bounces@{HOST}"
    assert again["recipients"] == [CAROL]
    assert again["outcomes"] == {"delivered": 1}
    shown = record(host, "show")
    for reply in ("5.1.1", "5.2.2"):
        assert reply in shown
    for name in ("bob", "carol"):
        mailbox = f"/var/lib/mailboxes/{name}/new"
        assert host.output(f"cat {mailbox}/* | grep -c '^Subject: post'") == "1"
    host.run("postfix-archive verify")
