"""The text of a new archive.cf: every setting with a description and its default.

Used by install. A test checks that every setting has a description.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from postfix_archive.config import settings

LINE_WIDTH = 78
HEADING = """\
# Settings of postfix_archive, in the syntax of main.cf. See archive.cf(5) and
# docs/settings.md. A commented-out line shows the default. Settings that Postfix
# itself expands (archive, archive_next_filter) are in main.cf.
"""
# In the order in which an installation assigns ports.
PORT_SETTINGS = (
    "archive_handback_address",
    "archive_capsule_address",
    "archive_copy_address",
    "archive_relay_address",
    "archive_refused_address",
)
DESCRIPTIONS = {
    "archive_access_socket": (
        "Socket of the access service, which records what members of"
        " archive_reader_group read."
    ),
    "archive_capsule_address": "Port for capsules, see master.cf.",
    "archive_copy_address": "Port for mailed archive copies.",
    "archive_delivery": (
        "Where archive copies go: store, mail (to the archive address), or both. With"
        " both, a copy is mailed only after it is stored."
    ),
    "archive_fallback_directory": (
        "Directory for capsules that cannot be stored: on another file system, mode"
        " 0700, owned by the archive's user. postfix-archive fallback import archives"
        " them."
    ),
    "archive_from": "From: address of archive copies and capsules.",
    "archive_handback_address": "Port to which messages are reinjected.",
    "archive_index_directory": (
        "Directory of the index that postfix-archive search uses. Made from the store:"
        " it can be deleted and built again."
    ),
    "archive_journal_recipients_per_copy": (
        "Maximal number of recipients in one mailed copy, for importers with small"
        " buffers; longer lists are split over several copies. 0: one copy."
    ),
    "archive_key_file": (
        "File with the site keys, readable only by the archive's user. Back it up:"
        " stamps and seals depend on it. Several hosts may share it."
    ),
    "archive_local_clients": (
        "Clients whose headers Postfix rewrites at reinjection. Keep it equal to"
        " local_header_rewrite_clients in main.cf."
    ),
    "archive_local_days": (
        "Days after which a copy need not be in the store any more once it is in the"
        " bucket of archive_object_store, locked: its header stays. 0: copies stay."
    ),
    "archive_object_credentials_file": (
        "Access key and secret key for archive_object_store, as in AWS's credentials"
        " file; readable by the archive's user alone. Empty: those of the AWS"
        " environment."
    ),
    "archive_object_lock": (
        "How the bucket locks objects until the end of their retention: compliance,"
        " governance or none."
    ),
    "archive_object_store": (
        "Bucket to which the store is replicated: s3://bucket/prefix?endpoint=URL&"
        "region=NAME. Empty: none."
    ),
    "archive_outcome_mail": (
        "yes: mail the outcome report to the archive address when all recipients have a"
        " final outcome. The store keeps the report in any case."
    ),
    "archive_prometheus_file": (
        "File to which the timer writes metrics for the textfile collector of"
        " Prometheus' node_exporter; must end in .prom. Empty: none."
    ),
    "archive_purge_limit": (
        "If more than this percentage of an archive would be purged at once, nothing"
        " is, until an administrator runs postfix-archive purge --really."
    ),
    "archive_reader_group": (
        "Group whose members may read store and index without being root. Empty: none."
        " After a change, run postfix-archive readers."
    ),
    "archive_refused_address": "QMQP port for addresses that SMTP cannot transfer.",
    "archive_relay_address": "Port for mailed copies if archive_delivery has no store.",
    "archive_replay_to": (
        "Addresses to which the web page may have archived mail delivered, separated by"
        " commas. Empty: none."
    ),
    "archive_report_format": (
        "Format of mailed copies: hybrid, dsn, journal, message. The store always has"
        " hybrid copies."
    ),
    "archive_require_reason": (
        "yes: commands that read archived mail need --reason, which is recorded."
    ),
    "archive_rescue_after": (
        "Time after which postfix-archive queue rescue moves a capsule from Postfix's"
        " queue to archive_fallback_directory."
    ),
    "archive_retention": (
        "How long the messages of an archive are kept: address=period, such as"
        " legal@example.com=10y (y, mo, w, d, permanent), separated by commas. The"
        " rules in archive.retention come before. Empty: for ever."
    ),
    "archive_seal_file": (
        "File to which postfix-archive seal appends each seal, for a third party to"
        " take away. Empty: none."
    ),
    "archive_seal_to": (
        "Address of a third party to which postfix-archive seal mails each seal. Empty:"
        " nobody."
    ),
    "archive_sender": "Envelope sender of mailed copies; empty: the null sender.",
    "archive_spool_directory": "Directory for temporary files of messages over 4 MB.",
    "archive_stamp_lifetime": (
        "With archive_delivery = mail: time for which a valid stamp avoids a second"
        " copy."
    ),
    "archive_store_directory": "Directory of the store.",
    "archive_tables": (
        "Source tables with ARCHIVE actions: type:path, where path ends in .in. After a"
        " change, run postfix-archive tables."
    ),
    "archive_time_limit": (
        "Time after which the filter or transport gives up and defers the message; less"
        " than the time limits of pipe(8) in main.cf."
    ),
    "archive_tsa_certificates": (
        "File with the root certificates, PEM, of the time-stamping authorities, those"
        " of older seals too. Empty: those that the system trusts."
    ),
    "archive_tsa_url": (
        "URLs of RFC 3161 time-stamping authorities, by which postfix-archive seal has"
        " the journals' ends time-stamped once a day. Empty: none."
    ),
    "archive_wait_for_outcome": (
        "Time that a copy waits for the outcome of its message, to contain it. 0: do"
        " not wait."
    ),
    "archive_web_decisions": (
        "What the access service carries out for users of the web page: hold-add,"
        " hold-release, erase-request, erase-approve, erase-withdraw, replay. With"
        " erase-approve, who breaks into the page can erase mail alone."
    ),
    "archive_web_user": (
        "User of the web page's process, a member of archive_reader_group: the access"
        " service believes it who has logged in at the page. Empty: there is no page."
    ),
    "archive_write_through_time_limit": (
        "Time that the stamp filter waits for the store before it queues a capsule"
        " instead. 0: queue a capsule for every message."
    ),
    "mail_owner": "Same value as in main.cf.",
    "myhostname": "Same value as in main.cf, to find Postfix's own Received: header.",
}


def render(values: Mapping[str, str]) -> str:
    """Return a new archive.cf with these values and all other settings commented."""
    text = HEADING
    for name in ("myhostname", *settings.DEFAULTS):
        comment = textwrap.fill(
            DESCRIPTIONS[name], LINE_WIDTH, initial_indent="# ", subsequent_indent="# "
        )
        default = settings.DEFAULTS.get(name, "")
        is_set = name in values
        line = f"{name} = {values[name] if is_set else default}".rstrip()
        text += f"\n{comment}\n{'' if is_set else '#'}{line}\n"
    return text


def update(text: str, values: Mapping[str, str]) -> str:
    """Return the text of an archive.cf with these values replaced or added."""
    missing = dict(values)
    new_lines: list[str] = []
    is_replaced = False
    for line in text.splitlines(keepends=True):
        if not line.strip() or line.lstrip().startswith("#"):
            new_lines.append(line)
            continue
        name = line.partition("=")[0].strip()
        if line[0] not in " \t":
            is_replaced = name in values
            if name in missing:
                new_lines.append(f"{name} = {missing.pop(name)}\n")
        if not is_replaced:
            new_lines.append(line)
    return _set_missing("".join(new_lines), missing)


def _set_missing(text: str, missing: Mapping[str, str]) -> str:
    """Replace the commented-out line of each missing setting, or append a line."""
    for name, value in missing.items():
        lines = text.splitlines(keepends=True)
        commented_lines = [each for each in lines if each.startswith(f"#{name} =")]
        line = f"{name} = {value}\n"
        if commented_lines:
            lines[lines.index(commented_lines[-1])] = line
        else:
            lines[-1:] = [f"{each.rstrip()}\n" for each in lines[-1:]] + [line]
        text = "".join(lines)
    return text
