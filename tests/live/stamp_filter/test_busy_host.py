"""A host with much on it already: postscreen, submission, maps, checks, milters."""

from __future__ import annotations

from pathlib import Path

import pytest

from whole_host import HOST, WholeHost

pytestmark = pytest.mark.live
SERVICES = (
    "smtp inet n - y - 1 postscreen",
    "smtpd pass - - y - - smtpd",
    "dnsblog unix - - y - 0 dnsblog",
    "tlsproxy unix - - y - 0 tlsproxy",
    "submission inet n - y - - smtpd -o syslog_name=postfix/submission"
    " -o smtpd_tls_security_level=may -o smtpd_sasl_auth_enable=yes"
    " -o smtpd_client_restrictions=$mua_client_restrictions"
    " -o smtpd_helo_restrictions= -o smtpd_sender_restrictions="
    " -o smtpd_recipient_restrictions="
    " -o smtpd_relay_restrictions=permit_mynetworks,reject"
    " -o milter_macro_daemon_name=ORIGINATING -o cleanup_service_name=subcleanup",
    "smtps inet n - y - - smtpd -o smtpd_tls_wrappermode=yes"
    " -o { smtpd_relay_restrictions = permit_sasl_authenticated, reject }"
    " -o receive_override_options=no_header_body_checks",
    "subcleanup unix n - y - 0 cleanup -o header_checks=regexp:/etc/postfix/hidden",
)
FILES = {
    "hidden": "/^X-Mailer:/ IGNORE\n",
    "virtual": "@example.org  @example.com\ninfo@example.com  bob, carol\n",
    "transport": "example.net smtp:[192.0.2.1]\n",
    "checks": "/^Subject: .*pills/ DISCARD\n/filter this/ WARN see FILTER_README\n",
}
MAIN = {
    "virtual_alias_maps": "hash:/etc/postfix/virtual",
    "virtual_alias_domains": "example.org, example.com",
    "transport_maps": "hash:/etc/postfix/transport",
    "relayhost": "[192.0.2.7]:587",
    "smtpd_milters": "inet:127.0.0.1:11332",
    "non_smtpd_milters": "$smtpd_milters",
    "milter_default_action": "accept",
    "sender_canonical_maps": "inline:{ {carol@example.org = c@example.org} }",
    "header_checks": "pcre:/etc/postfix/checks",
    "mua_client_restrictions": "permit_mynetworks,reject",
    "smtpd_sender_restrictions": "check_sender_access inline:{ {bad.org = REJECT} }",
    "smtpd_recipient_restrictions": "permit_mynetworks, reject_unauth_destination",
    "smtpd_data_restrictions": "reject_unauth_pipelining",
    "smtpd_helo_required": "yes",
    "smtpd_client_connection_rate_limit": "30",
    "message_size_limit": "52428800",
    "recipient_delimiter": "+",
    "local_header_rewrite_clients": "permit_mynetworks permit_sasl_authenticated",
    "mynetworks": "127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128",
    "always_add_missing_headers": "yes",
}


def test_a_busy_host_is_archived_and_sound(
    stock_host: Path, release: Path, wheels: Path
) -> None:
    with WholeHost(stock_host, release) as host:
        host.run("useradd --no-create-home carol")
        for name, text in FILES.items():
            host.run(f"cat > /etc/postfix/{name}", stdin=text)
        host.run("cd /etc/postfix && postmap virtual transport")
        for line in SERVICES:
            host.run(f"postconf -M '{'/'.join(line.split()[:2])}={line}'")
        for name, value in MAIN.items():
            host.run(f"postconf -e '{name}={value}'")
        host.run("postfix start")
        before = host.configuration()
        host.run(f"make install ARCHIVE=legal@{HOST} WHEELS={wheels}")
        assert host.output("postfix check 2>&1") == ""
        assert host.output("postfix-archive doctor").startswith("OK: ")

        for port in (25, 587):
            host.send(f"by port {port}", "info+x@example.org", port=port)
        host.wait_for_empty_queue()
        listing = host.output("postfix-archive list | grep -v archive-probe")
        assert listing.count("-> info+x@example.org") == 2
        for name in ("bob", "carol"):
            assert host.output(f"grep -c 'Subject: by port' /var/mail/{name}") == "2"

        host.run("make uninstall")
        assert host.configuration() == before
