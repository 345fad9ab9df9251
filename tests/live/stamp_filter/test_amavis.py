"""A content filter that was there before: the real amavisd-new, on a whole host."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from whole_host import HOST, WholeHost

pytestmark = pytest.mark.live
CAROL = f"carol@{HOST}"
BOB = f"bob@{HOST}"
FILTER = "smtp-amavis:[127.0.0.1]:10024"
IS_AMAVIS_READY = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/10024' 2>/dev/null"
AMAVIS_RECEIVED = ", port 10024)"  # in the Received: line of amavisd-new
USER_CONF = f"""\
use strict;
$myhostname = '{HOST}';
$inet_socket_bind = '127.0.0.1';
$inet_socket_port = 10024;
@local_domains_acl = (1);
@bypass_virus_checks_maps = (1);
@bypass_spam_checks_maps = (1);
$enable_db = 0;
$enable_zmq = 0;
$max_servers = 2;
$pid_file = '/var/lib/amavis/amavisd.pid';
$lock_file = '/var/lib/amavis/amavisd.lock';
1;
"""
# As /usr/share/doc/amavisd-new/README.postfix has it.
TRANSPORT = (
    "smtp-amavis unix - - n - 2 smtp -o smtp_data_done_timeout=1200"
    " -o smtp_send_xforward_command=yes -o disable_dns_lookups=yes -o max_use=20"
)
REINJECTION_ENTRY = (
    "127.0.0.1:10025 inet n - n - - smtpd -o content_filter="
    " -o local_recipient_maps= -o relay_recipient_maps="
    " -o smtpd_restriction_classes= -o smtpd_delay_reject=no"
    " -o smtpd_client_restrictions=permit_mynetworks,reject"
    " -o smtpd_helo_restrictions= -o smtpd_sender_restrictions="
    " -o smtpd_recipient_restrictions=permit_mynetworks,reject"
    " -o smtpd_data_restrictions=reject_unauth_pipelining"
    " -o smtpd_end_of_data_restrictions= -o mynetworks=127.0.0.0/8"
    " -o smtpd_error_sleep_time=0 -o smtpd_soft_error_limit=1001"
    " -o smtpd_hard_error_limit=1000 -o smtpd_client_connection_count_limit=0"
    " -o smtpd_client_connection_rate_limit=0 -o local_header_rewrite_clients="
    " -o receive_override_options="
    "no_header_body_checks,no_unknown_recipient_checks,no_milters"
    " -o smtpd_authorized_xforward_hosts=127.0.0.0/8"
)
# Tags are for local recipients. Capture recipients are local only if amavis is told so.
TAG_CONF = """\
use strict;
@local_domains_acl = ( %s );
$subject_tag_maps_by_ccat{+CC_BADH} = [ '***BAD*** ' ];
1;
"""
HERE = f"'.{HOST}'"
HERE_AND_CAPTURE = f"{HERE}, 'archive-request.invalid'"
TAGGED = "Subject: ***BAD*** twice"
BAD_HEADER = "Subject: twice\nSubject: twice\n\nhello\n"
BANNED = """\
Subject: banned
MIME-Version: 1.0
Content-Type: application/octet-stream; name="x.exe"
Content-Disposition: attachment; filename="x.exe"

MZ
"""
MORE_SERVICES = (
    "2525 inet n - n - - smtpd -o smtpd_client_restrictions=permit_mynetworks,reject"
    " -o smtpd_banner=two"
)


@pytest.fixture
def host(stock_host: Path, release: Path) -> Iterator[WholeHost]:
    """A host on which amavisd-new runs and nothing goes to it yet."""
    with WholeHost(stock_host, release) as whole_host:
        whole_host.run("useradd --no-create-home carol")
        whole_host.run("cat > /etc/amavis/conf.d/50-user", stdin=USER_CONF)
        start_amavis(whole_host)
        for line in (TRANSPORT, REINJECTION_ENTRY, MORE_SERVICES):
            key = "/".join(line.split()[:2])
            whole_host.run(f"postconf -M '{key}={line}'")
        yield whole_host


def start_amavis(host: WholeHost) -> None:
    host.run("amavisd start >/dev/null 2>&1 || amavisd-new start >/dev/null 2>&1")
    host.wait(IS_AMAVIS_READY, "amavisd-new answers")


@pytest.fixture(params=["pipe", "lmtp"])
def mode(request: pytest.FixtureRequest) -> str:
    """Each mode."""
    return str(request.param)


def stop_amavis(host: WholeHost) -> None:
    host.run("kill $(cat /var/lib/amavis/amavisd.pid)")
    host.wait(f"! {IS_AMAVIS_READY}", "amavisd-new has ended")


def raise_recipient_limit(host: WholeHost) -> None:
    """As native mode needs it."""
    host.run("postconf -e smtp-amavis_destination_recipient_limit=2000")


def install(host: WholeHost, wheels: Path, mode: str, options: str = "") -> str:
    variables = f"MODE={mode} {options}"
    return host.output(f"make install ARCHIVE=legal@{HOST} WHEELS={wheels} {variables}")


def records(host: WholeHost) -> list[dict[str, Any]]:
    """What is archived, the probes aside."""
    lines = host.output("postfix-archive list --json").splitlines()
    return [json.loads(each) for each in lines if "archive-probe.invalid" not in each]


def original(host: WholeHost, record: dict[str, Any]) -> str:
    return host.output(f"postfix-archive show --original {record['id']}")


def mailbox(host: WholeHost, name: str) -> str:
    return host.output(f"cat /var/mail/{name} 2>/dev/null || true")


def test_the_filter_comes_behind_the_archive(
    host: WholeHost, wheels: Path, mode: str
) -> None:
    host.run(f"postconf -e content_filter={FILTER} && postfix start")
    before = host.configuration()
    install(host, wheels, mode)
    assert host.output("postconf -h archive_next_filter") == FILTER
    assert "OK: " in host.output("postfix-archive doctor")

    host.send("one", BOB, CAROL)
    host.wait_for_empty_queue()
    for name in ("bob", "carol"):
        assert mailbox(host, name).count("Subject: one") == 1
        assert AMAVIS_RECEIVED in mailbox(host, name)
    [record] = records(host)
    assert sorted(record["recipients"]) == [BOB, CAROL]
    assert AMAVIS_RECEIVED not in original(host, record)

    host.run("make uninstall")
    assert host.configuration() == before
    host.send("two")
    host.wait_for_empty_queue()
    assert mailbox(host, "bob").count(AMAVIS_RECEIVED) == 2


@pytest.mark.parametrize("mode", ["pipe", "lmtp", "native"])
def test_the_archive_comes_behind_the_filter(
    host: WholeHost, wheels: Path, mode: str
) -> None:
    raise_recipient_limit(host)
    host.run(f"postconf -e content_filter={FILTER} && postfix start")
    before = host.configuration()
    position = "" if mode == "native" else "ARCHIVE_POSITION=after"
    install(host, wheels, mode, position)
    assert host.output("postconf -h content_filter") == FILTER
    assert "OK: " in host.output("postfix-archive doctor")

    host.send("one", BOB, CAROL)
    host.wait_for_empty_queue()
    for name in ("bob", "carol"):
        assert mailbox(host, name).count("Subject: one") == 1
    [record] = records(host)
    assert sorted(record["recipients"]) == [BOB, CAROL]
    assert AMAVIS_RECEIVED in original(host, record)
    assert "nothing to change" in install(host, wheels, mode, position)

    stop_amavis(host)  # it keeps a connection, for which uninstall would wait
    host.run("make uninstall")
    assert host.configuration() == before


def test_filters_of_some_services_stay_theirs(
    host: WholeHost, wheels: Path, mode: str
) -> None:
    host.run(f"postconf -P 2525/inet/content_filter={FILTER} && postfix start")
    before = host.configuration()
    options = host.output("postconf -P 2525/inet/smtpd_banner 127.0.0.1:10025/inet")
    install(host, wheels, mode)
    after = host.output("postconf -P 2525/inet/smtpd_banner 127.0.0.1:10025/inet")
    assert after == options
    assert "OK: " in host.output("postfix-archive doctor")

    host.send("by the filter", port=2525)
    host.wait_for_empty_queue()
    assert mailbox(host, "bob").count(AMAVIS_RECEIVED) == 1
    host.send("without")
    host.wait_for_empty_queue()
    assert mailbox(host, "bob").count(AMAVIS_RECEIVED) == 1
    assert mailbox(host, "bob").count("hello") == 2
    archived = records(host)
    assert len(archived) == 2
    assert not any(AMAVIS_RECEIVED in original(host, each) for each in archived)

    host.run("make uninstall")
    assert host.configuration() == before


def test_a_service_without_the_filter_stays_without(
    host: WholeHost, wheels: Path, mode: str
) -> None:
    host.run(f"postconf -e content_filter={FILTER}")
    host.run("postconf -P 2525/inet/content_filter= && postfix start")
    install(host, wheels, mode)
    assert "OK: " in host.output("postfix-archive doctor")
    host.send("without", port=2525)
    host.wait_for_empty_queue()
    assert AMAVIS_RECEIVED not in mailbox(host, "bob")
    host.send("by the filter")
    host.wait_for_empty_queue()
    assert mailbox(host, "bob").count(AMAVIS_RECEIVED) == 1
    assert len(records(host)) == 2


@pytest.mark.parametrize("mode", ["pipe", "lmtp", "native"])
def test_a_filter_that_is_down_loses_and_doubles_nothing(
    host: WholeHost, wheels: Path, mode: str
) -> None:
    raise_recipient_limit(host)
    host.run(f"postconf -e content_filter={FILTER} minimal_backoff_time=1s")
    host.run("postconf -e maximal_backoff_time=2s queue_run_delay=1s && postfix start")
    install(host, wheels, mode)
    host.wait_for_empty_queue()
    stop_amavis(host)
    host.send("one")
    host.wait(
        "grep -q 'status=deferred .*10024: Connection refused' /var/log/postfix.log",
        "the message waits for the filter",
    )
    if mode == "native":  # which archives what comes out of the filter
        assert not records(host)
    else:
        host.wait(
            "postfix-archive list --json | grep -v archive-probe | grep -q archived",
            "the message in the archive",
        )
    assert mailbox(host, "bob") == ""
    start_amavis(host)
    host.wait_for_empty_queue()
    assert mailbox(host, "bob").count("Subject: one") == 1
    assert AMAVIS_RECEIVED in mailbox(host, "bob")
    assert len(records(host)) == 1
    assert "status=bounced" not in host.log()


def test_a_service_that_maps_behind_the_filter_alone_maps_there_once(
    host: WholeHost, wheels: Path, mode: str
) -> None:
    """The other service maps at both hops, as before: always_bcc counts it."""
    host.run(f"postconf -e content_filter={FILTER} always_bcc={CAROL}")
    override = "receive_override_options=no_address_mappings"
    host.run(f"postconf -P smtp/inet/{override} && postfix start")
    before = host.configuration()

    def copies_of(subject: str, port: int) -> int:
        host.send(subject, port=port)
        host.wait_for_empty_queue()
        assert mailbox(host, "bob").count(f"Subject: {subject}\n") == 1
        return mailbox(host, "carol").count(f"Subject: {subject}\n")

    assert (copies_of("a", 25), copies_of("b", 2525)) == (1, 2)
    install(host, wheels, mode)
    assert "OK: " in host.output("postfix-archive doctor")
    assert (copies_of("c", 25), copies_of("d", 2525)) == (1, 2)
    recipients = [each["recipients"] for each in records(host)]
    assert recipients[0] == [BOB]  # what the client sent, before mapping
    host.run("make uninstall")
    assert host.configuration() == before


def test_native_mode_archives_what_the_filter_passes_on(
    host: WholeHost, wheels: Path
) -> None:
    """Not what it discards; once for all, as the capture recipients get it."""
    host.run(f"postconf -e content_filter={FILTER} && postfix start")
    command = f"make install ARCHIVE=legal@{HOST} WHEELS={wheels} MODE=native"
    refused = host.run(command, is_failure_expected=True).stderr
    [cure] = re.findall(r"run (postconf -e '.*')", refused)
    host.run(cure)
    install(host, wheels, "native")
    sendmail = f"sendmail -i -f alice@example.org {BOB} {CAROL}"

    host.run(sendmail, stdin=BANNED)
    host.wait_for_empty_queue()
    host.run("grep -q '250 2.7.0 Ok, discarded' /var/log/postfix.log")
    assert not records(host) and not mailbox(host, "bob")

    for local_domains in (HERE, HERE_AND_CAPTURE):
        stop_amavis(host)
        tag_conf = TAG_CONF % local_domains
        host.run("cat > /etc/amavis/conf.d/60-tag", stdin=tag_conf)
        start_amavis(host)
        host.run(sendmail, stdin=BAD_HEADER)
        host.wait_for_empty_queue()
        *_, record = records(host)
        assert sorted(record["recipients"]) == [BOB, CAROL]
        content = original(host, record)
        assert AMAVIS_RECEIVED in content
        assert (TAGGED in content) == (local_domains == HERE_AND_CAPTURE)
    assert len(records(host)) == mailbox(host, "bob").count("\nhello") == 2
    host.run("postfix-archive outcomes --once")
    # Where amavis splits the message, as the first time, the follower knows no outcome.
    assert records(host)[-1]["outcomes"] == {"delivered": 2}


def test_mail_of_a_before_queue_filter_has_one_record_in_native_mode(
    host: WholeHost, wheels: Path
) -> None:
    host.run("postconf -P smtp/inet/smtpd_proxy_filter=127.0.0.1:10024")
    host.run("postfix start")
    install(host, wheels, "native")
    assert "OK: " in host.output("postfix-archive doctor")
    host.send("one", BOB, CAROL)
    host.run(
        f"sendmail -f alice@example.org {BOB}", stdin="Subject: by hand\n\nhello\n"
    )
    host.wait_for_empty_queue()
    for name, count in (("bob", 2), ("carol", 1)):
        assert mailbox(host, name).count("\nhello") == count
    assert sorted(sorted(e["recipients"]) for e in records(host)) == [
        [BOB],
        [BOB, CAROL],
    ]
    [filtered] = [e for e in records(host) if len(e["recipients"]) == 2]
    assert AMAVIS_RECEIVED in original(host, filtered)
