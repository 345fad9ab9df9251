"""Mail addresses as bytes: checks, quoting, DSN address types, xtext.

Used wherever an envelope is read or written. Addresses are in the quoted form of RFC
5321 section 4.1.2 (pipe(8) flag q) and stay in it. An archive address must need no
quoting: it names a directory. Also matches client addresses against IP networks.
"""

from __future__ import annotations

# RFC 5322 atext and the dot, without "/": the address names a directory.
LOCAL_CHARS = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    b"!#$%&'*+-=?^_`{|}~."
)
DOMAIN_CHARS = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."
)
QUOTED_CHARS = frozenset(b' ()<>[]:;@\\,"\x7f' + bytes(range(32)))  # RFC 5321 4.1.2
CONTROL_CHARS = bytes(c for c in range(32) if c != 9) + b"\x7f"
XTEXT_CHARS = bytes(c for c in range(33, 127) if c not in b"+=")  # RFC 3461 4
LINE_END_CHARS = frozenset(b"\r\n")
INVALID_DOMAIN_CHARS = frozenset(b'<>" \t')  # RFC 5321 4.1.2: never in a Domain
ADDRESS_LIMIT = 254  # RFC 5321 4.5.3.1.3, less the angle brackets


def domain(address: bytes) -> bytes:
    """Return the part after the last @ in lower case; empty if there is no @."""
    return address.rpartition(b"@")[2].lower() if b"@" in address else b""


def is_plain(address: bytes) -> bool:
    """Return whether the address needs no quoting and can name a directory."""
    local, at, host = address.rpartition(b"@")
    return (
        at == b"@"
        and len(address) <= ADDRESS_LIMIT
        and LOCAL_CHARS.issuperset(local)
        and DOMAIN_CHARS.issuperset(host)
        and _dots_are_inside(local)
        and _dots_are_inside(host)
        and not address.startswith(b"-")
    )


def address_type(address: bytes) -> bytes:
    """Return the address-type: rfc822 (RFC 3464 2.1.2) or utf-8 (RFC 6533 3)."""
    return b"rfc822" if address.isascii() or not is_utf8(address) else b"utf-8"


def is_utf8(address: bytes) -> bool:
    """Return whether the address is UTF-8 (or ASCII), as smtpd(8) requires."""
    try:
        address.decode()
    except UnicodeDecodeError:
        return False
    return True


def fits_smtp(address: bytes) -> bool:
    """Return whether the address can be sent in an SMTP command.

    sendmail(1) accepts a domain such as ``"r.example> NOTIFY=NEVER"``, part of which
    smtpd(8) would parse as a parameter.
    """
    return (
        is_utf8(address)
        and LINE_END_CHARS.isdisjoint(address)
        and INVALID_DOMAIN_CHARS.isdisjoint(domain(address))
    )


def add_type(address: bytes) -> bytes:
    """Return the address as a DSN field value: ``rfc822; address``."""
    return address_type(address) + b"; " + escape_controls(address)


def strip_type(value: bytes) -> bytes:
    """Return the address from a DSN field value such as ``rfc822; address``."""
    return value.partition(b";")[2].strip()


def escape_controls(text: bytes) -> bytes:
    """Return text on one line: control characters except tab become ``\\xNN``.

    sendmail(1) accepts addresses with line breaks, which could begin another field.
    """
    if len(text.translate(None, CONTROL_CHARS)) == len(text):
        return text
    return b"".join(b"\\x%02X" % c if c in CONTROL_CHARS else bytes((c,)) for c in text)


def unquote(address: bytes) -> bytes:
    """Return the internal form: the local part without quotes and backslashes."""
    local, at, host = address.rpartition(b"@")
    if not at:
        local, host = host, b""
    if not (local.startswith(b'"') and local.endswith(b'"') and len(local) > 1):
        return address
    if b"\\" not in local:
        return local[1:-1] + at + host
    unescaped = bytearray()
    escaped = False
    for char in local[1:-1]:
        if char == 0x5C and not escaped:
            escaped = True
            continue
        unescaped.append(char)
        escaped = False
    return bytes(unescaped) + at + host


def quote(address: bytes) -> bytes:
    """Return the quoted form, if the local part needs quotes; inverse of unquote()."""
    local, at, host = address.rpartition(b"@")
    if not at:
        local, host = host, b""
    if _dots_are_inside(local) and not QUOTED_CHARS.intersection(local):
        return address
    escaped = local.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"' + escaped + b'"' + at + host


def as_text(address: bytes) -> str:
    """Return bytes as text for the journal; invalid UTF-8 as lone surrogates."""
    return address.decode("utf-8", "surrogateescape")


def as_bytes(text: str) -> bytes:
    """Return the bytes of a text from the journal; inverse of as_text()."""
    return text.encode("utf-8", "surrogateescape")


def is_network(text: str) -> bool:
    """Return whether text is an IP address or an IPv4 network (address/length)."""
    base, slash, length = text.partition("/")
    if ":" in text:
        return not slash and not base.strip("0123456789abcdefABCDEF:.")
    numbers = base.split(".")
    return (
        len(numbers) == 4
        and all(_is_number(each, 255) for each in numbers)
        and (not slash or _is_number(length, 32))
    )


def is_in_network(client: bytes, network: str) -> bool:
    """Return whether a client address, as Postfix writes it, is in a network.

    A text that is_network() rejects contains no address. Postfix writes ``IPv6:``
    before IPv6 addresses (RFC 5321 4.1.3).
    """
    text = client.decode("latin-1")
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    base, slash, length = network.partition("/")
    if not slash or ":" in text:
        return text == base
    if "/" in text or not (is_network(network) and is_network(text)):
        return False
    width = 32 - int(length)
    return _number(text) >> width == _number(base) >> width


def _number(dotted: str) -> int:
    """Return a dotted IPv4 address as an integer."""
    first, second, third, fourth = map(int, dotted.split("."))
    return (first << 24) + (second << 16) + (third << 8) + fourth


def _is_number(text: str, maximum: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= maximum


def xtext(text: bytes, *, limit: int | None = None) -> bytes:
    """Return text as xtext, for ORCPT, ENVID and XFORWARD (RFC 3461 4).

    The result is cut to limit bytes, never inside an encoded character.
    """
    encoded = text.replace(b"+", b"+2B")
    for char in {*text.translate(None, XTEXT_CHARS)} - {*b"+"}:
        encoded = encoded.replace(bytes((char,)), b"+%02X" % char)
    encoded = encoded[:limit]
    return encoded[: encoded.rindex(b"+")] if b"+" in encoded[-2:] else encoded


def orcpt(address: bytes) -> bytes:
    """Return the value of the ORCPT parameter (RFC 3461 4.2, RFC 6533 3)."""
    if address_type(address) == b"rfc822":
        return b"rfc822;" + xtext(address)
    encoded = (
        c if "!" <= c <= "~" and c not in "+=\\" else f"\\x{{{ord(c):X}}}"
        for c in address.decode()
    )
    return b"utf-8;" + "".join(encoded).encode()


def _dots_are_inside(text: bytes) -> bool:
    return all(text.split(b".")) and bool(text)
