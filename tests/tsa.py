"""A time-stamping authority (RFC 3161) of our own: openssl ts behind an HTTP server.

    with tsa.Authority(directory) as authority:
        archive_tsa_url = authority.url, archive_tsa_certificates = authority.root

Root, intermediate and signer are made by the library cryptography. ``behaviour`` says
how it answers: one of BEHAVIOURS.
"""

from __future__ import annotations

import datetime
import http.server
import socketserver
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BEHAVIOURS = (
    *("right", "nonsense", "empty", "refuses", "other hash", "other nonce"),
    *("other time", "status 500", "redirects", "hangs", "closes"),
)
DAY = datetime.timedelta(days=1)
TSA_CONFIG = """\
[tsa]
default_tsa = here
[here]
serial = {directory}/serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = {digests}
ess_cert_id_alg = sha256
"""


class Authority:
    """An authority that listens on 127.0.0.1. A context manager."""

    def __init__(
        self,
        directory: Path,
        *,
        valid_until: datetime.datetime | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.behaviour = "right"
        self.request_count = 0
        self.is_released = threading.Event()  # what hangs goes on
        _make_certificates(directory, valid_until)
        for file_name, digests in (("tsa", "sha256"), ("other", "sha512")):
            text = TSA_CONFIG.format(directory=directory, digests=digests)
            (directory / f"{file_name}.cnf").write_text(text)
        (directory / "serial").write_text("01\n")
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.authority = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/tsr"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def root(self) -> Path:
        """The file with the root certificate."""
        return self.directory / "root.pem"

    def __enter__(self) -> Authority:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.is_released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reply(self, query: bytes) -> bytes:
        """Return the answer to a request."""
        match self.behaviour:
            case "nonsense":
                return b"<html>no authority here</html>"
            case "empty":
                return b""
            case "refuses":
                return self._sign(query, "other")
            case "other hash":
                return self._sign(self._query(bytes(32)))
            case "other nonce":
                start = query.index(b"\x04\x20") + 2  # OCTET STRING of 32 bytes
                return self._sign(self._query(query[start : start + 32]))
            case "other time":
                return self._sign(query, clock=("faketime", "-f", "+2h"))
        return self._sign(query)

    def _query(self, digest: bytes) -> bytes:
        arguments = ["-digest", digest.hex(), "-sha256", "-cert"]
        return _run("openssl", "ts", "-query", *arguments)

    def _sign(
        self, query: bytes, config: str = "tsa", clock: tuple[str, ...] = ()
    ) -> bytes:
        with tempfile.NamedTemporaryFile() as file:
            file.write(query)
            file.flush()
            path = self.directory
            return _run(
                *(*clock, "openssl", "ts", "-reply", "-section", "here"),
                *("-queryfile", file.name),
                *("-config", str(path / f"{config}.cnf")),
                *("-signer", str(path / "signer.pem")),
                *("-inkey", str(path / "signer.key")),
                *("-chain", str(path / "intermediate.pem")),
            )


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    authority: Authority


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        authority = self.server.authority
        authority.request_count += 1
        query = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/timestamp-query"
        match authority.behaviour:
            case "status 500":
                self.send_error(500)
            case "redirects":
                self.send_response(302)
                self.send_header("Location", "file:///etc/passwd")
                self.end_headers()
            case "hangs":
                self.wfile.write(b"HTTP/1.0 200 OK\r\n")
                authority.is_released.wait()
            case "closes":
                self.connection.close()
            case _:
                content = authority.reply(query)
                self.send_response(200)
                self.send_header("Content-Type", "application/timestamp-reply")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _run(*command: str) -> bytes:
    return subprocess.run(command, capture_output=True, check=True).stdout


def _make_certificates(directory: Path, valid_until: datetime.datetime | None) -> None:
    """Make root, intermediate and signer, each with its key, in a directory."""
    issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None = None
    for file_name in ("root", "intermediate", "signer"):
        key = ec.generate_private_key(ec.SECP256R1())
        common_name = x509.NameAttribute(NameOID.COMMON_NAME, f"Test {file_name}")
        subject = x509.Name([common_name])
        issuer_name, issuer_key = issuer or (subject, key)
        now = datetime.datetime.now(datetime.timezone.utc)
        is_signer = file_name == "signer"
        end = (valid_until if is_signer else None) or now + 3650 * DAY
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, end) - DAY)
            .not_valid_after(end)
        )
        if is_signer:
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
            builder = builder.add_extension(usage, critical=True)
        else:
            constraints = x509.BasicConstraints(ca=True, path_length=None)
            builder = builder.add_extension(constraints, critical=True)
        certificate = builder.sign(issuer_key, hashes.SHA256())
        issuer = subject, key
        pem = serialization.Encoding.PEM
        (directory / f"{file_name}.pem").write_bytes(certificate.public_bytes(pem))
        key_bytes = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (directory / f"{file_name}.key").write_bytes(key_bytes)
