"""Whose CPU it is: what each service of an instance spends on a message.

Daemons are kept alive for the pass (max_use), so that what /proc says of them before
and after is all of theirs; what pipe(8) and spawn(8) have waited for stands in their
own entries. The rest of the group is whatever began and ended meanwhile otherwise.
"""

from __future__ import annotations

import os
from collections import defaultdict

import load
import usage
import variants
from private_postfix import OUR_PORTS, PrivatePostfix

ROLES = {
    10026: "archive-handback",
    10027: "archive-capsule",
    10028: "archive-copy",
    10029: "archive-relay",
    10030: "archive-refused",
}
REST = "what began and ended"
MASTER = "master"
SHOWN = 0.05  # ms, in the table
SAID = 0.2  # ms more or less than another variant
PAIRS = (
    (variants.PIPE, variants.NULL_PIPE),
    (variants.LMTP, variants.NULL_LMTP),
    (variants.LMTP, variants.ALWAYS_BCC),
)
KEPT = "100000"  # max_use: no daemon ends by itself meanwhile

Spent = dict[int, dict[str, float]]  # CPU seconds by process and name


def a_message(
    postfix: PrivatePostfix, group: usage.Group, each: load.Load, messages: int
) -> dict[str, float]:
    """Return CPU ms a message by service; this is the last that the instance does."""
    postfix.kill()
    postfix.postconf(max_use=KEPT)
    with group.entered():
        postfix.start()
    load.run(postfix, group, each, messages)  # so that all daemons are there
    before, begun = spent(postfix), group.seconds(postfix)
    load.send(postfix, each, messages)
    load.wait(postfix)
    after, whole = spent(postfix), group.seconds(postfix) - begun
    found: dict[str, float] = defaultdict(float)
    for pid in before.keys() & after.keys():
        for name, seconds in after[pid].items():
            found[name] += (seconds - before[pid].get(name, 0)) * 1000 / messages
    shown = {name: round(ms, 3) for name, ms in found.items() if ms >= 0.005}
    rest = 1000 * whole / messages - sum(shown.values())
    return shown | {REST: round(max(0.0, rest), 3)}


def rows(profile: dict[str, dict[str, float]]) -> list[str]:
    """Return the services that spend something, the dearest first, the rest last."""
    most: dict[str, float] = defaultdict(float)
    for by_name in profile.values():
        for name, ms in by_name.items():
            most[name] = max(most[name], ms)
    dearest = sorted(most, key=lambda name: -most[name])
    return [name for name in dearest if most[name] >= SHOWN and name != REST] + [REST]


def dearer(ours: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Return by how many ms a message each service spends more, the most first."""
    more = {name: ours.get(name, 0.0) - other.get(name, 0.0) for name in ours | other}
    shown = {name: ms for name, ms in more.items() if abs(ms) >= SAID}
    return dict(sorted(shown.items(), key=lambda item: -item[1]))


def spent(postfix: PrivatePostfix) -> Spent:
    """Return what each process of an instance has used so far, and its children."""
    ports = {postfix.smtp_port: ""}
    ports |= {p: ROLES[usual] for p, usual in zip(postfix.ports[1:], OUR_PORTS)}
    found = {}
    for pid in usage.processes(postfix):
        words = usage.words(pid)
        if not words:
            continue
        name = _name(words, ports)
        found[pid] = {name: usage.own_seconds(pid)}
        if name != MASTER:
            found[pid][f"run by {name}"] = usage.children_seconds(pid)
    return found


def _name(words: list[str], ports: dict[int, str]) -> str:
    """Return a process's name and its service; of a Python process the script."""
    name = os.path.basename(words[0])
    if name.startswith("python"):
        scripts = [each for each in words[1:] if each.startswith("/")]
        return os.path.basename(scripts[0]) if scripts else name
    service = words[words.index("-n") + 1] if "-n" in words[:-1] else ""
    port = service.rpartition(":")[2]
    if port.isdigit():
        service = ports.get(int(port), service)
    return name if service in ("", name) else f"{name} {service}"
