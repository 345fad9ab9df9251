"""The text of a new archive.cf: every setting, explained, with its default.

Used by front/install. A setting without a meaning here fails a test.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from postfix_archive.core import settings

WIDTH = 78
HEADING = """\
# Settings of postfix_archive, in main.cf's syntax; archive.cf(5) and
# docs/settings.md have more. What is commented out is the default.
# What Postfix itself must expand (archive, archive_next_filter) is in main.cf.
"""
# In the order of the ports that an installation takes.
ADDRESSES = (
    "archive_handback_address",
    "archive_capsule_address",
    "archive_copy_address",
    "archive_relay_address",
    "archive_refused_address",
)
MEANINGS = {
    "archive_capsule_address": "The port for capsules, see master.cf.",
    "archive_copy_address": "The port for archive copies that leave as mail.",
    "archive_delivery": (
        "Where copies go: into the store, to the archive address as mail, or both. With"
        " both, mail leaves only after the store has it."
    ),
    "archive_fallback_directory": (
        "Where copies go while the store cannot take them: on another file system, for"
        " the archive's user alone. postfix-archive return brings them back."
    ),
    "archive_from": "From: of copies and capsules.",
    "archive_handback_address": "The port on which Postfix takes mail back.",
    "archive_journal_recipients_per_copy": (
        "Deal a long list of recipients out over several mailed copies of at most so"
        " many, for importers with small buffers. 0: one copy."
    ),
    "archive_key_file": (
        "The site keys, readable by the archive's user alone. Back them up: all proofs"
        " depend on them. Several hosts may share them."
    ),
    "archive_local_clients": (
        "Clients whose headers Postfix completes and maps at hand-back. Keep it equal"
        " to main.cf's local_header_rewrite_clients."
    ),
    "archive_outcome_mail": (
        "yes: when nothing more can become of a message, its outcome report goes to the"
        " archive address, too. The store has it in any case."
    ),
    "archive_prometheus_file": (
        "Where the timer writes the numbers of postfix-archive status for the textfile"
        " collector of Prometheus' node_exporter; ends in .prom. Empty: nowhere."
    ),
    "archive_refused_address": "The QMQP port for addresses that SMTP cannot carry.",
    "archive_relay_address": "The port for copies where no store keeps them.",
    "archive_report_format": (
        "Form of mailed copies: hybrid, dsn, journal, message. The store always keeps"
        " hybrid copies."
    ),
    "archive_rescue_after": (
        "How long a copy may wait in Postfix's queue before postfix-archive rescue"
        " takes it into archive_fallback_directory."
    ),
    "archive_sender": "Envelope sender of mailed copies; empty is the null sender.",
    "archive_spool_directory": "Where messages over 4 MB are set aside meanwhile.",
    "archive_stamp_lifetime": (
        "With archive_delivery = mail: how long a valid stamp spares a second copy."
    ),
    "archive_store_directory": "The store.",
    "archive_tables": (
        "Source tables with ARCHIVE actions, type:path, the path ending in .in; after a"
        " change run: postfix-archive tables"
    ),
    "archive_time_limit": (
        "When a run gives up and defers; below pipe(8)'s time limits in main.cf."
    ),
    "archive_wait_for_outcome": (
        "How long a copy waits for the outcome of its message, so that it tells it. 0:"
        " not at all."
    ),
    "archive_write_through_time_limit": (
        "How long the stamp filter waits for the store before it gives the copy to"
        " Postfix's queue and lets mail go on. 0: not at all, each copy is queued."
    ),
    "mail_owner": "As in main.cf.",
    "myhostname": "As in main.cf: needed to know Postfix's own Received: lines.",
}


def archive_cf(values: Mapping[str, str]) -> str:
    """Return the text of an archive.cf that sets these values and explains all."""
    text = HEADING
    for name in ("myhostname", *settings.DEFAULTS):
        told = textwrap.fill(
            MEANINGS[name], WIDTH, initial_indent="# ", subsequent_indent="# "
        )
        default = settings.DEFAULTS.get(name, "")
        is_set = name in values
        line = f"{name} = {values[name] if is_set else default}".rstrip()
        text += f"\n{told}\n{'' if is_set else '#'}{line}\n"
    return text


def corrected(text: str, values: Mapping[str, str]) -> str:
    """Return the text of an archive.cf that sets these values; all else stays."""
    missing = dict(values)
    done: list[str] = []
    dropping = False
    for line in text.splitlines(keepends=True):
        if not line.strip() or line.lstrip().startswith("#"):
            done.append(line)
            continue
        name = line.partition("=")[0].strip()
        if line[0] not in " \t":
            dropping = name in values
            if name in missing:
                done.append(f"{name} = {missing.pop(name)}\n")
        if not dropping:
            done.append(line)
    return _filled("".join(done), missing)


def _filled(text: str, missing: Mapping[str, str]) -> str:
    """Set what was not set: where it stands as a comment, else at the end."""
    for name, value in missing.items():
        lines = text.splitlines(keepends=True)
        told = [each for each in lines if each.startswith(f"#{name} =")]
        line = f"{name} = {value}\n"
        if told:
            lines[lines.index(told[-1])] = line
        else:
            lines[-1:] = [f"{each.rstrip()}\n" for each in lines[-1:]] + [line]
        text = "".join(lines)
    return text
