"""Starts the command postfix-archive of an installed release, as a file of it.

Run by <prefix>/sbin/postfix-archive. The packages of the commands stand in a folder
that bears the version of the Python they were installed with. When the host's is
upgraded they are used all the same: rescue and the follower must go on, and the doctor
must be able to say what to do.
"""

import sys
from glob import glob
from pathlib import Path

RELEASE = Path(__file__).resolve().parents[2]


def main() -> None:
    """Run the command; exits with its status, or 1 where it cannot be started."""
    sys.path.append(str(RELEASE))
    for each in glob(f"{RELEASE}/commands/lib/python*/site-packages"):
        if each not in sys.path:
            sys.path.append(each)
    try:
        from postfix_archive.front.cli import main as command
    except ImportError as problem:
        version = ".".join(map(str, sys.version_info[:2]))
        sys.exit(
            f"postfix-archive: {RELEASE}/commands: Python {version} cannot use what"
            f" is installed there ({problem}): run make install again"
        )
    command(prog_name="postfix-archive")


if __name__ == "__main__":
    main()
