"""Parses LMTP command lines: verb, address, parameters (RFC 5321 4.1.1, RFC 2033).

Used by intake/lmtp_session. Accepts every address that Postfix's lmtp(8) can send,
invalid ones included: sendmail(1) accepts those, and the stamp filter reinjects them as
it does in pipe mode. Returns None on a syntax error; raises nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HEX_DIGITS = frozenset(b"0123456789ABCDEFabcdef")
FORBIDDEN_BYTES = frozenset(
    b"\0\r\n"
)  # in an address; Postfix sends other control characters
NOTIFY_KEYWORDS = frozenset((b"SUCCESS", b"FAILURE", b"DELAY"))
UNAVAILABLE_VALUES = (b"[UNAVAILABLE]", b"[TEMPUNAVAIL]")  # XFORWARD_README
# Supported attributes of XFORWARD, with the names of pipe(8)'s macros.
XFORWARD_MACROS = {
    b"NAME": b"client-hostname",
    b"ADDR": b"client-address",
    b"PORT": b"client-port",
    b"PROTO": b"client-protocol",
    b"HELO": b"client-helo",
    b"IDENT": b"queue-id",
    b"SOURCE": b"source",
}


def split_command(line: bytes) -> tuple[bytes, bytes]:
    """Return the verb of a command line in upper case, and its arguments."""
    verb, _, arguments = line.partition(b" ")
    return verb.upper(), arguments.strip(b" ")


def parse_mail(arguments: bytes) -> tuple[bytes, dict[bytes, bytes]] | None:
    """Return sender and parameters from the arguments of MAIL."""
    return _parse_path(arguments, b"FROM:", MAIL_PARAMETERS)


def parse_rcpt(arguments: bytes) -> tuple[bytes, dict[bytes, bytes]] | None:
    """Return recipient (never empty) and parameters from the arguments of RCPT."""
    parsed = _parse_path(arguments, b"TO:", RCPT_PARAMETERS)
    return parsed if parsed and parsed[0] else None


def parse_xforward(arguments: bytes) -> dict[bytes, bytes] | None:
    """Return the arguments of XFORWARD, decoded, by the names of pipe(8)'s macros."""
    attributes = {}
    for argument in arguments.split():
        name, equals, value = argument.partition(b"=")
        macro = XFORWARD_MACROS.get(name.upper())
        decoded = decode_xtext(value)
        if macro is None or not equals or decoded is None:
            return None
        attributes[macro] = b"" if value.upper() in UNAVAILABLE_VALUES else decoded
    return attributes or None


def decode_xtext(encoded: bytes) -> bytes | None:
    """Return the bytes that xtext encodes (RFC 3461 4), None if it is malformed."""
    first, *escapes = encoded.split(b"+")
    parts = [first]
    for each in escapes:
        if len(each) < 2 or not HEX_DIGITS.issuperset(each[:2]):
            return None
        parts.append(bytes.fromhex(each[:2].decode()) + each[2:])
    return b"".join(parts)


def _parse_path(
    text: bytes, prefix: bytes, validators: Mapping[bytes, Callable[[bytes], bool]]
) -> tuple[bytes, dict[bytes, bytes]] | None:
    """Return the address in angle brackets and the parameters after it.

    An address may contain ``>``. It ends at the first one that is followed only by
    valid parameters. A second ``<`` before that ``>`` belongs to a bad parameter.
    """
    if text[: len(prefix)].upper() != prefix:
        return None
    path = text[len(prefix) :].lstrip(b" ")
    if path[:1] != b"<" or not FORBIDDEN_BYTES.isdisjoint(path):
        return None
    end = path.find(b">", _closing_quote(path))
    while end >= 0:
        parameters = _parse_parameters(path[end + 1 :], validators)
        if parameters is not None:
            return path[1:end], parameters
        end = path.find(b">", end + 1)
        if b"<" in path[1 : end + 1]:
            break
    return None


def _closing_quote(path: bytes) -> int:
    """Return the position of the closing quote in ``<"a b"@example.com>``, else 0."""
    if path[1:2] != b'"':
        return 0
    if b"\\" not in path:
        return max(0, path.find(b'"', 2))
    position = 2
    while position < len(path) and path[position : position + 1] != b'"':
        position += 2 if path[position : position + 1] == b"\\" else 1
    return position if position < len(path) else 0


def _parse_parameters(
    text: bytes, validators: Mapping[bytes, Callable[[bytes], bool]]
) -> dict[bytes, bytes] | None:
    """Return the parameters of MAIL or RCPT; None for an unknown, bad or second one."""
    if text[:1] not in (b"", b" "):
        return None
    parameters: dict[bytes, bytes] = {}
    for parameter in text.split(b" "):
        name, _, value = parameter.partition(b"=")
        name = name.upper()
        if not parameter:
            continue
        if name in parameters or name not in validators or not validators[name](value):
            return None
        parameters[name] = value
    return parameters


def _is_number(value: bytes) -> bool:
    return value.isdigit() and len(value) <= 20  # RFC 1870 section 4


def _is_body(value: bytes) -> bool:
    return value.upper() in (b"7BIT", b"8BITMIME")


def _is_empty(value: bytes) -> bool:
    return not value


def _is_ret(value: bytes) -> bool:
    return value.upper() in (b"FULL", b"HDRS")


def _is_xtext(value: bytes) -> bool:
    return bool(value) and decode_xtext(value) is not None


def _is_notify(value: bytes) -> bool:
    keywords = value.upper().split(b",")
    return keywords == [b"NEVER"] or NOTIFY_KEYWORDS.issuperset(keywords)


def _is_orcpt(value: bytes) -> bool:
    address_type, semicolon, encoded = value.partition(b";")
    return bool(address_type and semicolon) and _is_xtext(encoded)


MAIL_PARAMETERS = {
    b"SIZE": _is_number,
    b"BODY": _is_body,
    b"SMTPUTF8": _is_empty,
    b"RET": _is_ret,
    b"ENVID": _is_xtext,
}
RCPT_PARAMETERS = {b"NOTIFY": _is_notify, b"ORCPT": _is_orcpt}
