"""The Postfix instances that are compared: alike but for what happens to the mail."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import isal

import steady_mail
from private_postfix import PrivatePostfix

BENCH_DIRECTORY = Path(__file__).resolve().parent
PLAIN = "plain"
ALWAYS_BCC = "always_bcc"
NULL_PIPE = "null-pipe"
NULL_LMTP = "null-lmtp"
PIPE = "pipe"
LMTP = "lmtp"
NATIVE_PIPE = "native-pipe"
NATIVE_LMTP = "native-lmtp"
BCC_SMTP = "bcc-smtp"  # only with PILER=host:port
NAMES = (
    *(PLAIN, ALWAYS_BCC, NULL_PIPE, PIPE, NULL_LMTP, LMTP),
    *(NATIVE_PIPE, NATIVE_LMTP),
)
MEANING = {
    PLAIN: "no archive",
    ALWAYS_BCC: "`always_bcc` to a Maildir of virtual(8)",
    NULL_PIPE: "a filter that does nothing, by pipe(8)",
    PIPE: "the archive, stamp filter by pipe(8)",
    NULL_LMTP: "a filter that does nothing, by lmtp(8)",
    LMTP: "the archive, stamp filter by lmtp(8)",
    NATIVE_PIPE: "the archive, no filter, archive transport by pipe(8)",
    NATIVE_LMTP: "the archive, no filter, archive transport by lmtp(8)",
    BCC_SMTP: "`always_bcc` by smtp(8) to another archive",
}
MODES = {  # of PrivatePostfix; of all others "pipe"
    **dict.fromkeys((LMTP, NULL_LMTP), "lmtp"),
    NATIVE_PIPE: "native-pipe",
    NATIVE_LMTP: "native",
}
OURS = (PIPE, LMTP, NATIVE_PIPE, NATIVE_LMTP)
FILTERS = (PIPE, LMTP)  # of ours, those with a content filter
WITHOUT_ARCHIVE = (PLAIN, ALWAYS_BCC, BCC_SMTP)
# Hundreds of messages a second.
FAST = (PLAIN, ALWAYS_BCC, BCC_SMTP, NULL_LMTP, NATIVE_LMTP)
BCC_ADDRESS = "copy@archive.example.com"
PEER_DOMAIN = "peer.example.com"

# Everybody's mail goes to discard(8), which costs next to nothing. What only tests need
# (a queue run each second) is off. So is the pause of a second with which cleanup(8)
# slows clients down that send faster than Postfix delivers: in a run of one second it
# would be all that is measured, and of the fastest most. All else is as Postfix has it.
MAIN = {
    "in_flow_delay": "0s",
    "default_transport": "discard:",
    "queue_run_delay": "300s",
    "minimal_backoff_time": "300s",
    "maximal_backoff_time": "4000s",
    "virtual_mailbox_domains": f"archive.example.com, {steady_mail.DOMAIN}",
    "virtual_mailbox_maps": "static:Maildir/",
    "virtual_uid_maps": "static:65534",
    "virtual_gid_maps": "static:65534",
}


def build(
    name: str,
    *,
    main: dict[str, str] | None = None,
    master: str = "",
    store: Path | None = None,
    edit_master: Callable[[str], str] = lambda text: text,
    peer: str = "",
) -> PrivatePostfix:
    """Return the instance of a variant, not yet started.

    main, master and store are what one of ours has besides or otherwise. peer
    (host:port) is where BCC_SMTP sends its copies.
    """
    parameters = {
        "virtual_mailbox_base": "/nonexistent",
        **_main(name, peer),
        **(main or {}),
    }
    postfix = PrivatePostfix(
        main={**MAIN, **parameters},
        archive_cf={"archive_delivery": "store"},
        master=master,
        store=store,
        has_archive=name not in WITHOUT_ARCHIVE,
        mode=MODES.get(name, "pipe"),
        edit_master=EDITS.get(name, edit_master),
    )
    postfix.postconf(virtual_mailbox_base=str(maildir(postfix).parent))
    maildir(postfix).parent.mkdir()
    shutil.chown(maildir(postfix).parent, "nobody", "nogroup")
    _install_package(postfix, isal)
    if name in EDITS:
        for script in BENCH_DIRECTORY.glob("null_*.py"):
            shutil.copy(script, postfix.program_directory)
    return postfix


def _install_package(postfix: PrivatePostfix, package: ModuleType) -> None:
    """Put a package where make install has those of the commands."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    directory = postfix.program_directory / "commands" / "lib" / version
    (directory / "site-packages").mkdir(parents=True)
    source = Path(str(package.__file__)).parent
    shutil.copytree(source, directory / "site-packages" / source.name)


def maildir(postfix: PrivatePostfix) -> Path:
    """Return the Maildir of an instance, which comes with the first delivery."""
    return postfix.directory / "mailboxes" / "Maildir"


def _main(name: str, peer: str) -> dict[str, str]:
    if name == ALWAYS_BCC:
        return {"always_bcc": BCC_ADDRESS}
    if name != BCC_SMTP:
        return {}
    host, _, port = peer.rpartition(":")
    transport = f"smtp:[{host}]:{port}"
    return {
        "always_bcc": f"copy@{PEER_DOMAIN}",
        "transport_maps": f"inline:{{{PEER_DOMAIN}={transport}}}",
    }


def _by_null_pipe(master: str) -> str:
    return _replaced(master, r"argv=(\S+)/archive-stamp$", "null_pipe.py")


def _by_null_lmtp(master: str) -> str:
    return _replaced(master, r"argv=(\S+)/archive-lmtp .*$", "null_lmtp.py")


def _replaced(master: str, pattern: str, script: str) -> str:
    """Return master.cf with a null filter for the mode, the hand-back port the same."""
    match = re.search(
        r"^127\.0\.0\.1:(\d+) inet .*\n.*/archive-handback$", master, re.M
    )
    assert match
    argv = rf"argv=/usr/bin/python3 -I -S \1/{script} {match[1]}"
    edited, count = re.subn(pattern, argv, master, flags=re.M)
    assert count
    return edited


EDITS: dict[str, Callable[[str], str]] = {
    NULL_PIPE: _by_null_pipe,
    NULL_LMTP: _by_null_lmtp,
}
