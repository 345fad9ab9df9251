"""The setting archive_object_store: the URL of a bucket.

Used by the package replicate; pure. Raises SettingInvalid.

    s3://bucket/prefix?endpoint=https://s3.example.com:9000&region=eu-central-1
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from postfix_archive.errors import SettingInvalid

SCHEME = "s3"
PARAMETERS = ("endpoint", "region")
# For endpoints without regions, which take any; it is also AWS's first.
DEFAULT_REGION = "us-east-1"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
BUCKET_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")
PREFIX_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./"
)
EXAMPLE = "s3://bucket/prefix?endpoint=https://s3.example.com&region=eu-central-1"


class ObjectStore:
    """Where the objects are. ``endpoint`` is "" for AWS itself, ``prefix`` may be "".

    A prefix ends with a slash.
    """

    __slots__ = ("bucket", "endpoint", "prefix", "region", "url")

    def __init__(
        self, url: str, bucket: str, prefix: str, endpoint: str, region: str
    ) -> None:
        self.url = url
        self.bucket = bucket
        self.prefix = prefix
        self.endpoint = endpoint
        self.region = region


def parse(url: str) -> ObjectStore:
    """Return the parts of a URL."""
    location = f"archive_object_store = {url}"
    try:
        parts = urlsplit(url)
        values = parse_qsl(parts.query, strict_parsing=True) if parts.query else []
        endpoint = urlsplit(dict(values).get("endpoint", ""))
        has_valid_port = (endpoint.port or 1) > 0
    except ValueError as error:
        raise SettingInvalid(f"{location}: {error}; an example: {EXAMPLE}") from None
    names = [name for name, _ in values]
    prefix = parts.path.strip("/")
    bucket = parts.netloc
    if (
        parts.scheme != SCHEME
        or parts.fragment
        or not has_valid_port
        or not 3 <= len(bucket) <= 63
        or not BUCKET_CHARACTERS.issuperset(bucket)
        or not PREFIX_CHARACTERS.issuperset(prefix)
        or (prefix and {"", ".", ".."} & {*prefix.split("/")})
        or {*names} - {*PARAMETERS}
        or len({*names}) != len(names)
    ):
        raise SettingInvalid(f"{location}: must be a URL such as {EXAMPLE}")
    _check_endpoint(endpoint.scheme, endpoint.hostname, dict(values), location)
    return ObjectStore(
        url,
        bucket,
        f"{prefix}/" if prefix else "",
        dict(values).get("endpoint", ""),
        dict(values).get("region", DEFAULT_REGION),
    )


def _check_endpoint(
    scheme: str, host: str | None, values: dict[str, str], location: str
) -> None:
    """Refuse what would send mail in the clear over a network."""
    if "endpoint" not in values:
        return
    if not host or scheme not in ("http", "https"):
        raise SettingInvalid(f"{location}: endpoint must be a URL, https://host:port")
    if scheme == "http" and host not in LOOPBACK:
        raise SettingInvalid(
            f"{location}: endpoint: http would send mail in the clear; use https, or"
            " http to an address of this host (127.0.0.1) where a proxy encrypts"
        )
