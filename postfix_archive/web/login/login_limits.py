"""Slows down who guesses passwords and codes; locks nobody out.

After some failures each further attempt waits, twice as long as the one before and at
most MAX_DELAY. Failures count for the name, and for the address of the client. A name
has a count of its own for each address from which it has logged in lately, so that
nobody who guesses elsewhere delays its owner. Names that there are and names that there
are not count alike. Raises LoginDelayed and WebDatabaseFailed.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import sqlite3
import time

from postfix_archive.errors import LoginDelayed
from postfix_archive.web.language import gettext as _

NAME_FAILURES, ADDRESS_FAILURES = 5, 20  # that nobody waits for
MAX_DELAY = 60.0  # seconds
FAILURE_TIME = 3600.0  # seconds for which a failure counts
LOGIN_TIME = 90 * 86400.0  # seconds for which an address is one of a name
IPV6_PREFIX = 64  # bits: one client has all addresses of such a network


def begin(db: sqlite3.Connection, name: str, client: str) -> None:
    """Count an attempt as a failure, until succeeded() takes it back.

    The caller commits before it checks anything, so that attempts at the same time
    count. Raises LoginDelayed.
    """
    now = time.time()
    db.execute("BEGIN IMMEDIATE")
    db.execute("DELETE FROM login_failure WHERE until < ?", (now - FAILURE_TIME,))
    subjects = _subjects(db, name, client)
    wait = max(_until(db, each) for each in subjects) - now
    if wait > 0:
        raise LoginDelayed(
            _("too many attempts: try again in %(seconds)d seconds")
            % {"seconds": math.ceil(wait)},
            math.ceil(wait),
        )
    for each, free in subjects.items():
        count, *_rest = db.execute(
            "INSERT INTO login_failure VALUES (?, 1, ?)"
            " ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count",
            (each, now),
        ).fetchone()
        db.execute(
            "UPDATE login_failure SET until = ? WHERE subject = ?",
            (now + delay(count, free), each),
        )


def delay(count: int, free: int) -> float:
    """Return the seconds to wait after a number of failures."""
    return 0.0 if count < free else min(MAX_DELAY, 2.0 ** min(count - free, 10))


def succeeded(db: sqlite3.Connection, name: str, client: str) -> None:
    """Forget the failures of the name, and one of the address; note the address."""
    by_name, by_address = _subjects(db, name, client)
    db.execute("DELETE FROM login_failure WHERE subject = ?", (by_name,))
    db.execute(
        "UPDATE login_failure SET count = max(count - 1, 0) WHERE subject = ?",
        (by_address,),
    )
    now = time.time()
    db.execute("DELETE FROM login_address WHERE time < ?", (now - LOGIN_TIME,))
    db.execute(
        "INSERT OR REPLACE INTO login_address VALUES (?, ?, ?)",
        (_digest(name), network(client), now),
    )


def network(client: str) -> str:
    """Return what is one client: an IPv4 address, or a network of IPv6."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.version == 4:
        return client
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


def _subjects(db: sqlite3.Connection, name: str, client: str) -> dict[str, int]:
    """Return what failures count for, and how many are free: name, then address."""
    net = network(client)
    key = (_digest(name), net)
    is_known = db.execute(
        "SELECT 1 FROM login_address WHERE name_sha256 = ? AND network = ?", key
    ).fetchone()
    by_name = " ".join(key) if is_known else key[0]
    return {by_name: NAME_FAILURES, net: ADDRESS_FAILURES}


def _until(db: sqlite3.Connection, subject: str) -> float:
    row = db.execute(
        "SELECT until FROM login_failure WHERE subject = ?", (subject,)
    ).fetchone()
    return float(row[0]) if row else 0.0


def _digest(name: str) -> str:
    """Return what is kept of a name: some people type their password there."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
