#!/usr/bin/python3 -IS
"""Start a transport or an LMTP worker for pipe(8) or spawn(8), chosen by file name.

Installed as archive-stamp, archive and archive-lmtp beside the symlink ``current``,
which points to the release in use. The link is read once, so that a process never
imports from two releases. The programs for pipe(8) start once a message and therefore
load their modules from one file, an import bundle (system/import_bundle).

Imports are guarded as well: a broken or incomplete installation must defer mail, but a
traceback exits with 1, on which pipe(8) bounces.
"""

import sys

DEFER = 75  # EX_TEMPFAIL, sysexits(3)
WORKER = "archive-lmtp"  # speaks LMTP; the others print one line


def start(path: str, arguments: "list[bytes]") -> int:
    """Run the program of this file name; return its exit code."""
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
    """Return the absolute target of a symlink, "" if path is not a symlink."""
    try:
        led = posix.readlink(path)
    except OSError:
        return ""
    return led if led.startswith("/") else f"{path.rpartition('/')[0]}/{led}"


def take(release: str, door: str) -> None:
    """Load the modules of a program from its bundle, if that matches the sources.

    With no bundle, or one of another Python version, they are imported as usual.
    """
    try:
        with open(f"{release}/bundles/{door}", "rb") as opened:
            made_by, content = opened.read(len(MAGIC_NUMBER)), opened.read()
        modules = marshal.loads(content) if made_by == MAGIC_NUMBER else ()
        for _, place, *seen, _ in modules:
            told = posix.stat(f"{release}/{place}")
            if seen != [told.st_size, int(told.st_mtime)]:
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
        import posix  # importing os takes a seventh of the time of a bare start
        from _frozen_importlib_external import MAGIC_NUMBER

        coding = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
        own = __file__
        while led := leads_to(own):
            own = led
        words = [each.encode(*coding) for each in sys.argv[1:]]
        # _exit() skips the interpreter's shutdown: after a crash there, pipe(8) would
        # deliver a message again that is already reinjected.
        posix._exit(start(own, words))
    except BaseException as problem:  # noqa: B036 - a traceback would bounce
        where = f"{type(problem).__name__}: {problem}"[:300].replace("\n", " ")
        spoken = "421 " if sys.argv[0].endswith(WORKER) else ""
        print(
            f"{spoken}4.3.0 postfix-archive failed; run postfix-archive doctor:"
            f" {where}",
            flush=True,
        )
        sys.exit(DEFER)
