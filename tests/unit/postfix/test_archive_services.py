"""Claims about what our own services are, and what other services are to us."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postfix_archive.postfix import archive_services, configuration
from postfix_archive.postfix.configuration import Configuration

from unit.hosts import (
    AMAVIS,
    REINJECTION_ENTRY,
    STOCK_MASTER,
    config_after,
    make_config,
)

SMARTHOST = "smtp:[smarthost.example.com]:587"
SCAN = "2525 inet n - n - - smtpd -o content_filter=scan:[127.0.0.1]:10024\n"


def with_syslog_name(config: Configuration) -> Configuration:
    """The host as Postfix names itself in the log."""
    return replace(config, parameters={**config.parameters, "syslog_name": "postfix"})


def test_a_host_without_filters_has_none_when_the_archive_is_in() -> None:
    assert archive_services.content_filters(make_config()) == ()
    assert (
        archive_services.content_filters(with_syslog_name(config_after(make_config())))
        == ()
    )


@pytest.mark.parametrize("relay", [SMARTHOST, "archive-relay:", "archive-local:"])
def test_where_copies_are_relayed_is_no_content_filter(relay: str) -> None:
    installed = with_syslog_name(config_after(make_config()))
    main = {**installed.main, "archive_relay": relay}
    services = configuration.parse_services(
        "127.0.0.1:10029 inet n - n - - smtpd"
        " -o syslog_name=$syslog_name/archive-copy -o content_filter=$archive_relay\n"
    )
    config = replace(installed, main=main, services=(*installed.services, *services))
    assert config.value("content_filter", services[0]) == relay
    assert archive_services.content_filters(config) == ()


def test_filters_of_services_and_the_one_behind_the_archive_are_found() -> None:
    config = with_syslog_name(
        config_after(
            make_config(
                {"content_filter": AMAVIS}, STOCK_MASTER + REINJECTION_ENTRY + SCAN
            )
        )
    )
    expected = ("scan:[127.0.0.1]:10024", AMAVIS)
    assert archive_services.content_filters(config) == expected
