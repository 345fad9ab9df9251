"""Time stamps of RFC 3161 authorities: asks for one over HTTP (3.4), checks one.

Used by sealing and signatures. The library rfc3161-client makes the request and checks
signature, certificate chain, nonce and digest; it is imported when it is needed.
Raises TimeStampFailed and LibraryMissing.
"""

from __future__ import annotations

import contextlib
import datetime
import http.client
import re
import threading
import urllib.error
import urllib.request
import warnings
from collections import Counter
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from postfix_archive.errors import LibraryMissing, TimeStampFailed

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

# Seconds for the whole exchange. Public authorities take one or two.
TIME_LIMIT = 60.0
REPLY_LIMIT = 1 << 20  # bytes; replies with certificates have some 6 KB
# Seconds by which the times of seal and stamp may differ.
CLOCK_SLACK = 3600.0
SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
)


PEM_CERTIFICATE = re.compile(b"-----BEGIN CERTIFICATE-----.*?-----END [^\n]*", re.S)
OPENSSL_ERROR = re.compile(r'data: "(?:Verify error: ?)?([^"]+)"')


class Stamp(NamedTuple):
    """A time stamp: the authority's reply, when it was made, certificates as PEM.

    The certificates are those in the reply and the root, to check it with later.
    """

    reply: bytes
    time: datetime.datetime
    certificates: bytes


def load_roots(path: str) -> list[Certificate]:
    """Return the certificates in a PEM file; "" stands for the system's.

    Raises TimeStampFailed.
    """
    _import_library()
    paths = (path,) if path else SYSTEM_CERTIFICATES
    for each in paths:
        try:
            with open(each, "rb") as file:
                certificates = parse_certificates(file.read())
        except FileNotFoundError:
            continue
        except OSError as error:
            raise TimeStampFailed(
                f"{each}: {error.strerror}; check archive_tsa_certificates"
            ) from error
        if certificates:
            return certificates
        raise TimeStampFailed(
            f"{each}: no certificates in PEM form; check archive_tsa_certificates"
        )
    raise TimeStampFailed(
        f"{paths[0]}: no such file; set archive_tsa_certificates to a file with the"
        " root certificates of the authorities"
    )


def parse_certificates(content: bytes) -> list[Certificate]:
    """Return the certificates in PEM; one that cannot be parsed is not trusted.

    Systems have roots whose numbers RFC 5280 does not allow.
    """
    from cryptography import x509

    certificates = []
    for text in PEM_CERTIFICATE.findall(content):
        with warnings.catch_warnings(), contextlib.suppress(ValueError):
            warnings.simplefilter("ignore")
            certificates.append(x509.load_pem_x509_certificate(text))
    return certificates


def request(url: str, content: bytes, roots: list[Certificate]) -> Stamp:
    """Have content time-stamped by an authority; return its stamp, which is valid."""
    library = _import_library()
    query = library.TimestampRequestBuilder(
        data=content, hash_algorithm=library.base.HashAlgorithm.SHA256
    ).build()
    reply = _exchange(url, query.as_bytes())
    try:
        stamp = check(reply, content, roots, nonce=query.nonce)
    except TimeStampFailed as error:
        raise TimeStampFailed(f"{url}: {error}") from error
    difference = stamp.time.timestamp() - datetime.datetime.now().timestamp()
    if abs(difference) > CLOCK_SLACK:
        raise TimeStampFailed(
            f"{url}: its time {stamp.time:%Y-%m-%dT%H:%M:%SZ} differs from this host's"
            " clock by more than an hour; check the clock"
        )
    return stamp


def check(
    reply: bytes, content: bytes, roots: list[Certificate], *, nonce: int | None = None
) -> Stamp:
    """Return a reply as a stamp if it is valid for content, with a root that is known.

    The certificates must have been valid at the time of the stamp.
    """
    library = _import_library()
    try:
        response = library.decode_timestamp_response(_with_sorted_certificates(reply))
        status, texts = response.status, response.status_string
    except ValueError as error:
        raise TimeStampFailed("the reply is not a time stamp (RFC 3161)") from error
    if status:
        text = " ".join([f"status {status}", *map(str, texts)])
        raise TimeStampFailed(f"the authority refused: {text}")
    try:
        _verify(library, response, content, roots, nonce)
        time = response.tst_info.gen_time
        certificates = _certificates(response.signed_data.certificates, roots)
    except (library.VerificationError, ValueError) as error:
        raise TimeStampFailed(f"the time stamp is invalid: {_reason(error)}") from error
    return Stamp(reply, time, certificates)


def _verify(
    library: ModuleType,
    response: Any,
    content: bytes,
    roots: list[Certificate],
    nonce: int | None,
) -> None:
    """Raise VerificationError unless a response is valid with one of the roots.

    Of several with one name, as after a change of key, OpenSSL may try the wrong one.
    """
    counts = Counter(each.subject for each in roots)
    for some in (*([each] for each in roots if counts[each.subject] > 1), roots):
        verifier = library.VerifierBuilder(roots=some, nonce=nonce).build()
        try:
            verifier.verify_message(response, content)
            return
        except (library.VerificationError, ValueError):
            if some is roots:
                raise


def _reason(error: Exception) -> str:
    """Return what the library found, of OpenSSL's error stack only what it says."""
    text = " ".join(str(error).split())
    match = OPENSSL_ERROR.search(text)
    if match is None:
        return text[:300]
    return f"{match[1]}; do its certificates lead to one in archive_tsa_certificates?"


def _certificates(encoded: set[bytes], roots: list[Certificate]) -> bytes:
    """Return the certificates of a reply and the root above them as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    certificates = [x509.load_der_x509_certificate(each) for each in sorted(encoded)]
    issuers = {each.issuer for each in certificates}
    certificates += [
        each for each in roots if each.subject in issuers and each not in certificates
    ]
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


# Where the certificates are: the elements to descend into, from TimeStampResp (RFC 3161
# 2.4.2) by TimeStampToken and its content to SignedData (RFC 5652 5.1), and their tag.
CERTIFICATES_PATH, CERTIFICATES_TAG = (1, 1, 0, 3), 0xA0


def _with_sorted_certificates(reply: bytes) -> bytes:
    """Return a reply with its certificates in the order of DER (X.690 11.6).

    openssl ts, and so many an authority, leaves them unsorted, and the library refuses
    that. No signature covers them.
    """
    try:
        element = _elements(reply, 0, len(reply))[0]
        for index in CERTIFICATES_PATH:
            element = _elements(reply, element.content, element.end)[index]
        certificates = _elements(reply, element.content, element.end)
    except IndexError:
        return reply  # the library says what is wrong with it
    if element.tag != CERTIFICATES_TAG:
        return reply
    contents = sorted(reply[each.start : each.end] for each in certificates)
    return reply[: element.content] + b"".join(contents) + reply[element.end :]


class _Element(NamedTuple):
    """An element of DER: its tag, and the positions of its parts in bytes."""

    tag: int
    start: int
    content: int
    end: int


def _elements(encoded: bytes, start: int, end: int) -> list[_Element]:
    """Return the elements between two positions. Raises IndexError."""
    elements = []
    while start < end:
        content, size = start + 2, encoded[start + 1]
        if size & 0x80:  # the long form: the number of bytes of the size
            content += size & 0x7F
            size = int.from_bytes(encoded[start + 2 : content], "big")
        if content + size > end:
            raise IndexError
        elements.append(_Element(encoded[start], start, content, content + size))
        start = content + size
    return elements


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET without the request: an error is clearer."""

    def redirect_request(self, *_: object) -> None:
        return None


def _exchange(url: str, query: bytes) -> bytes:
    """Return the reply to a request within TIME_LIMIT, however slowly bytes come."""
    results: list[bytes | TimeStampFailed] = []
    thread = threading.Thread(
        target=lambda: results.append(_try_exchange(url, query)), daemon=True
    )
    thread.start()
    thread.join(TIME_LIMIT)
    result = results[0] if results else _late(url)
    if isinstance(result, TimeStampFailed):
        raise result
    return result


def _try_exchange(url: str, query: bytes) -> bytes | TimeStampFailed:
    """Return the reply to a request, or why there is none."""
    http_request = urllib.request.Request(
        url, query, {"Content-Type": "application/timestamp-query"}
    )
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(http_request, timeout=TIME_LIMIT) as response:
            reply: bytes = response.read(REPLY_LIMIT)
            return reply
    except urllib.error.HTTPError as error:
        with error:
            return _failure(url, f"HTTP status {error.code} {error.reason}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return _late(url)
        reason = getattr(reason, "strerror", None) or reason
        return _failure(url, str(reason) or type(error).__name__)


def _late(url: str) -> TimeStampFailed:
    return _failure(url, f"no reply in {TIME_LIMIT:.0f} s")


def _failure(url: str, reason: str) -> TimeStampFailed:
    text = " ".join(reason.split())[:300]
    return TimeStampFailed(f"{url}: {text}; check archive_tsa_url")


def _import_library() -> ModuleType:
    try:
        import rfc3161_client
    except ImportError as error:
        raise LibraryMissing(
            f"{error}; run make install WITH=seal, or pip install"
            " 'postfix-archive[seal]'"
        ) from error
    return rfc3161_client
