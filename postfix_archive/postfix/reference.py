"""The services of master.cf.d, against which the doctor compares those of a host.

Used by doctor and install.
"""

from __future__ import annotations

from pathlib import Path

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


PACKAGE = Path(__file__).resolve().parent.parent
SOURCE = PACKAGE.parent  # a checkout or an installed release
OTHER_MODE_PREFIX = {
    archive_services.PIPE: "40-",
    archive_services.LMTP: "10-",
}  # of master.cf.d: prefix of the file for the other mode


def master_cf_texts(mode: str = archive_services.PIPE) -> list[str]:
    """Return the texts of master.cf.d with the services of one mode, in order."""
    excluded = OTHER_MODE_PREFIX[mode]
    paths = sorted((SOURCE / "master.cf.d").glob("[1-4]*.cf"))
    return [path.read_text() for path in paths if not path.name.startswith(excluded)]


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
