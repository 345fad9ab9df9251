"""make demo-web: the web page over a sample archive, for somebody who wants to look.

On a port of 127.0.0.1, by HTTP alone, as the user who starts it; prints the address and
who can log in. Ends with Ctrl-C, and nothing is left.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from postfix_archive.web import server

import web_mails
import web_site
from web_site import WebSite

PORT = 8090
ROLES = {
    "anna": "auditor of one archive",
    "otto": "officer: holds, erasures, access log",
    "olga": "officer too: approves what otto requests",
    "adam": "admin: users and status, no mail",
    "bob": "employee: own mail alone",
}
DECISIONS = (
    "archive_web_decisions = hold-add, hold-release, erase-request, erase-approve,"
    " erase-withdraw, replay\n"
)


def main() -> None:
    """Make the archive and serve it."""
    with tempfile.TemporaryDirectory(prefix="pfa-web-") as directory:
        site = WebSite(Path(directory))
        with open(Path(directory, "archive.cf"), "a") as file:
            file.write(DECISIONS)
        web_mails.fill(site.store)
        site.index()
        with server.listen(f"127.0.0.1:{port()}") as listener:
            app = site.app
            app.testing = False
            instance = server.make_server(app, listener)
            print(f"http://127.0.0.1:{listener.getsockname()[1]}/ until Ctrl-C\n")
            for name, role in ROLES.items():
                print(f"  {name:<6}{role}")
            print(f"\nPassword of all: {web_site.PASSWORD}", flush=True)
            instance.run()


def port() -> int:
    """Return the port: 8090, or the one given; 0 is any that is free."""
    return int(sys.argv[1]) if len(sys.argv) > 1 else PORT


if __name__ == "__main__":
    main()
