#!/usr/bin/python3 -IS
"""Starts a door for pipe(8) or spawn(8): named after the door, in the program's folder.

Installed as archive-stamp, archive and archive-lmtp, beside the link ``current``, which
leads to the release in use: it is read once, so that a run never sees two releases.
What the doors of pipe(8) import, for they start once a message, stands there in one
file a door (back/bundle).
Guards even the imports: a broken or half-done installation must defer mail, and a
traceback would exit with 1, which pipe(8) takes for a bounce.
"""

import sys

DEFER = 75  # EX_TEMPFAIL, sysexits(3)
WORKER = "archive-lmtp"  # speaks LMTP, where the others print one line


def start(path: str, arguments: "list[bytes]") -> int:
    """Run the door that this file is named after."""
    folder, _, name = path.rpartition("/")
    release = leads_to(f"{folder}/current") or folder
    sys.path[:0] = [release, folder]
    if name == WORKER:
        from postfix_archive.front import lmtp

        return lmtp.main(arguments)
    take(release, name)
    from postfix_archive.front import pipe

    if name == "archive-stamp":
        from postfix_archive.front import stamp_filter

        return pipe.main(stamp_filter.door, arguments)
    from postfix_archive.front import archive_transport

    return pipe.main(archive_transport.door, arguments)


def leads_to(path: str) -> str:
    """Return where a symlink leads to, "" for what is none."""
    try:
        led = posix.readlink(path)
    except OSError:
        return ""
    return led if led.startswith("/") else f"{path.rpartition('/')[0]}/{led}"


def take(release: str, door: str) -> None:
    """Load the modules of a door from its bundle, if that is of these very sources.

    Without it, or where another Python made it, they are imported as usual.
    """
    try:
        with open(f"{release}/bundles/{door}", "rb") as opened:
            made_by, content = opened.read(len(MAGIC_NUMBER)), opened.read()
        modules = marshal.loads(content) if made_by == MAGIC_NUMBER else ()
        for _, place, *seen, _ in modules:
            told = posix.stat(f"{release}/{place}")
            if seen != [told.st_size, told.st_mtime_ns]:
                return
    except (OSError, EOFError, ValueError, TypeError):
        return
    for name, place, _, _, code in modules:
        module = sys.modules[name] = type(sys)(name)
        module.__file__ = f"{release}/{place}"
        if place.endswith("/__init__.py"):
            module.__path__ = [module.__file__.rpartition("/")[0]]
        exec(code, module.__dict__)
        above, _, own = name.rpartition(".")
        if above:
            setattr(sys.modules[above], own, module)


if __name__ == "__main__":
    try:
        import marshal
        import posix  # os itself costs a seventh of a bare start
        from _frozen_importlib_external import MAGIC_NUMBER

        coding = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
        own = __file__
        while led := leads_to(own):
            own = led
        words = [each.encode(*coding) for each in sys.argv[1:]]
        # At once, without taking the interpreter down: until pipe(8) sees the exit, a
        # crash would have a message delivered again that Postfix has back already.
        posix._exit(start(own, words))
    except BaseException as problem:  # noqa: B036 - nothing may leave here
        where = f"{type(problem).__name__}: {problem}"[:300].replace("\n", " ")
        spoken = "421 " if sys.argv[0].endswith(WORKER) else ""
        print(
            f"{spoken}4.3.0 postfix-archive cannot run, mail waits: {where}", flush=True
        )
        sys.exit(DEFER)
