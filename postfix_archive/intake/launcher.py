#!/usr/bin/python3 -IS
"""Start a transport or an LMTP worker for pipe(8) or spawn(8), chosen by file name.

Installed as archive-stamp, archive-capture, archive and archive-lmtp beside the symlink
``current``, which points to the release in use. The link is read once, so that a
process never imports from two releases. The programs for pipe(8) start once a message
and therefore load their modules from one file, an import bundle
(system/import_bundle).

Imports are guarded as well: a broken or incomplete installation must defer mail, but a
traceback exits with 1, on which pipe(8) bounces.
"""

import sys

DEFER = 75  # EX_TEMPFAIL, sysexits(3)
LMTP_WORKER = "archive-lmtp"  # speaks LMTP; the others print one line


def start(path: str, arguments: "list[bytes]") -> int:
    """Run the program of this file name; return its exit code."""
    directory, _, name = path.rpartition("/")
    release = link_target(f"{directory}/current") or directory
    sys.path[:0] = [release, directory]
    if name == LMTP_WORKER:
        from postfix_archive.intake import lmtp_worker

        return lmtp_worker.main(arguments)
    load_bundle(release, name)
    from postfix_archive.intake import pipe

    handlers = {
        "archive-stamp": pipe.filter_message,
        "archive-capture": pipe.archive_message,
    }
    return pipe.main(handlers.get(name, pipe.archive_capsule), arguments)


def link_target(path: str) -> str:
    """Return the absolute target of a symlink, "" if path is not a symlink."""
    try:
        target = posix.readlink(path)
    except OSError:
        return ""
    return target if target.startswith("/") else f"{path.rpartition('/')[0]}/{target}"


def load_bundle(release: str, program: str) -> None:
    """Load the modules of a program from its bundle, if that matches the sources.

    With no bundle, or one of another Python version, they are imported as usual.
    """
    try:
        with open(f"{release}/bundles/{program}", "rb") as file:
            magic, content = file.read(len(MAGIC_NUMBER)), file.read()
        modules = marshal.loads(content) if magic == MAGIC_NUMBER else ()
        for _, source, *size_and_mtime, _ in modules:
            stat = posix.stat(f"{release}/{source}")
            if size_and_mtime != [stat.st_size, int(stat.st_mtime)]:
                return
    except (OSError, EOFError, ValueError, TypeError):
        return
    for name, source, _, _, code in modules:
        module = sys.modules[name] = type(sys)(name)
        module.__file__ = f"{release}/{source}"
        if source.endswith("/__init__.py"):
            module.__path__ = [module.__file__.rpartition("/")[0]]
        exec(code, module.__dict__)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def log_failure(error: BaseException, arguments: "list[bytes]") -> None:
    """Log why mail is deferred; the sender may see what a program prints."""
    try:
        from postfix_archive.intake import failure

        failure.report_in_pipe_mode(error, arguments)
    except BaseException:  # noqa: B036 - nothing of the program can be imported
        try:
            import subprocess

            line = f"error={type(error).__name__} reason={error}"[:300]
            subprocess.run(
                ["/usr/sbin/postlog", "-t", "postfix/archive", "-p", "warn", line],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=10,
                check=False,
            )
        except BaseException:  # noqa: B036 - deferring matters more
            pass


if __name__ == "__main__":
    try:
        import marshal
        import posix  # importing os takes a seventh of the time of a bare start
        from _frozen_importlib_external import MAGIC_NUMBER

        encoding = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
        launcher = __file__
        while target := link_target(launcher):
            launcher = target
        arguments = [each.encode(*encoding) for each in sys.argv[1:]]
        # _exit() skips the interpreter's shutdown: after a crash there, pipe(8) would
        # deliver a message again that is already reinjected.
        posix._exit(start(launcher, arguments))
    except BaseException as error:  # noqa: B036 - a traceback would bounce
        log_failure(error, [each.encode() for each in sys.argv[1:]])
        reply_code = "421 " if sys.argv[0].endswith(LMTP_WORKER) else ""
        print(f"{reply_code}4.3.0 temporary failure", flush=True)
        sys.exit(DEFER)
