"""OpenLDAP of Debian on loopback, with StartTLS and a certificate of its own.

    with ldap_server.LdapServer(directory) as server:
        web_ldap_server = server.url, web_ldap_ca_file = server.certificate

It takes passwords over TLS or its Unix socket alone, as servers should. Anna is in the
group auditors, Bob and Carol in none; each user's password is PASSWORD.
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from private_postfix import free_ports

BASE = "dc=example,dc=com"
PASSWORD = "a password of the directory"
SERVICE_DN, SERVICE_PASSWORD = f"cn=web,{BASE}", "the password of the page"
GROUP = f"cn=Mail Auditors,ou=groups,{BASE}"
START_TIME = 60.0  # seconds
CONFIG = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.3.6.1.4.1.4203.666.1.1 NAME 'proxyAddresses'
  EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
objectclass ( 1.3.6.1.4.1.4203.666.3.1 NAME 'mailUser' SUP top AUXILIARY
  MAY proxyAddresses )
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile {directory}/slapd.pid
argsfile {directory}/slapd.args
TLSCertificateFile {directory}/certificate.pem
TLSCertificateKeyFile {directory}/key.pem
# What ldapi:// counts for; clear text counts for 0.
localSSF 256
security simple_bind=128
allow bind_anon_cred
database mdb
suffix "{base}"
rootdn "cn=root,{base}"
directory {directory}/data
overlay memberof
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{service}" read by * none
"""
ENTRIES = f"""\
dn: {BASE}
objectClass: dcObject
objectClass: organization
o: Example

dn: ou=people,{BASE}
objectClass: organizationalUnit

dn: ou=groups,{BASE}
objectClass: organizationalUnit

dn: {SERVICE_DN}
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: {SERVICE_PASSWORD}

dn: uid=Anna,ou=people,{BASE}
objectClass: inetOrgPerson
objectClass: mailUser
uid: Anna
cn: Anna A.
sn: A.
mail: Anna@example.net
proxyAddresses: SMTP:anna@example.net
proxyAddresses: smtp:a.a@example.net
proxyAddresses: X400:c=de;a=x;p=y;s=anna
memberOf: {GROUP}
userPassword: {PASSWORD}

dn: uid=bob,ou=people,{BASE}
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: Bob
userPassword: {PASSWORD}

dn: uid=carol,ou=people,{BASE}
objectClass: inetOrgPerson
uid: carol
cn: Carol
sn: Carol
mail: carol@example.net
userPassword: {PASSWORD}

dn: {GROUP}
objectClass: groupOfNames
cn: Mail Auditors
member: uid=Anna,ou=people,{BASE}
"""


class LdapServer:
    """A slapd(8) with some entries. A context manager."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "data").mkdir(parents=True)
        self.certificate = directory / "certificate.pem"
        self.socket = directory / "ldapi"
        self.port, self.tls_port = free_ports(2)
        self._make_certificate()
        config = CONFIG.format(directory=directory, base=BASE, service=SERVICE_DN)
        (directory / "slapd.conf").write_text(config)
        _run("slapadd", "-f", str(directory / "slapd.conf"), text=ENTRIES)

    @property
    def url(self) -> str:
        """Where it asks for StartTLS."""
        return f"ldap://localhost:{self.port}"

    @property
    def tls_url(self) -> str:
        """Where TLS begins at once."""
        return f"ldaps://localhost:{self.tls_port}"

    @property
    def socket_url(self) -> str:
        """Its Unix socket."""
        return f"ldapi://{quote(str(self.socket), safe='')}"

    def web_settings(self) -> dict[str, str]:
        """Return the settings of a page that asks this server."""
        return {
            "web_ldap_server": self.url,
            "web_ldap_ca_file": str(self.certificate),
            "web_ldap_bind_dn": SERVICE_DN,
            "web_ldap_bind_password": SERVICE_PASSWORD,
            "web_ldap_search_base": f"ou=people,{BASE}",
        }

    def _make_certificate(self) -> None:
        _run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(self.directory / "key.pem")),
            *("-out", str(self.certificate)),
        )

    def __enter__(self) -> LdapServer:
        urls = f"{self.url} {self.tls_url} {self.socket_url}"
        config = str(self.directory / "slapd.conf")
        # -d keeps it in the foreground.
        self._process = subprocess.Popen(
            [
                "slapd",
                "-d",
                "0",
                "-f",
                config,
                "-h",
                urls.replace("localhost", "127.0.0.1"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_TIME
        while not _listens(self.tls_port):
            assert self._process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _run(*command: str, text: str = "") -> None:
    done = subprocess.run(command, input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
