"""Hosts of many kinds as configurations, and what an installation makes of them."""

from __future__ import annotations

from dataclasses import replace

from postfix_archive.install import install_plan
from postfix_archive.install.filter_routes import Change, Setup
from postfix_archive.postfix import configuration, reference
from postfix_archive.postfix.configuration import Configuration

SETUP = Setup("legal@example.com", "/usr/local/lib/postfix-archive")
STOCK_MASTER = "smtp inet n - y - - smtpd\npickup unix n - y 60 1 pickup\n"
AMAVIS = "smtp-amavis:[127.0.0.1]:10024"
REINJECTION_ENTRY = (
    "127.0.0.1:10025 inet n - n - - smtpd -o content_filter="
    " -o receive_override_options=no_header_body_checks\n"
)
# Defaults of postconf(5).
CLEANUP_DEFAULTS = {
    "cleanup_service_name": "cleanup",
    "canonical_classes": "envelope_sender, envelope_recipient, header_sender,"
    " header_recipient",
    "sender_canonical_classes": "envelope_sender, header_sender",
    "recipient_canonical_classes": "envelope_recipient, header_recipient",
    "masquerade_classes": "envelope_sender, header_sender, header_recipient",
}
CLEANUP_ENTRY = (
    "cleanup unix n - y - 0 cleanup -o header_checks=pcre:/etc/postfix/header_checks\n"
)


def make_config(
    main: dict[str, str] | None = None, master: str = STOCK_MASTER
) -> Configuration:
    defaults = {"mail_version": "3.7.11", **CLEANUP_DEFAULTS}
    services = configuration.parse_services(master)
    return Configuration("/etc/postfix", main or {}, defaults, services)


def plan(config: Configuration, setup: Setup = SETUP) -> tuple[Change, ...]:
    entries: dict[str, str] = {}
    for text in reference.master_cf_texts(setup.mode):
        entries.update(reference.parse_entries(text))
    return install_plan.plan_changes(config, setup, entries)


def config_after(config: Configuration, setup: Setup = SETUP) -> Configuration:
    """What the configuration is when the plan is carried out."""
    main = dict(config.main)
    services = {each.key: each for each in config.services}
    for change in plan(config, setup):
        assert change.after is not None
        if change.kind == "main":
            main[change.name] = change.after
        elif change.kind == "service":
            services[change.name] = configuration.parse_services(change.after)[0]
        else:
            key, _, option = change.name.rpartition("/")
            old = services[key]
            services[key] = replace(old, options={**old.options, option: change.after})
    return replace(config, main=main, services=tuple(services.values()))


HOSTS = {
    "stock": make_config(),
    "amavis": make_config({"content_filter": AMAVIS}, STOCK_MASTER + REINJECTION_ENTRY),
    "submission": make_config(
        {"content_filter": AMAVIS},
        STOCK_MASTER
        + REINJECTION_ENTRY
        + "submission inet n - n - - smtpd -o content_filter=dk:[::1]:99\n",
    ),
    "a port without a filter": make_config(
        {}, STOCK_MASTER + "127.0.0.1:2600 inet n - n - - smtpd -o content_filter=\n"
    ),
    "mapped elsewhere": make_config(
        {"content_filter": AMAVIS, "receive_override_options": "no_address_mappings"},
        STOCK_MASTER + REINJECTION_ENTRY,
    ),
    "signing milter": make_config(
        {
            "canonical_maps": "hash:/etc/postfix/canonical",
            "smtpd_milters": "inet:127.0.0.1:8891",
        },
        STOCK_MASTER + CLEANUP_ENTRY,
    ),
    "signing milter for local mail, before amavis": make_config(
        {
            "masquerade_domains": "example.com",
            "non_smtpd_milters": "inet:127.0.0.1:8891",
            "content_filter": AMAVIS,
            "receive_override_options": "no_unknown_recipient_checks",
        },
        STOCK_MASTER + CLEANUP_ENTRY + REINJECTION_ENTRY,
    ),
    "mapped before the filter": make_config(
        {"content_filter": AMAVIS},
        STOCK_MASTER
        + REINJECTION_ENTRY.replace("no_header", "no_address_mappings,no_header"),
    ),
    "before-queue filter": make_config(
        {},
        STOCK_MASTER.replace("smtpd", "smtpd -o smtpd_proxy_filter=127.0.0.1:10024")
        + "127.0.0.1:10099 inet n - n - - smtpd -o smtpd_proxy_filter=\n",
    ),
    "mapped elsewhere from one port": make_config(
        {"content_filter": AMAVIS},
        STOCK_MASTER.replace(
            "smtpd", "smtpd -o receive_override_options=no_address_mappings"
        )
        + REINJECTION_ENTRY,
    ),
    "maps": make_config({"transport_maps": "hash:/etc/postfix/transport, pcre:/x"}),
    "simple filter": make_config(
        {},
        "smtp inet n - n - - smtpd -o content_filter=filter:dummy\n"
        "pickup unix n - n 60 1 pickup\nfilter unix - n n - 10 pipe argv=/f\n",
    ),
}
