"""Reads the command lines of LMTP: verb, address, parameters.

Used by lmtp. Takes every address that Postfix's lmtp(8) can send, also those that
SMTP should not carry: sendmail(1) lets them through, and the door hands them back by
the same way as the pipe door. Returns None for what cannot be read; raises nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HEX = frozenset(b"0123456789ABCDEFabcdef")
NEVER = frozenset(b"\0\r\n")  # in an address; other controls Postfix lets through
NOTIFY = frozenset((b"SUCCESS", b"FAILURE", b"DELAY"))
UNKNOWN = (b"[UNAVAILABLE]", b"[TEMPUNAVAIL]")  # XFORWARD_README
# The attributes of XFORWARD that are offered, with the names of pipe(8)'s macros.
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
    """Return the verb of a command line in upper case, and what stands behind it."""
    verb, _, rest = line.partition(b" ")
    return verb.upper(), rest.strip(b" ")


def mail(text: bytes) -> tuple[bytes, dict[bytes, bytes]] | None:
    """Return the sender and the parameters of what follows MAIL."""
    return _path(text, b"FROM:", MAIL_PARAMETERS)


def rcpt(text: bytes) -> tuple[bytes, dict[bytes, bytes]] | None:
    """Return the recipient and the parameters of what follows RCPT; never no one."""
    found = _path(text, b"TO:", RCPT_PARAMETERS)
    return found if found and found[0] else None


def xforward(text: bytes) -> dict[bytes, bytes] | None:
    """Return the attributes of what follows XFORWARD, decoded, by pipe(8)'s names."""
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
    """Return what xtext stands for (RFC 3461 4), None if it is none."""
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
    """Return the address in angle brackets and the parameters behind it.

    An address may have ``>`` in it. The first one counts behind which there is nothing
    but parameters; with ``<`` before it, it belongs to a parameter that nobody offered.
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
    """Return where the quoted local part of ``<"a b"@example.com>`` ends, else 0."""
    if path[1:2] != b'"':
        return 0
    at = 2
    while at < len(path) and path[at : at + 1] != b'"':
        at += 2 if path[at : at + 1] == b"\\" else 1
    return at if at < len(path) else 0


def _parameters(
    text: bytes, known: Mapping[bytes, Callable[[bytes], bool]]
) -> dict[bytes, bytes] | None:
    """Return the parameters of MAIL or RCPT, each once and each as it may be."""
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
