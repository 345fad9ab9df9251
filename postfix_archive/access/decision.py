"""What a user of the web page has asked the access service to carry out.

Used by access_service, which reads it from a request, and by the command that carries
it out. The sizes are bounded, and every id and archive has the form of one, before
anything is done with them.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from postfix_archive import errors
from postfix_archive.access import access_entry
from postfix_archive.access.access_entry import User
from postfix_archive.config import settings
from postfix_archive.errors import ArchiveError
from postfix_archive.message import received_header

WITHOUT_REASON = ("erase-approve", "erase-withdraw")  # as the commands
NAME_LIMIT = 320  # characters of a hold's name or an address: RFC 5321, section 4.5.3.1
IDS_LIMIT = 10_000  # looked up one by one, some milliseconds each


@dataclass(frozen=True)
class Decision:
    """One request; ``kind`` is one of settings.WEB_DECISIONS.

    ``name`` is that of a hold, ``to`` the recipient of a replay. ``ids`` are archive
    ids; what is about one message has one of them and its archive.
    """

    kind: str
    user: User
    reason: str
    name: str
    query: str
    to: str
    ids: tuple[str, ...]
    archives: tuple[str, ...]


def parse(
    fields: Mapping[str, object], user: User, archives: Container[object]
) -> Decision:
    """Return the decision in a request; archives are those of the store.

    Raises ValueError.
    """
    if not user.web_user:
        raise ValueError("a decision needs web_user")
    kind = _text(fields, "decision", NAME_LIMIT)
    if kind not in settings.WEB_DECISIONS:
        raise ValueError("no such decision")
    one = Decision(
        kind=kind,
        user=user,
        reason=_text(fields, "reason", access_entry.TEXT_LIMIT).strip(),
        name=_text(fields, "name", NAME_LIMIT),
        query=_text(fields, "query", access_entry.TEXT_LIMIT),
        to=_text(fields, "to", NAME_LIMIT),
        ids=_texts(fields, "ids"),
        archives=_texts(fields, "archives"),
    )
    if not all(map(received_header.is_archive_id, one.ids)):
        raise ValueError("ids must be archive ids")
    if not all(each in archives for each in one.archives):
        raise ValueError("no such archive")
    if not one.reason and kind not in WITHOUT_REASON:
        raise ValueError("reason must not be empty")
    is_of_hold = kind.startswith("hold-")
    if not is_of_hold and (len(one.ids), len(one.archives)) != (1, 1):
        raise ValueError(f"{kind} is of one id in one archive")
    return one


def _text(fields: Mapping[str, object], key: str, limit: int) -> str:
    text = fields.get(key, "")
    if not isinstance(text, str) or len(text) > limit:
        raise ValueError(f"{key} must be text of at most {limit} characters")
    return text


def _texts(fields: Mapping[str, object], key: str) -> tuple[str, ...]:
    texts = fields.get(key, [])
    if not isinstance(texts, list) or len(texts) > IDS_LIMIT:
        raise ValueError(f"{key} must be a list of at most {IDS_LIMIT}")
    if not all(isinstance(each, str) for each in texts):
        raise ValueError(f"{key} must be text")
    return tuple(texts)


def error_fields(error: ArchiveError) -> dict[str, object]:
    """Return the fields of an answer from which raise_error() makes the same error."""
    return {
        "error": str(error),
        "class": type(error).__name__,
        "arguments": [*error.args],
    }


def raise_error(answer: Mapping[str, object]) -> None:
    """Raise the error in an answer: of the same class, with the same text."""
    if "error" not in answer:
        return
    error_class = vars(errors).get(str(answer.get("class")))
    arguments = answer.get("arguments")
    if (
        isinstance(error_class, type)
        and issubclass(error_class, ArchiveError)
        and isinstance(arguments, list)
    ):
        raise error_class(*arguments)
    raise errors.AccessServiceFailed(str(answer["error"]))
