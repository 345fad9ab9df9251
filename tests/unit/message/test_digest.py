"""Claims about digests: they are those of hashlib and hmac, whoever reckons them."""

from __future__ import annotations

import _hashlib
import hashlib
import hmac
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.message import digest

_sha256 = pytest.importorskip("_sha2" if sys.version_info >= (3, 12) else "_sha256")

# RFC 4231, 4.2 to 4.8: key, data, HMAC-SHA-256 (of 4.6 the first 128 bits).
RFC_4231 = [
    (
        b"\x0b" * 20,
        b"Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ),
    (
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    (
        b"\xaa" * 20,
        b"\xdd" * 50,
        "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
    ),
    (
        bytes(range(1, 26)),
        b"\xcd" * 50,
        "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
    ),
    (b"\x0c" * 20, b"Test With Truncation", "a3b6167473100ee06e0c796c2955552b"),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (
        b"\xaa" * 131,
        b"This is a test using a larger than block-size key and a larger than"
        b" block-size data. The key needs to be hashed before being used by the HMAC"
        b" algorithm.",
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ),
]


@pytest.fixture(params=["python", "openssl"])
def sha256_source(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Whose SHA-256 it is."""
    monkeypatch.setattr(digest, "sha256", _sha256.sha256)
    if request.param == "openssl":
        digest.select_implementation(digest.OPENSSL_THRESHOLD)
    yield request.param


def test_openssl_comes_for_much_content_and_for_no_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    builtin_sha256 = _sha256.sha256
    monkeypatch.setattr(digest, "sha256", builtin_sha256)
    digest.select_implementation(digest.OPENSSL_THRESHOLD - 1)
    assert digest.sha256 is builtin_sha256
    digest.select_implementation(digest.OPENSSL_THRESHOLD)
    assert digest.sha256 is _hashlib.openssl_sha256 is not builtin_sha256


def test_little_content_does_without_openssl() -> None:
    program = (
        "import sys; sys.path.insert(0, '.');"
        " from postfix_archive.message import digest;"
        " digest.mac(b'k', b'p', b'c'), digest.sha256_hex(b''), digest.equal('a', 'a');"
        " sys.exit('_hashlib' in sys.modules)"
    )
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", program], check=True)


@pytest.mark.usefixtures("sha256_source")
@pytest.mark.parametrize(("key", "data", "expected"), RFC_4231)
def test_the_vectors_of_rfc_4231_come_out(
    key: bytes, data: bytes, expected: str
) -> None:
    assert digest._hmac(key, data).hex()[: len(expected)] == expected


@pytest.mark.usefixtures("sha256_source")
@given(st.binary(max_size=200), st.binary(max_size=20), st.binary(max_size=300))
def test_a_mac_is_that_of_the_standard_library(
    secret: bytes, purpose: bytes, content: bytes
) -> None:
    expected = hmac.digest(secret, purpose + b"\0" + content, "sha256")
    assert digest.mac(secret, purpose, content) == expected


@pytest.mark.usefixtures("sha256_source")
@given(st.lists(st.binary(max_size=300), max_size=5))
def test_a_digest_is_that_of_the_standard_library(pieces: list[bytes]) -> None:
    expected = hashlib.sha256(b"".join(pieces))
    assert digest.sha256_of(pieces).digest() == expected.digest()
    assert digest.sha256_hex(b"".join(pieces)) == expected.hexdigest()


@pytest.mark.parametrize("one", [b"", b"ab", "ab"])
@pytest.mark.parametrize("other", [b"", b"ab", b"abc"])
def test_what_is_compared_is_equal_or_not(one: bytes | str, other: bytes) -> None:
    if isinstance(one, str):
        assert digest.equal(one, other.decode()) == (one.encode() == other)
    else:
        assert digest.equal(one, other) == (one == other)
