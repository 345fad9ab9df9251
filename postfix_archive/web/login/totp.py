"""One-time codes of local users after the password (TOTP, RFC 6238).

A code counts in the 30 seconds before and after its own, and once (RFC 6238 5.2).
Recovery codes stand in for a lost device, each once; the database has only their
SHA-256, since they are random. Raises UserInvalid and WebDatabaseFailed.
"""

from __future__ import annotations

import base64
import hmac
import io
import secrets
import sqlite3
import time

import pyotp
import segno

from postfix_archive.errors import UserInvalid
from postfix_archive.web import sessions
from postfix_archive.web.language import gettext as _
from postfix_archive.web.login import local_users

STEP = 30  # seconds
WINDOW = (-1, 0, 1)  # steps
RECOVERY_CODES = 10
RECOVERY_SIZE = 10  # bytes: 80 bits
CODE_LIMIT = 64  # characters


def new_secret() -> str:
    """Return a secret in Base32, as authenticator programs take it."""
    return pyotp.random_base32()


def image(name: str, secret: str, issuer: str) -> bytes:
    """Return the QR code of a secret as SVG."""
    uri = pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=issuer)
    file = io.BytesIO()
    segno.make(uri, micro=False).save(file, kind="svg", scale=5, light="white")
    return file.getvalue()


def enable(
    db: sqlite3.Connection, name: str, secret: str, code: str, *, changed_by: str
) -> list[str]:
    """Demand codes of a user from now on; return new recovery codes.

    code: the first one, which shows that the device has the secret. Raises UserInvalid.
    """
    step = _step_of(secret, code, 0)
    if not step:
        raise UserInvalid(
            _("this is not the code of now: see that the clock of the device is right")
        )
    db.execute(
        "UPDATE local_user SET totp_secret = ?, totp_step = ? WHERE name = ?",
        (secret, step, name),
    )
    codes = [_recovery_code() for _ in range(RECOVERY_CODES)]
    db.execute("DELETE FROM recovery_code WHERE name = ?", (name,))
    db.executemany(
        "INSERT INTO recovery_code VALUES (?, ?)",
        [(name, sessions.digest(_plain(each))) for each in codes],
    )
    local_users.note(db, name, changed_by, "one-time codes set up")
    return codes


def disable(db: sqlite3.Connection, name: str, *, changed_by: str) -> None:
    """Demand no codes of a user any more. Raises UserInvalid if there is none."""
    local_users.find(db, name)
    db.execute(
        "UPDATE local_user SET totp_secret = '', totp_step = 0 WHERE name = ?", (name,)
    )
    db.execute("DELETE FROM recovery_code WHERE name = ?", (name,))
    local_users.note(db, name, changed_by, "one-time codes taken away")


def use(db: sqlite3.Connection, name: str, code: str) -> bool:
    """Tell whether a code is right, and let it be right no more."""
    plain = _plain(code)
    used = db.execute(
        "DELETE FROM recovery_code WHERE name = ? AND code_sha256 = ?",
        (name, sessions.digest(plain)),
    )
    if used.rowcount:
        return True
    row = db.execute(
        "SELECT totp_secret, totp_step FROM local_user WHERE name = ?", (name,)
    ).fetchone()
    step = _step_of(row["totp_secret"], plain, row["totp_step"]) if row else 0
    if not step:
        return False
    # Of two requests at the same time one changes the row.
    changed = db.execute(
        "UPDATE local_user SET totp_step = ? WHERE name = ? AND totp_step < ?",
        (step, name, step),
    )
    return changed.rowcount == 1


def recovery_count(db: sqlite3.Connection, name: str) -> int:
    """Return how many recovery codes are left."""
    [count] = db.execute(
        "SELECT count(*) FROM recovery_code WHERE name = ?", (name,)
    ).fetchone()
    return int(count)


def _step_of(secret: str, code: str, last: int) -> int:
    """Return the step after the last whose code this is, 0 if there is none."""
    if not secret:
        return 0
    generator, now = pyotp.TOTP(secret), int(time.time()) // STEP
    plain = _plain(code).encode()
    for step in (now + offset for offset in WINDOW):
        is_code = hmac.compare_digest(generator.generate_otp(step).encode(), plain)
        if is_code and step > last:
            return step
    return 0


def _recovery_code() -> str:
    text = base64.b32encode(secrets.token_bytes(RECOVERY_SIZE)).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _plain(code: str) -> str:
    """Return a code without what people put between."""
    return "".join(filter(str.isalnum, code[:CODE_LIMIT])).lower()
