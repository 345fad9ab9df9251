"""Serves the web page for web_bench, as the owner of the store: web_server.py ETC PORT.

It is the server of `postfix-archive web`, without the user of its own and the access
service: what is read is recorded by this process, with the same fsync.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from postfix_archive.config import archive_cf
from postfix_archive.web import app, database, server, web_settings


def main(etc: str, port: str) -> None:
    """Serve until the process is ended."""
    settings = archive_cf.load(etc)
    owner = os.stat(settings.archive_store_directory)
    os.setgroups([])
    os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
    os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
    listener = socket.create_server(("127.0.0.1", int(port)))
    web = web_settings.load(etc)
    made = server.make_server(app.create_app(settings, web), listener)
    with contextlib.closing(database.connect(web.database_path)):
        made.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
