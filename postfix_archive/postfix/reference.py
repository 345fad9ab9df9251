"""The services of master.cf.d, against which the doctor compares those of a host.

Used by doctor and install. Raises ReferenceMissing for an incomplete installation.
"""

from __future__ import annotations

from pathlib import Path

from postfix_archive.errors import ReferenceMissing
from postfix_archive.postfix import archive_services, configuration
from postfix_archive.postfix.configuration import Service


def reference_services(mode: str = archive_services.PIPE) -> dict[str, Service]:
    """Return the services of master.cf.d for this mode, by name/type."""
    services = {}
    for text in master_cf_texts(mode):
        for line in parse_entries(text).values():
            [entry] = configuration.parse_services(line)
            services[entry.key] = entry
    return services


PACKAGE = Path(__file__).resolve().parent.parent  # of a checkout, release or wheel
COMMON_FILES = ("20-archive.cf", "30-archive-ports.cf")
FILES = {
    archive_services.PIPE: ("10-archive-stamp.cf", *COMMON_FILES),
    archive_services.LMTP: (*COMMON_FILES, "40-archive-lmtp.cf"),
    archive_services.NATIVE: (*COMMON_FILES, "50-archive-capture.cf"),
    archive_services.NATIVE_PIPE: (*COMMON_FILES, "60-archive-capture-pipe.cf"),
}  # of master.cf.d, by mode


def master_cf_texts(mode: str = archive_services.PIPE) -> list[str]:
    """Return the texts of master.cf.d with the services of one mode, in order."""
    try:
        return [(PACKAGE / "master.cf.d" / name).read_text() for name in FILES[mode]]
    except OSError as error:
        raise ReferenceMissing(
            f"{error.filename}: {error.strerror}; this installation of postfix-archive"
            " is incomplete, so nothing can be compared with it: install it again"
        ) from error


def parse_entries(text: str) -> dict[str, str]:
    """Return the entries of a file of master.cf.d by name/type, each on one line."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] in " \t":
            lines[-1] += " " + line.strip()
        else:
            lines.append(line.strip())
    return {"/".join(line.split()[:2]): line for line in lines}
