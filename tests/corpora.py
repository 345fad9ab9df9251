"""Mail for tests: real messages from packages, awkward ones made here, foreign eyes.

The corpora are taken from the packages at test time. They name real addresses: send
them to recipients at example.net only, and let everything end in the sink.

    corpora.real(cache)    at least 300 different messages that others wrote
    corpora.awkward()      messages that no program should send, and some do

Further down: how to read an archive copy with nothing of ours.
"""

from __future__ import annotations

import email
import email.policy
import fcntl
import gzip
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

PYTHON_PACKAGES = Path("/usr/lib/python3/dist-packages")
GO_PACKAGES = Path("/usr/share/gocode/src/github.com")
PYTHON_NAME = Path("/usr/bin/python3").resolve().name  # python3.11
NULL_BOUNDARY = 'multipart/mixed; boundary="b"'


@dataclass(frozen=True)
class Mail:
    """One message with a name to find it by; line ends are LF or CRLF."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Corpus:
    """Where messages lie in a package: a directory and patterns for the file names."""

    package: str
    directory: str
    patterns: tuple[str, ...]


# Installed by tests/packages.
INSTALLED_PACKAGES = (
    Corpus(
        "python3-flufl.bounce", f"{PYTHON_PACKAGES}/flufl/bounce/tests/data", ("*.txt",)
    ),
    Corpus(
        "golang-github-jhillyerd-enmime-dev",
        f"{GO_PACKAGES}/jhillyerd/enmime/testdata",
        ("**/*.raw",),
    ),
    Corpus(
        "python3-dkim",
        f"{PYTHON_PACKAGES}/dkim/tests/data",
        ("*.msg", "*.m*e*", "*.mbox"),
    ),
)
# Only looked into: each would bring over 40 packages with it, or has a version in its
# name, that of Debian's own Python.
DOWNLOADED_PACKAGES = (
    Corpus(
        "spamassassin", "usr/share/doc/spamassassin/examples", ("sample-*spam.txt",)
    ),
    Corpus(
        "python3-django-hyperkitty",
        "usr/lib/python3/dist-packages/hyperkitty/tests/testdata",
        ("*.txt",),
    ),
    Corpus(
        f"lib{PYTHON_NAME}-testsuite",
        f"usr/lib/{PYTHON_NAME}/test/test_email/data",
        ("msg_*.txt",),
    ),
    Corpus("mailman3", "usr/lib/python3/dist-packages/mailman", ("**/*.eml",)),
)
# Source distributions on PyPI; only these hold the tests.
PYPI_PACKAGES = (
    Corpus("mail-parser", "tests/mails", ("mail_*",)),
    Corpus("django-mailbox", "django_mailbox/tests/messages", ("*.eml",)),
)


# winmail.dat files that Outlook wrote.
TNEF_FILES = Corpus("tnefparse", "tests/examples", ("*.tnef",))


def tnef_files(cache: Path) -> list[Path]:
    """Return real winmail.dat files; what is downloaded is kept in cache."""
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        directory = _download_source(TNEF_FILES, cache) / TNEF_FILES.directory
    return sorted(directory.glob(*TNEF_FILES.patterns))


# Files that Outlook wrote: a .pst of the Enron corpus, and .ost files of tests.
PST_PACKAGE = "pst-extractor@1.12.0"  # of npm
PST_SHA256 = "c4c9eb9e75d09171452a4706df7d0e0e49606c1ca04aa81f30417dd385ad0e30"


def outlook_files(cache: Path) -> Path:
    """Return a directory with real Outlook files; what is downloaded is in cache."""
    directory = cache / "pst-extractor"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            _run(["npm", "pack", "--silent", PST_PACKAGE], cache)
            content = (cache / "pst-extractor-1.12.0.tgz").read_bytes()
            assert hashlib.sha256(content).hexdigest() == PST_SHA256
            (cache / "pst-extractor.draft").mkdir(exist_ok=True)
            unpack = ["tar", "-C", str(cache / "pst-extractor.draft"), "-xz"]
            subprocess.run(unpack, input=content, check=True)
            (cache / "pst-extractor.draft").rename(directory)
    return directory / "package" / "example" / "testdata"


def real_messages(cache: Path) -> list[Mail]:
    """Return all real messages, each once; what is downloaded is kept in cache."""
    with open(cache / "lock", "w") as lock:  # several processes of a run need them
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _real(cache)


def _real(cache: Path) -> list[Mail]:
    messages: dict[bytes, Mail] = {}
    directories = [(corpus, Path(corpus.directory)) for corpus in INSTALLED_PACKAGES]
    directories += [
        (each, unpack_package(each.package, cache) / each.directory)
        for each in DOWNLOADED_PACKAGES
    ]
    directories += [
        (each, _download_source(each, cache) / each.directory) for each in PYPI_PACKAGES
    ]
    for corpus, directory in directories:
        paths = {
            path for pattern in corpus.patterns for path in directory.glob(pattern)
        }
        assert paths, f"{corpus.package} has no messages in {directory}"
        for path in sorted(paths):
            mail = Mail(f"{corpus.package}/{path.name}", path.read_bytes())
            messages.setdefault(mail.content.replace(b"\r\n", b"\n"), mail)
    return list(messages.values())


def unpack_package(name: str, cache: Path) -> Path:
    """Return a directory with the files of a Debian package that is not installed."""
    directory = cache / name
    if not directory.exists():
        package = download_package(name, cache)
        draft = cache / f"{name}.draft"
        _run(["dpkg-deb", "-x", str(package), str(draft)], cache)
        draft.rename(directory)
    return directory


def download_package(name: str, cache: Path) -> Path:
    """Return the file of a Debian package, taken from where apt-get takes it."""
    download = f"apt-get download -qq {name}"
    try:
        _run(["sh", "-c", download], cache)
    except subprocess.CalledProcessError:  # a machine without package lists
        _run(["apt-get", "update", "-qq"], cache)
        _run(["sh", "-c", download], cache)
    [package] = cache.glob(f"{name}_*.deb")
    return package


def _download_source(corpus: Corpus, cache: Path) -> Path:
    """Return a directory with the files of a source distribution on PyPI."""
    directory = cache / corpus.package
    if not directory.exists():
        name = corpus.package
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        _run([*pip, "download", "--no-deps", "--no-binary", name, name], cache)
        pattern = name.replace("-", "[-_]")
        [package] = cache.glob(f"{pattern}-*.tar.gz")
        draft = cache / f"{name}.draft"
        draft.mkdir(exist_ok=True)
        _run(["tar", "-C", str(draft), "-xzf", str(package)], cache)
        [source_directory] = draft.iterdir()
        source_directory.rename(directory)
    return directory


def _run(command: list[str], directory: Path) -> None:
    subprocess.run(command, cwd=directory, check=True, capture_output=True)


# Source packages of Debian whose tests have messages of others, as files and as mboxes.
SOURCE_PACKAGES = (
    *(
        "notmuch",
        "libmail-deliverystatus-bounceparser-perl",
        "kf5-messagelib",
        "rspamd",
    ),
    *("bogofilter", "git", "request-tracker5", "cyrus-imapd", "libemail-folder-perl"),
    *("public-inbox", "spamassassin", "libmime-tools-perl", "ruby-mail", "mailutils"),
    *("libmail-dkim-perl", "libsisimai-perl", "apache-mime4j", "evolution", "mairix"),
    *("libmail-mbox-messageparser-perl", "libmail-thread-perl", "mailagent", "emacs"),
    *("kmime", "gmime", "exim4"),
)
MANY = 1500  # messages
# A line of sources.list(5) for the sources of what apt-get installs packages from.
SOURCE_FORMAT = "deb-src [signed-by=$(SIGNED_BY)] $(REPO_URI) $(RELEASE) $(COMPONENT)"
DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
FIRST_FIELD = re.compile(
    rb"(Return-Path|Received|From|To|Delivered-To|Subject|Date|Message-ID|MIME-Version"
    rb"|X-[A-Za-z-]+|Content-Type|Path|DKIM-Signature|Reply-To|Sender)[ \t]*:",
    re.IGNORECASE,
)
ORIGINATOR = re.compile(
    rb"^(From|Subject|Date|To)[ \t]*:", re.IGNORECASE | re.MULTILINE
)
MBOX_SEPARATOR = re.compile(rb"\n\n(?=From \S+ +(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) )")
ATTACHED = re.compile(rb"\nContent-Type: message/rfc822[^\n]*\n(?:[^\n]+\n)*\n", re.I)
FILE_LIMIT = 10 << 20  # bytes


def many_messages(cache: Path) -> list[Mail]:
    """Return at least MANY real messages, each once, with LF line ends.

    Those of real_messages(), those in SOURCE_PACKAGES as far as the mirror has them,
    and the messages that are attached to them, as bounces have.
    """
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = {each.content.replace(b"\r\n", b"\n"): each for each in _real(cache)}
        for name in SOURCE_PACKAGES:
            for path in sorted(_download_debian_source(name, cache).rglob("*")):
                if path.is_file() and not path.is_symlink():
                    for content in _messages_in(path):
                        found.setdefault(content, Mail(f"{name}/{path.name}", content))
    for content, each in list(found.items()):
        for match in ATTACHED.finditer(content):
            part = content[match.end() :].partition(b"\n--")[0] + b"\n"
            if FIRST_FIELD.match(part) and ORIGINATOR.search(part):
                found.setdefault(part, Mail(f"{each.name}, attached", part))
    assert len(found) >= MANY, f"only {len(found)} messages"
    return [Mail(each.name, content) for content, each in found.items()]


def _messages_in(path: Path) -> list[bytes]:
    """Return the messages in a file: one, those of an mbox, or none."""
    if path.stat().st_size > FILE_LIMIT:
        return []
    content = path.read_bytes().replace(b"\r\n", b"\n")
    parts = [content]
    if content.startswith(b"From "):
        parts = [e.partition(b"\n")[2] + b"\n" for e in MBOX_SEPARATOR.split(content)]
    return [e for e in parts if FIRST_FIELD.match(e) and ORIGINATOR.search(e)]


def _download_debian_source(name: str, cache: Path) -> Path:
    """Return a directory with a source package, empty if the mirror lacks a file."""
    state = cache / "sources"
    if not state.exists():
        for each in ("lists/partial", "archives/partial"):
            (cache / "sources.draft" / each).mkdir(parents=True, exist_ok=True)
        (cache / "sources.draft" / "list").write_text(_source_list())
        (cache / "sources.draft").rename(state)
        _run([*_source_apt(state), "update", "-qq"], state)
    directory = cache / f"{name}.source"
    if not directory.exists():
        draft = cache / f"{name}.source-draft"
        draft.mkdir(exist_ok=True)
        command = [*_source_apt(state), "source", "-qq", "--download-only", name]
        subprocess.run(command, cwd=draft, capture_output=True, check=False)
        for archive in draft.glob("*.orig.tar.?z"):
            _run(["tar", "-xf", archive.name], draft)
            archive.unlink()
        draft.rename(directory)
    return directory


def _source_list() -> str:
    """Return a sources.list(5) of the sources of this host's packages, as released."""
    command = ["apt-get", "indextargets", "--format", SOURCE_FORMAT]
    answer = subprocess.check_output([*command, "Created-By: Packages"], text=True)
    lines = answer.replace("$(SIGNED_BY)", DEBIAN_KEYRING).splitlines()
    lines = [each for each in lines if "-" not in each.split()[-2]]  # bookworm-updates
    assert lines, "apt-get has no package lists: run apt-get update"
    return "".join(f"{line}\n" for line in lines)


def _source_apt(state: Path) -> list[str]:
    """Return apt-get with a state of its own: the host's package lists stay."""
    options = {
        "Dir::Etc::SourceList": state / "list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": state / "lists",
        "Dir::Cache": state,
        "APT::Sandbox::User": "root",
    }
    words = [
        word for name, value in options.items() for word in ("-o", f"{name}={value}")
    ]
    return ["apt-get", *words]


# --- made here --------------------------------------------------------------------


HEADER = (
    b"From: alice@example.org\nTo: bob@example.net\nSubject: awkward\n"
    b"Date: Sun, 22 Nov 2026 12:53:00 +0100\nMessage-Id: <awkward@example.org>\n"
)


def awkward_messages() -> list[Mail]:
    """Return messages that are as they should not be, each for a reason of its own."""
    contents = {**_bodies(), **_headers(), **_shapes(), **_mime()}
    return [Mail(f"awkward/{name}", content) for name, content in contents.items()]


def _bodies() -> dict[str, bytes]:
    bodies = {
        "no final newline": b"hello\nlast line",
        "no final newline, one dot": b"hello\n.",
        "one newline": b"\n",
        "many empty lines at the end": b"hello" + b"\n" * 50,
        "only dots": b".\n..\n...\n.\n",
        "dots before letters": b".hello\n..hello\n. hello\n.\n",
        "dots at line ends": b"hello.\nhello..\n",
        "looks like the end of DATA": b"hello\n.\nQUIT\nMAIL FROM:<x@example.net>\n",
        "From lines": b"From x@example.net Sun Nov 22 12:53:00 2026\n\nFrom \n>From\n",
        "NUL": b"hello\0world\n\0\n\0\0\0",
        "8-bit": bytes(range(128, 256)) + b"\n",
        "every byte but CR and LF": bytes(set(range(256)) - {10, 13}) + b"\n",
        "UTF-8": "Grüße aus Köln, 日本語 ✉\n".encode(),
        "bare CR": b"one\rtwo\r\rthree\n\r\nfour\r",
        "CR before CRLF": b"one\r\r\ntwo\r\r\n",
        "white space at line ends": b"hello \n\t\n \nhello\t \n",
        "form feeds and escapes": b"\f\v\x1b[2J\x08\x7f\n",
        "a first line that continues a header": b" ; id FAKE\n\thello\n",
        "looks like headers": b"Received: from x\nArchive-Stamp: v=1\n\nhello\n",
        "one byte": b"x",
    }
    for length in (997, 998, 999, 2047, 2048, 2049, 4096, 5000, 65535, 65536, 200000):
        bodies[f"a line of {length} bytes"] = b"x" * length + b"\n.\n"
        bodies[f"a dot after {length} bytes"] = b"x" * length + b".\n.y\n"
    # Wherever a read or a block ends: before a dot that begins a line, in one of two.
    bodies["nothing but lines of one dot"] = b".\n" * 200_000
    bodies["the same, one byte further on"] = b"x\n" + b"x" + b".\n" * 200_000
    return {name: HEADER + b"\n" + body for name, body in bodies.items()}


def _headers() -> dict[str, bytes]:
    headers = {
        "2,000 header lines": b"".join(b"X-Line: %d\n" % n for n in range(2000)),
        "one header of 2,000 folds": b"X-Fold: a\n" + b"\tfolded\n" * 2000,
        "a header of 3,000 bytes": b"X-Long: " + b"x" * 3000 + b"\n",
        "a header of 100,000 bytes": b"X-Long: " + b"x" * 100_000 + b"\n",
        "a long header of many words": b"X-Long: " + b"word " * 1000 + b"\n",
        "8-bit headers": "Subject: Grüße\nX-Bytes: ".encode() + b"\xff\xfe\xe4\n",
        "NUL in a header": b"X-Nul: one\0two\n",
        "bare CR in a header": b"X-Cr: one\rtwo\n",
        "white space before the colon": b"Subject : twice\nX-Odd\t: tab\n",
        "an empty header": b"X-Empty:\nX-Blank: \nX-Folded:\n \n\t\n",
        "a fold of nothing": b"X-Fold: a\n \n b\n",
        "a header twice": b"From: mallory@example.org\nFrom: x@example.org\n",
        "headers that are dropped": b"Bcc: c@example.net\nReturn-Path: <x@y>\n",
        "broken addresses": b'Cc: <<a@b>, "x, @, (unclosed\nReply-To: a b c <\n',
        "a group without end": b"Cc: friends: a@example.net, b@example.net\n",
        "a route": b"Cc: <@a.example,@b.example:c@example.net>, x!y!z, x%y@z.example\n",
        "broken encoded words": b"X-Word: =?utf-8?B?!!!?= =?x?= =?utf-8?Q?=ZZ?=\n",
        "a stamp of somebody else": b"Archive-Stamp: v=1; k=x; id=y; a=z; b=; h=\n",
        "Received lines of others": b"Received: from x by y; nonsense\n" * 30,
    }
    on_top = {
        "a Subject of broken encoded words": b"Subject: =?utf-8?B?!!!?= =?x?= =?\n",
        "a Subject in an unknown charset": b"Subject: =?x-no?Q?hello?=\n",
        "an 8-bit Subject": "Subject: Grüße aus Köln \n".encode() * 2,
        "a Latin-1 Subject": "Subject: Grüße\n".encode("latin-1"),
        "a Subject of 5,000 bytes": b"Subject: " + b"word " * 1000 + b"\n",
        "a Subject of 5,000 8-bit bytes": b"Subject: " + "ü".encode() * 2500 + b"\n",
        "an empty Subject": b"Subject:\n",
        "a Date that is none": b"Date: yesterday, about noon\n",
        "a Date in no zone": b"Date: Sun, 22 Nov 2026 12:53:00\n",
        "a Date of day 99": b"Date: Sun, 99 Nov 2026 12:53:00 +9999\n",
        "an empty Date": b"Date:\n",
        "an 8-bit Date": "Date: Dim, 22 août 2026 12:53:00 +0200\n".encode(),
        "a Message-Id that is none": b"Message-Id: hello, world\n",
    }
    messages = {name: HEADER + lines + b"\nhello\n" for name, lines in headers.items()}
    messages |= {name: lines + HEADER + b"\nhello\n" for name, lines in on_top.items()}
    messages["a From line on top"] = (
        b"From x Sun Nov 22 12:53:00 2026\n" + HEADER + b"\nx\n"
    )
    messages["a quoted From line on top"] = b">From x Sun\n" + HEADER + b"\nx\n"
    messages["a line that is no header"] = (
        HEADER + b"no header at all\nX-Below: it\n\nx\n"
    )
    messages["a fold on top"] = b" fold\n" + HEADER + b"\nx\n"
    return messages


def _shapes() -> dict[str, bytes]:
    return {
        "empty": b"",
        "no header": b"\nhello\n",
        "no header, no empty line": b"hello\nworld\n",
        "header only": HEADER,
        "header only, no final newline": HEADER.rstrip(b"\n"),
        "header and empty line": HEADER + b"\n",
        "one newline and no more": b"\n",
        "one dot and no more": b".\n",
        "two newlines": b"\n\n",
        "white space only": b" \n\t\n \n",
        "a colon": b":\n",
    }


def _mime() -> dict[str, bytes]:
    def mixed(body: bytes, content_type: str = NULL_BOUNDARY) -> bytes:
        mime_header = f"MIME-Version: 1.0\nContent-Type: {content_type}\n\n".encode()
        return HEADER + mime_header + body

    part = b"--b\nContent-Type: text/plain\n\nhello\n"
    attached = b"--b\nContent-Type: message/rfc822\n"
    base64 = b"Content-Transfer-Encoding: base64\n\n"
    return {
        "nested 101 deep": _nested(101),
        "nested 101 deep, never closed": _nested(101, closed=False),
        "missing closing boundary": mixed(part),
        "missing first boundary": mixed(b"hello\n--b--\n"),
        "closed twice": mixed(part + b"--b--\n--b--\n" + part),
        "no boundary parameter": mixed(part, "multipart/mixed"),
        "an empty boundary": mixed(b"--\n\nx\n----\n", 'multipart/mixed; boundary=""'),
        "a boundary that never comes": mixed(part, "multipart/mixed; boundary=c"),
        "a boundary of 3,000 bytes": mixed(
            b"--" + b"b" * 3000 + b"\n\nx\n", f"multipart/mixed; boundary={'b' * 3000}"
        ),
        "an unclosed quote": mixed(part, 'multipart/mixed; boundary="b'),
        "a Content-Type that is none": mixed(part, ";;;/=multipart"),
        "two Content-Types": mixed(part, "text/plain\nContent-Type: multipart/mixed"),
        "white space after boundaries": mixed(b"--b \t\n\nx\n--b-- \n"),
        "the same boundary inside": mixed(
            b"--b\nContent-Type: "
            + NULL_BOUNDARY.encode()
            + b"\n\n"
            + part
            + b"--b--\n"
        ),
        "base64 that is none": mixed(
            b"--b\n" + base64 + b"!!!\n=\n===\nAAA\n--b--\n",
        ),
        "an unknown encoding": mixed(
            b"--b\nContent-Transfer-Encoding: x-magic\n\nhello\n--b--\n"
        ),
        "8-bit in a 7bit part": mixed(
            b"--b\nContent-Transfer-Encoding: 7bit\n\n\xff\xfe\n--b--\n"
        ),
        "an encoded multipart": HEADER
        + b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n"
        + base64
        + b"--b\n\nx\n--b--\n",
        "an attached message in base64": mixed(
            attached + base64 + b"SGVsbG8=\n--b--\n",
        ),
        "an attached message with odd headers": mixed(
            attached + b"\nFrom x y\nBcc: c@example.net\nSubject : x\n\nx\n--b--\n"
        ),
        "an attached message that is empty": mixed(attached + b"\n--b--\n"),
        "a report that is cut off": mixed(
            b"--b\n\nx\n--b\nContent-Type: message/delivery-status\n\nReporting-MTA",
            "multipart/report; report-type=delivery-status; boundary=b",
        ),
        "MIME-Version of the future": HEADER
        + b"MIME-Version: 9.9 (x\nContent-Type: text/plain; charset=x-no\n\n\xff\n",
        "a boundary like that of a copy": mixed(
            b"--=_archive_00\n\nx\n--=_archive_00--\n",
            'multipart/report; boundary="=_archive_00"',
        ),
    }


def _nested(depth: int, *, closed: bool = True) -> bytes:
    part_header = b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n'
    opening = b"".join(part_header % (n, n) for n in range(depth))
    ending = b"".join(b"--b%d--\n" % n for n in reversed(range(depth)))
    body = opening + b"Content-Type: text/plain\n\nhello\n"
    return HEADER + b"MIME-Version: 1.0\n" + body + (ending if closed else b"")


# --- foreign eyes -----------------------------------------------------------------


def read_copy(path: Path) -> bytes:
    """Return the archive copy in a file of the store."""
    return gzip.decompress(path.read_bytes())


def extract_original(copy: bytes) -> bytes:
    """Return the original out of a multipart archive copy, by its boundary alone."""
    header = copy.partition(b"\r\n\r\n")[0]
    match = re.search(rb'\tboundary="([^"]+)"', header)
    assert match, "the copy's header names no boundary"
    delimiter = b"\r\n--" + match[1]
    end = delimiter + b"--\r\n"
    assert copy.endswith(end), "the copy does not end with its closing boundary"
    last = 2 if b"Content-Type: multipart/mixed" in header else 3
    part = copy[: -len(end)].split(delimiter + b"\r\n", last)[last]
    return part.partition(b"\r\n\r\n")[2]


def status_part(copy: bytes) -> str:
    """Return the second part of an archive copy, its envelope fields, as text."""
    _, _, rest = copy.partition(b"\r\nContent-Description: Delivery report\r\n")
    _, _, fields = rest.partition(b"\r\n\r\n")
    return fields.partition(b"\r\n--=_archive_")[0].decode("utf-8", "surrogateescape")


def parse(copy: bytes) -> Iterator[Message]:
    """Give the copy as Python's email package reads it, by each of two policies."""
    for policy in (email.policy.default, email.policy.compat32):
        yield email.message_from_bytes(copy, policy=policy)


def parts_of(message: Message) -> list[Message]:
    """Return the parts of a multipart message."""
    parts = message.get_payload()
    assert isinstance(parts, list), "this is no multipart message"
    return [part for part in parts if isinstance(part, Message)]


def defects(message: Message) -> list[str]:
    """Return what the email package finds wrong with a message or part, not within."""
    descriptions = [repr(each) for each in message.defects]
    for name, value in message.items():
        descriptions += [f"{name}: {each!r}" for each in getattr(value, "defects", ())]
    return descriptions
