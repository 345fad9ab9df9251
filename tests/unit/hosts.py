"""Hosts of many kinds as configurations, and what an installation makes of them."""

from __future__ import annotations

from dataclasses import replace

from postfix_archive.install import install_plan
from postfix_archive.install.filter_routes import Change, Setup
from postfix_archive.postfix import configuration, reference
from postfix_archive.postfix.configuration import Configuration

WISH = Setup("legal@example.com", "/usr/local/lib/postfix-archive")
STOCK = "smtp inet n - y - - smtpd\npickup unix n - y 60 1 pickup\n"
AMAVIS = "smtp-amavis:[127.0.0.1]:10024"
BACK = (
    "127.0.0.1:10025 inet n - n - - smtpd -o content_filter="
    " -o receive_override_options=no_header_body_checks\n"
)


def host(main: dict[str, str] | None = None, master: str = STOCK) -> Configuration:
    known = {"mail_version": "3.7.11"}
    services = configuration.parse_services(master)
    return Configuration("/etc/postfix", main or {}, known, services)


def plan(found: Configuration, wish: Setup = WISH) -> tuple[Change, ...]:
    given: dict[str, str] = {}
    for text in reference.master_cf_texts(wish.mode):
        given.update(reference.parse_entries(text))
    return install_plan.plan_changes(found, wish, given)


def after(found: Configuration, wish: Setup = WISH) -> Configuration:
    """What the configuration is when the plan is carried out."""
    main = dict(found.main)
    lines = {each.key: each for each in found.services}
    for change in plan(found, wish):
        assert change.after is not None
        if change.kind == "main":
            main[change.name] = change.after
        elif change.kind == "service":
            lines[change.name] = configuration.parse_services(change.after)[0]
        else:
            key, _, option = change.name.rpartition("/")
            old = lines[key]
            lines[key] = replace(old, options={**old.options, option: change.after})
    return replace(found, main=main, services=tuple(lines.values()))


KINDS = {
    "stock": host(),
    "amavis": host({"content_filter": AMAVIS}, STOCK + BACK),
    "submission": host(
        {"content_filter": AMAVIS},
        STOCK
        + BACK
        + "submission inet n - n - - smtpd -o content_filter=dk:[::1]:99\n",
    ),
    "a port without a filter": host(
        {}, STOCK + "127.0.0.1:2600 inet n - n - - smtpd -o content_filter=\n"
    ),
    "mapped elsewhere": host(
        {"content_filter": AMAVIS, "receive_override_options": "no_address_mappings"},
        STOCK + BACK,
    ),
    "maps": host({"transport_maps": "hash:/etc/postfix/transport, pcre:/x"}),
    "simple filter": host(
        {},
        "smtp inet n - n - - smtpd -o content_filter=filter:dummy\n"
        "pickup unix n - n 60 1 pickup\nfilter unix - n n - 10 pipe argv=/f\n",
    ),
}
