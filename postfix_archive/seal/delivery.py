"""Give a seal to a third party: by mail, or by a file that it takes away.

Used by sealing. Both hold the seal's bytes as they are in the store: verify --seal-file
takes them. Twice is harmless. Raises SealFailed, PostfixUnreachable, PostfixRefused.
"""

from __future__ import annotations

import os
import stat
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate

from postfix_archive.config.settings import Settings
from postfix_archive.errors import SealFailed
from postfix_archive.message import address
from postfix_archive.message.envelope import Recipient
from postfix_archive.postfix import smtp_client
from postfix_archive.store.verifier import Seal
from postfix_archive.system import files

APPEND_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
SEAL_FILE_MODE = 0o644  # hashes and archive addresses, no mail
TEXT = """\
This is seal {number} of the mail archive on {host}, made at {time}.
It names the last line of every journal. Its SHA-256 is
{sha256}

Keep the attached file where nobody of that host can change it. Later it shows
whether the archive still has all that it had now:

    postfix-archive verify --seal-file {name}
"""


def deliver(settings: Settings, seal: Seal, content: bytes) -> str:
    """Deliver a seal as configured; return the queue id if it was mailed, else ""."""
    if settings.archive_seal_file:
        _append(settings.archive_seal_file, content)
    return _mail(settings, seal, content) if settings.archive_seal_to else ""


def _append(path: str, content: bytes) -> None:
    """Append a seal to the file, durably, unless it is the last one in it."""
    try:
        descriptor = os.open(
            path, APPEND_FLAGS | os.O_NOFOLLOW | os.O_NONBLOCK, SEAL_FILE_MODE
        )
        with open(descriptor, "r+b", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "not a regular file")
            file.seek(max(0, status.st_size - len(content)))
            end = file.read(len(content))
            if end == content:
                return
            # A line that a full disk has cut short stays damaged by itself.
            start = b"" if not end or end.endswith(b"\n") else b"\n"
            files.write_all(descriptor, start + content)
            os.fsync(descriptor)
        files.sync_directory(files.parent_directory(path), SealFailed)
    except OSError as error:
        raise SealFailed(
            f"{path}: {error.strerror}; the archive's user must be able to append to"
            " archive_seal_file"
        ) from error


def _mail(settings: Settings, seal: Seal, content: bytes) -> str:
    """Mail a seal; return its queue id.

    By the port for copies, which archives nothing: archived, each seal would be a
    reason for the next.
    """
    recipient = settings.archive_seal_to
    message = EmailMessage(policy=SMTP)
    host = address.as_text(settings.myhostname)
    message["From"] = address.as_text(settings.archive_from)
    message["To"] = address.as_text(recipient)
    message["Subject"] = f"Seal {seal.number} of the mail archive on {host}"
    message["Date"] = formatdate()
    message["Message-ID"] = f"<seal.{seal.sha256}@{host}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(
        TEXT.format(
            number=seal.number,
            host=host,
            time=seal.time,
            sha256=seal.sha256,
            name=seal.name,
        )
    )
    message.add_attachment(
        content, maintype="application", subtype="json", filename=seal.name
    )
    session = smtp_client.Session(settings.copy_port)
    try:
        session.send_envelope(
            settings.archive_sender, (Recipient(recipient),), eightbit=False
        )
        return session.send_message((message.as_bytes(),))
    finally:
        session.close()
