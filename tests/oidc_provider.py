"""A small OpenID provider on loopback, for tests: a real HTTP server.

    with oidc_provider.Provider() as provider:
        web_oidc_issuer = provider.issuer

``claims`` are those of the next ID token besides what the standard demands, and
``userinfo`` what its endpoint says. ``behaviour`` says what is wrong with them: one of
BEHAVIOURS.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "mail archive", "the secret of the page"
ATTACKS = (
    *("other nonce", "no nonce", "other issuer", "other audience", "expired"),
    *("other key", "unsigned", "signed by the client secret", "no ID token"),
    *("userinfo of another", "refuses", "no subject"),
)
FAULTS = ("other metadata", "status 500", "nonsense")
BEHAVIOURS = ("right", *ATTACKS, *FAULTS)


class Provider:
    """An OpenID provider. A context manager."""

    def __init__(self) -> None:
        self.behaviour = "right"
        self.claims: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.requests: list[dict[str, str]] = []  # of the authorization endpoint
        self._key = RSAKey.generate_key(2048, {"kid": "k1"})
        self._other_key = RSAKey.generate_key(2048, {"kid": "k1"})
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.answer(self, "")

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                provider.answer(self, self.rfile.read(length).decode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, handler: http.server.BaseHTTPRequestHandler, body: str) -> None:
        """Answer one request."""
        url = urlsplit(handler.path)
        fields = {k: v[0] for k, v in parse_qs(body or url.query).items()}
        if url.path == "/authorize":
            handler.send_response(302)
            handler.send_header("Location", self._authorize(fields))
            handler.end_headers()
            return
        content: object
        if url.path == "/token":
            content = self._token(fields, handler.headers["Authorization"])
        else:
            content = {
                "/.well-known/openid-configuration": self._metadata(),
                "/jwks": {"keys": [self._key.as_dict(private=False)]},
                "/userinfo": {"sub": self._subject(), **self.userinfo},
            }[url.path]
        if self.behaviour == "userinfo of another" and url.path == "/userinfo":
            content = {"sub": "somebody else", "groups": ["auditors"]}
        handler.send_response(500 if self.behaviour == "status 500" else 200)
        handler.send_header("Content-Type", "application/json")
        handler.end_headers()
        text = "<html>" if self.behaviour == "nonsense" else json.dumps(content)
        handler.wfile.write(text.encode())

    def _subject(self) -> object:
        return self.claims.get("sub", "248289761001")

    def _metadata(self) -> dict[str, object]:
        is_other = self.behaviour == "other metadata"
        return {
            "issuer": "https://other.example" if is_other else self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
        }

    def _authorize(self, fields: dict[str, str]) -> str:
        self.requests.append(fields)
        answer = {"state": fields["state"], "code": f"code{len(self.requests)}"}
        if self.behaviour == "refuses":
            answer = {"state": fields["state"], "error": "access_denied"}
        return f"{fields['redirect_uri']}?{urlencode(answer)}"

    def _token(self, fields: dict[str, str], authorization: str) -> object:
        [request] = [
            each
            for number, each in enumerate(self.requests, 1)
            if fields["code"] == f"code{number}"
        ]
        credentials = base64.b64decode(authorization.split()[1]).decode()
        assert credentials == f"{CLIENT_ID}:{CLIENT_SECRET}"
        assert fields["redirect_uri"] == request["redirect_uri"]
        assert request["code_challenge_method"] == "S256"
        digest = hashlib.sha256(fields["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        assert challenge == request["code_challenge"]
        answer = {"access_token": "x", "token_type": "Bearer", "expires_in": 60}
        if self.behaviour != "no ID token":
            answer["id_token"] = self._id_token(request["nonce"])
        return answer

    def _id_token(self, nonce: str) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": self._subject(),
            "iat": now,
            "exp": now + 60,
            "nonce": nonce,
            **self.claims,
        }
        match self.behaviour:
            case "other nonce":
                claims["nonce"] = "x"
            case "no nonce":
                del claims["nonce"]
            case "other issuer":
                claims["iss"] = "https://other.example"
            case "other audience":
                claims["aud"] = "another client"
            case "expired":
                claims |= {"iat": now - 7200, "exp": now - 3600}
            case "no subject":
                del claims["sub"]
            case "unsigned":
                parts = [{"alg": "none"}, claims]
                return ".".join([*map(_encode, parts), ""])
            case "signed by the client secret":
                return _signed_by_secret(claims)
        key = self._other_key if self.behaviour == "other key" else self._key
        return jwt.encode({"alg": "RS256", "kid": "k1"}, claims, key)

    def __enter__(self) -> Provider:
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _encode(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def _signed_by_secret(claims: dict[str, Any]) -> str:
    text = f"{_encode({'alg': 'HS256'})}.{_encode(claims)}"
    mac = hmac.digest(CLIENT_SECRET.encode(), text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
