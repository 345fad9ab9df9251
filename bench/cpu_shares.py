"""Whose CPU it is: what each service of an instance spends on a message.

Daemons are kept alive for the pass (max_use), so that what /proc says of them before
and after is all of theirs; what pipe(8) and spawn(8) have waited for stands in their
own entries. The rest of the group is whatever began and ended meanwhile otherwise.
"""

from __future__ import annotations

import os
from collections import defaultdict

import load
import resource_usage
import variants
from private_postfix import DEFAULT_PORTS, PrivatePostfix

ROLES = {
    10026: "archive-handback",
    10027: "archive-capsule",
    10028: "archive-copy",
    10029: "archive-relay",
    10030: "archive-refused",
}
REST = "what began and ended"
MASTER = "master"
MIN_SHOWN = 0.05  # ms, in the table
MIN_DIFFERENCE = 0.2  # ms more or less than another variant
PAIRS = (
    (variants.PIPE, variants.NULL_PIPE),
    (variants.LMTP, variants.NULL_LMTP),
    (variants.LMTP, variants.ALWAYS_BCC),
    (variants.NATIVE_LMTP, variants.ALWAYS_BCC),
)
MAX_USE = "100000"  # max_use: no daemon ends by itself meanwhile

CpuSeconds = dict[int, dict[str, float]]  # CPU seconds by process and name


def cpu_per_message(
    postfix: PrivatePostfix,
    group: resource_usage.ControlGroup,
    mail_load: load.Load,
    messages: int,
) -> dict[str, float]:
    """Return CPU ms a message by service; this is the last that the instance does."""
    postfix.kill()
    postfix.postconf(max_use=MAX_USE)
    with group.entered():
        postfix.start()
    load.run(postfix, group, mail_load, messages)  # so that all daemons are there
    before, group_before = cpu_seconds(postfix), group.seconds(postfix)
    load.send(postfix, mail_load, messages)
    load.wait_for_empty_queue(postfix)
    after, group_seconds = cpu_seconds(postfix), group.seconds(postfix) - group_before
    milliseconds: dict[str, float] = defaultdict(float)
    for pid in before.keys() & after.keys():
        for name, seconds in after[pid].items():
            milliseconds[name] += (seconds - before[pid].get(name, 0)) * 1000 / messages
    rounded = {name: round(ms, 3) for name, ms in milliseconds.items() if ms >= 0.005}
    rest = 1000 * group_seconds / messages - sum(rounded.values())
    return rounded | {REST: round(max(0.0, rest), 3)}


def rows(profile: dict[str, dict[str, float]]) -> list[str]:
    """Return the services that spend something, the dearest first, the rest last."""
    maxima: dict[str, float] = defaultdict(float)
    for by_name in profile.values():
        for name, ms in by_name.items():
            maxima[name] = max(maxima[name], ms)
    names = sorted(maxima, key=lambda name: -maxima[name])
    return [name for name in names if maxima[name] >= MIN_SHOWN and name != REST] + [
        REST
    ]


def cost_differences(
    ours: dict[str, float], other: dict[str, float]
) -> dict[str, float]:
    """Return by how many ms a message each service spends more, the most first."""
    differences = {
        name: ours.get(name, 0.0) - other.get(name, 0.0) for name in ours | other
    }
    reported = {
        name: ms for name, ms in differences.items() if abs(ms) >= MIN_DIFFERENCE
    }
    return dict(sorted(reported.items(), key=lambda item: -item[1]))


def cpu_seconds(postfix: PrivatePostfix) -> CpuSeconds:
    """Return what each process of an instance has used so far, and its children."""
    ports = {postfix.smtp_port: ""}
    ports |= {
        p: ROLES[default_port]
        for p, default_port in zip(postfix.ports[1:], DEFAULT_PORTS)
    }
    seconds_by_pid = {}
    for pid in resource_usage.processes(postfix):
        command = resource_usage.command_line(pid)
        if not command:
            continue
        name = _process_name(command, ports)
        seconds_by_pid[pid] = {name: resource_usage.own_seconds(pid)}
        if name != MASTER:
            seconds_by_pid[pid][f"run by {name}"] = resource_usage.children_seconds(pid)
    return seconds_by_pid


def _process_name(command: list[str], ports: dict[int, str]) -> str:
    """Return a process's name and its service; of a Python process the script."""
    name = os.path.basename(command[0])
    if name.startswith("python"):
        scripts = [each for each in command[1:] if each.startswith("/")]
        return os.path.basename(scripts[0]) if scripts else name
    service = command[command.index("-n") + 1] if "-n" in command[:-1] else ""
    port = service.rpartition(":")[2]
    if port.isdigit():
        service = ports.get(int(port), service)
    return name if service in ("", name) else f"{name} {service}"
