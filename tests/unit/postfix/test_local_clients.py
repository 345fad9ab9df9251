"""local_header_rewrite_clients of main.cf in the words of archive.cf."""

from __future__ import annotations

import pytest

from postfix_archive.postfix import local_clients
from postfix_archive.postfix.configuration import Configuration

DEFAULT_CLIENTS = ("127.0.0.0/8", "::1")
NETWORKS = "127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128"


@pytest.mark.parametrize(
    ("setting", "networks", "expected_clients", "ignored"),
    [
        ("permit_inet_interfaces", NETWORKS, (), ()),
        ("", NETWORKS, (), ()),
        ("permit_mynetworks", NETWORKS, (), ()),
        (
            "permit_mynetworks",
            "192.0.2.0/24, 10.1.2.3",
            ("192.0.2.0/24", "10.1.2.3"),
            (),
        ),
        ("permit_mynetworks", "[2001:db8::25]/128", ("2001:db8::25",), ()),
        ("permit_mynetworks", "[2001:db8::]/64", (), ("[2001:db8::]/64",)),
        ("permit_mynetworks", "!192.0.2.1", (), ("!192.0.2.1",)),
        (
            "permit_sasl_authenticated permit_tls_all_clientcerts",
            NETWORKS,
            ("permit_sasl_authenticated",),
            ("permit_tls_all_clientcerts",),
        ),
    ],
)
def test_values_of_local_header_rewrite_clients(
    setting: str,
    networks: str,
    expected_clients: tuple[str, ...],
    ignored: tuple[str, ...],
) -> None:
    parameters = {"local_header_rewrite_clients": setting, "mynetworks": networks}
    config = Configuration("/etc/postfix", {}, parameters, ())
    assert local_clients.from_configuration(config) == (
        (*DEFAULT_CLIENTS, *expected_clients),
        ignored,
    )
