"""Carries out what users of the web page decide: holds, erasures, replays.

Used by the command access-service, whose process is that of the archive's user. Each
does what the command of that name does, and raises the same errors; DecisionRefused for
what archive_web_decisions does not have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from postfix_archive.access import access_recorder
from postfix_archive.access.access_entry import Entry
from postfix_archive.access.decision import Decision
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import DecisionRefused, ReplayFailed
from postfix_archive.export import replay as replaying
from postfix_archive.export import stored_message
from postfix_archive.export.replay import Replay
from postfix_archive.message.envelope import Recipient
from postfix_archive.retention import erasure, holds
from postfix_archive.search import look_up
from postfix_archive.store import record_reader

Warn = Callable[[str], None]


def carry_out(settings: Settings, one: Decision, warn: Warn) -> str:
    """Carry out a decision, durably; return the queue ids of a replay, else "".

    warn gets what the postmaster should know.
    """
    if one.kind not in settings.archive_web_decisions:
        raise DecisionRefused(
            f"archive_web_decisions in archive.cf does not have {one.kind}: do it at"
            " the host, with postfix-archive"
        )
    return ACTIONS[one.kind](settings, one, warn)


def _add_hold(settings: Settings, one: Decision, warn: Warn) -> str:
    hold = holds.add(
        settings,
        one.name,
        query=one.query,
        ids=one.ids,
        archives=one.archives,
        reason=one.reason,
        user=one.user,
    )
    store = settings.archive_store_directory
    archives = one.archives or record_reader.archives(store)
    ids = hold.ids or {each: () for each in archives}
    _record(settings, one, "hold", ids, warn, query=one.query or one.name)
    return ""


def _release_hold(settings: Settings, one: Decision, warn: Warn) -> str:
    hold = holds.find(settings, one.name, must_be_open=True)
    ids: dict[str, tuple[()]] = {archive: () for archive in sorted(hold.journals)}
    _record(settings, one, "hold", ids, warn, query=f"release {one.name}")
    holds.release(settings, one.name, one.reason, one.user)
    return ""


def _request_erasure(settings: Settings, one: Decision, warn: Warn) -> str:
    requester = erasure.web_person(settings, one.user.web_user)
    place = look_up.find(settings, one.ids[0], one.archives[0])
    _record_erase(settings, one, "erase request", warn)
    erasure.request(settings, place, one.reason, requester, warn, one.user)
    return ""


def _approve_erasure(settings: Settings, one: Decision, warn: Warn) -> str:
    approver = erasure.web_person(settings, one.user.web_user)
    request = erasure.find(settings, one.ids[0], one.archives[0])
    erasure.require_other(request, approver)
    if request.is_open:
        erasure.require_free(settings, request, warn)
        _record_erase(settings, one, "erase approve", warn)
    erasure.approve(settings, request, approver, warn)
    return ""


def _withdraw_erasure(settings: Settings, one: Decision, _: Warn) -> str:
    who = erasure.web_person(settings, one.user.web_user)
    request = erasure.find(settings, one.ids[0], one.archives[0])
    erasure.withdraw(settings, request, who, one.user)
    return ""


def _replay(settings: Settings, one: Decision, warn: Warn) -> str:
    allowed = {each.lower(): each for each in settings.archive_replay_to}
    to = allowed.get(one.to.lower())
    if to is None:
        raise ReplayFailed(
            f"archive_replay_to in archive.cf does not have {one.to}; it has"
            f" {', '.join(settings.archive_replay_to) or 'no address'}"
        )
    plan = Replay(settings, archive_cf.load_keys(settings), False, int(time.time()))
    recipients = (Recipient(replaying.parse_recipient(to)),)
    record = look_up.find_record(settings, one.ids[0], one.archives[0])
    _record(settings, one, "replay", _ids(one), warn, query=f"to {to}")
    messages = stored_message.of_record(record)
    return " ".join(plan.send(each, recipients) for each in messages)


def _record_erase(settings: Settings, one: Decision, step: str, warn: Warn) -> None:
    """Record it without the reason of the request, which may be erased."""
    without_reason = Entry(one.user, "erase", one.ids[0], step, ())
    access_recorder.append_or_log(settings, _ids(one), without_reason, warn)


def _record(
    settings: Settings,
    one: Decision,
    action: str,
    ids: Mapping[str, Sequence[str]],
    warn: Warn,
    *,
    query: str,
) -> None:
    entry = Entry(one.user, action, query, one.reason, ())
    access_recorder.append_or_log(settings, ids, entry, warn)


def _ids(one: Decision) -> dict[str, tuple[str, ...]]:
    return {one.archives[0]: one.ids}


ACTIONS: dict[str, Callable[[Settings, Decision, Warn], str]] = {
    "hold-add": _add_hold,
    "hold-release": _release_hold,
    "erase-request": _request_erasure,
    "erase-approve": _approve_erasure,
    "erase-withdraw": _withdraw_erasure,
    "replay": _replay,
}
