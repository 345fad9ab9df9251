"""Starts the command postfix-archive of an installed release.

Run by <prefix>/sbin/postfix-archive. The Python packages of the commands are in a
directory named after the Python version that installed them. They are used after an
upgrade of Python as well: ``queue rescue`` and the follower must keep running, and the
doctor must be able to tell the postmaster what to do.
"""

import os
import sys
from glob import glob

# By os.path: pathlib takes 8 ms to import, and nothing else here needs it.
RELEASE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


def main() -> None:
    """Run the command and exit with its status, or 1 if it cannot be imported."""
    sys.path.append(RELEASE)
    for path in glob(f"{RELEASE}/commands/lib/python*/site-packages"):
        if path not in sys.path:
            sys.path.append(path)
    try:
        from postfix_archive.cli.main import main as command
    except ImportError as error:
        version = ".".join(map(str, sys.version_info[:2]))
        sys.exit(
            f"postfix-archive: {RELEASE}/commands: Python {version} cannot import the"
            f" installed packages ({error}); run make install again"
        )
    command(prog_name="postfix-archive")


if __name__ == "__main__":
    main()
