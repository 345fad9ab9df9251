"""The tables of one index database: a year of one archive.

Used by index_database and query_fields. The numbers of the messages are in the order of
the archive, so that "newest first" needs no sort. FTS5 keeps no text and no sizes of
documents (content='', columnsize=0); ``message`` has what a page of hits shows.
"""

from __future__ import annotations

from postfix_archive.store import outcome, outcome_summary

VERSION = 6  # of tables and terms; another one is built again
APPLICATION_ID = 0x70666173  # PRAGMA application_id: "pfas"

# Body first: FTS5 stores no column number for terms of the first column.
TEXT_COLUMNS = (
    "body",
    "subject",
    "header_from",
    "header_to",
    "header_cc",
    "file",
)

# Bytes of terms that FTS5 gathers before it writes: 16 times its default, with which it
# took half as much CPU again to merge what it had written.
HASH_SIZE = 16 << 20
# Segments of one level that FTS5 merges at once: twice its default, so less often.
MERGED_SEGMENTS = 8

# What an address is in a message; the bits of address_use.roles.
SENDER, RECIPIENT = 1, 2  # of the envelope; as the client said, and as mapped
FROM, TO, CC = 4, 8, 16  # of the header
BCC = 32  # recipient of the envelope that To and Cc do not name, or in Bcc

# The tables with rows of a message, and the column with its number.
MESSAGE_COLUMNS = (
    ("message", "number"),
    ("address_use", "message"),
    ("label_use", "message"),
    ("message_key", "message"),
)

# Values of which many messages have the same one.
LABELS = ("client", "list", "login", "problem", "stamp", "type")

# Bits of message.outcomes, one for each kind that a recipient has.
OUTCOME_KINDS = (*sorted(outcome.KINDS), outcome_summary.UNKNOWN)
OUTCOME_BITS = {kind: 1 << bit for bit, kind in enumerate(OUTCOME_KINDS)}

# Times are Unix times. archived: never less than that of the message before. arrived:
# at this host, archived if unknown. sent: of Date:. offsets: of the journal's lines, 8
# bytes each. text_hash: of what FTS5 was given, which a removal must give again.
# keep_until: end of the retention period, NULL before it is known.
TABLES = f"""
CREATE TABLE state (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE message (
    number INTEGER PRIMARY KEY,
    archive_id TEXT NOT NULL,
    archived INTEGER NOT NULL,
    arrived INTEGER NOT NULL,
    sent INTEGER,
    size INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    sender INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    attachments INTEGER NOT NULL,
    outcomes INTEGER NOT NULL,
    text_hash INTEGER NOT NULL,
    keep_until INTEGER,
    subject TEXT NOT NULL,
    offsets BLOB NOT NULL
);
CREATE INDEX message_archive_id ON message (archive_id);
CREATE INDEX message_archived ON message (archived);
CREATE INDEX message_arrived ON message (arrived);
CREATE INDEX message_sent ON message (sent);
CREATE INDEX message_size ON message (size);
CREATE INDEX message_sha256 ON message (sha256);
CREATE INDEX message_outcomes ON message (outcomes);
CREATE INDEX message_keep_until ON message (keep_until);
CREATE TABLE address (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, domain TEXT NOT NULL
);
CREATE INDEX address_domain ON address (domain);
CREATE TABLE address_use (
    address INTEGER NOT NULL, message INTEGER NOT NULL, roles INTEGER NOT NULL,
    PRIMARY KEY (address, message)
) WITHOUT ROWID;
CREATE INDEX address_use_message ON address_use (message, roles);
CREATE TABLE label (
    number INTEGER PRIMARY KEY, kind INTEGER NOT NULL, name TEXT NOT NULL,
    UNIQUE (kind, name)
);
CREATE TABLE label_use (
    label INTEGER NOT NULL, message INTEGER NOT NULL, PRIMARY KEY (label, message)
) WITHOUT ROWID;
CREATE INDEX label_use_message ON label_use (message);
CREATE TABLE message_key (
    hash INTEGER NOT NULL, message INTEGER NOT NULL, PRIMARY KEY (hash, message)
) WITHOUT ROWID;
CREATE VIRTUAL TABLE message_text USING fts5 (
    {", ".join(TEXT_COLUMNS)}, content='', columnsize=0, detail=full,
    tokenize="unicode61 remove_diacritics 2"
);
INSERT INTO message_text (message_text, rank) VALUES ('hashsize', {HASH_SIZE});
INSERT INTO message_text (message_text, rank) VALUES ('automerge', {MERGED_SEGMENTS});
CREATE VIRTUAL TABLE address_text USING fts5 (
    name, content='', columnsize=0, detail=full,
    tokenize="unicode61 remove_diacritics 2"
);
"""
