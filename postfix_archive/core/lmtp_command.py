"""Parses LMTP command lines: verb, address, parameters (RFC 5321 4.1.1, RFC 2033).

Used by intake/lmtp_session. Accepts every address that Postfix's lmtp(8) can send,
invalid ones included: sendmail(1) accepts those, and the stamp filter reinjects them as
it does in pipe mode. Returns None on a syntax error; raises nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HEX = frozenset(b"0123456789ABCDEFabcdef")
NEVER = frozenset(b"\0\r\n")  # in an address; Postfix sends other control characters
NOTIFY = frozenset((b"SUCCESS", b"FAILURE", b"DELAY"))
UNKNOWN = (b"[UNAVAILABLE]", b"[TEMPUNAVAIL]")  # XFORWARD_README
# Supported attributes of XFORWARD, with the names of pipe(8)'s macros.
FORWARDED = {
    b"NAME": b"client-hostname",
    b"ADDR": b"client-address",
    b"PORT": b"client-port",
    b"PROTO": b"client-protocol",
    b"HELO": b"client-helo",
    b"IDENT": b"queue-id",
    b"SOURCE": b"source",
}


def parted(line: bytes) -> tuple[bytes, bytes]:
    """Return the verb of a command line in upper case, and its arguments."""
    verb, _, rest = line.partition(b" ")
    return verb.upper(), rest.strip(b" ")


def mail(text: bytes) -> tuple[bytes, dict[bytes, bytes]] | None:
    """Return sender and parameters from the arguments of MAIL."""
    return _path(text, b"FROM:", MAIL_PARAMETERS)


def rcpt(text: bytes) -> tuple[bytes, dict[bytes, bytes]] | None:
    """Return recipient (never empty) and parameters from the arguments of RCPT."""
    found = _path(text, b"TO:", RCPT_PARAMETERS)
    return found if found and found[0] else None


def xforward(text: bytes) -> dict[bytes, bytes] | None:
    """Return the arguments of XFORWARD, decoded, by the names of pipe(8)'s macros."""
    found = {}
    for word in text.split():
        name, equals, value = word.partition(b"=")
        macro = FORWARDED.get(name.upper())
        plain = unxtext(value)
        if macro is None or not equals or plain is None:
            return None
        found[macro] = b"" if value.upper() in UNKNOWN else plain
    return found or None


def unxtext(coded: bytes) -> bytes | None:
    """Return the bytes that xtext encodes (RFC 3461 4), None if it is malformed."""
    first, *others = coded.split(b"+")
    plain = [first]
    for each in others:
        if len(each) < 2 or not HEX.issuperset(each[:2]):
            return None
        plain.append(bytes.fromhex(each[:2].decode()) + each[2:])
    return b"".join(plain)


def _path(
    text: bytes, before: bytes, known: Mapping[bytes, Callable[[bytes], bool]]
) -> tuple[bytes, dict[bytes, bytes]] | None:
    """Return the address in angle brackets and the parameters after it.

    An address may contain ``>``. It ends at the first one that is followed only by
    valid parameters. A second ``<`` before that ``>`` belongs to a bad parameter.
    """
    if text[: len(before)].upper() != before:
        return None
    path = text[len(before) :].lstrip(b" ")
    if path[:1] != b"<" or not NEVER.isdisjoint(path):
        return None
    end = path.find(b">", _behind_quotes(path))
    while end >= 0:
        words = _parameters(path[end + 1 :], known)
        if words is not None:
            return path[1:end], words
        end = path.find(b">", end + 1)
        if b"<" in path[1 : end + 1]:
            break
    return None


def _behind_quotes(path: bytes) -> int:
    """Return the position of the closing quote in ``<"a b"@example.com>``, else 0."""
    if path[1:2] != b'"':
        return 0
    at = 2
    while at < len(path) and path[at : at + 1] != b'"':
        at += 2 if path[at : at + 1] == b"\\" else 1
    return at if at < len(path) else 0


def _parameters(
    text: bytes, known: Mapping[bytes, Callable[[bytes], bool]]
) -> dict[bytes, bytes] | None:
    """Return the parameters of MAIL or RCPT; None for an unknown, bad or second one."""
    if text[:1] not in (b"", b" "):
        return None
    found: dict[bytes, bytes] = {}
    for word in text.split(b" "):
        name, _, value = word.partition(b"=")
        name = name.upper()
        if not word:
            continue
        if name in found or name not in known or not known[name](value):
            return None
        found[name] = value
    return found


def _is_number(value: bytes) -> bool:
    return value.isdigit() and len(value) <= 20  # RFC 1870 section 4


def _is_body(value: bytes) -> bool:
    return value.upper() in (b"7BIT", b"8BITMIME")


def _is_empty(value: bytes) -> bool:
    return not value


def _is_ret(value: bytes) -> bool:
    return value.upper() in (b"FULL", b"HDRS")


def _is_xtext(value: bytes) -> bool:
    return bool(value) and unxtext(value) is not None


def _is_notify(value: bytes) -> bool:
    words = value.upper().split(b",")
    return words == [b"NEVER"] or NOTIFY.issuperset(words)


def _is_orcpt(value: bytes) -> bool:
    kind, semicolon, coded = value.partition(b";")
    return bool(kind and semicolon) and _is_xtext(coded)


MAIL_PARAMETERS = {
    b"SIZE": _is_number,
    b"BODY": _is_body,
    b"SMTPUTF8": _is_empty,
    b"RET": _is_ret,
    b"ENVID": _is_xtext,
}
RCPT_PARAMETERS = {b"NOTIFY": _is_notify, b"ORCPT": _is_orcpt}
