#!/usr/bin/python3 -IS
"""Starts a door for pipe(8) or spawn(8): named after the door, in the program's folder.

Installed as archive-stamp, archive and archive-lmtp, beside the folder ``current``,
which leads to the release in use: it is resolved once, so that a run never sees two
releases.
Guards even the imports: a broken or half-done installation must defer mail, and a
traceback would exit with 1, which pipe(8) takes for a bounce.
"""

import sys

DEFER = 75  # EX_TEMPFAIL, sysexits(3)
WORKER = "archive-lmtp"  # speaks LMTP, where the others print one line


def start(path: str, arguments: "list[bytes]") -> int:
    """Run the door that this file is named after."""
    folder, _, name = path.rpartition("/")
    sys.path[:0] = [os.path.realpath(f"{folder}/current"), folder]
    if name == WORKER:
        from postfix_archive.front import lmtp

        return lmtp.main(arguments)
    from postfix_archive.front import pipe

    if name == "archive-stamp":
        from postfix_archive.front import stamp_filter

        return pipe.main(stamp_filter.door, arguments)
    from postfix_archive.front import archive_transport

    return pipe.main(archive_transport.door, arguments)


if __name__ == "__main__":
    try:
        import os

        words = [os.fsencode(each) for each in sys.argv[1:]]
        # At once, without taking the interpreter down: until pipe(8) sees the exit, a
        # crash would have a message delivered again that Postfix has back already.
        os._exit(start(os.path.realpath(__file__), words))
    except BaseException as problem:  # noqa: B036 - nothing may leave here
        where = f"{type(problem).__name__}: {problem}"[:300].replace("\n", " ")
        spoken = "421 " if sys.argv[0].endswith(WORKER) else ""
        print(
            f"{spoken}4.3.0 postfix-archive cannot run, mail waits: {where}", flush=True
        )
        sys.exit(DEFER)
