"""Logins by OpenID Connect: the authorization code flow with PKCE.

Authlib checks state, nonce, signature, issuer, audience and time of the ID token
(OpenID Connect Core 3.1.3.7). The provider says who somebody is and in which groups;
an address counts only if it says that it has verified it. Raises LoginFailed and
DirectoryFailed, whose texts name no server; the log has the reason.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.flask_client import FlaskOAuth2App, OAuth
from flask import current_app, session, url_for
from joserfc.errors import JoseError
from werkzeug.wrappers import Response

from postfix_archive.errors import DirectoryFailed, LoginFailed, UserInvalid
from postfix_archive.message.printable import safe_text
from postfix_archive.web import group_roles
from postfix_archive.web.language import gettext as _
from postfix_archive.web.login import local_users
from postfix_archive.web.user import User
from postfix_archive.web.web_settings import WebSettings

SOURCE = "oidc"
TARGET = "oidc_target"  # key of the session: the URL to show after the login
CLIENT = "postfix_archive.oidc"  # in Flask.extensions
DISCOVERY = "/.well-known/openid-configuration"
ANSWER_TIME = 10  # seconds
# Signatures of a key that the provider alone has; never "none".
ALGORITHMS = frozenset(
    {
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
    }
)
SUPPORTED = "id_token_signing_alg_values_supported"
LOGGER = logging.getLogger("postfix_archive.web")


def begin(web: WebSettings, target: str) -> Response:
    """Lead the browser to the provider; target is shown after the login."""
    session[TARGET] = target
    with _translated():
        client = _client(web)
        redirect: Response = client.authorize_redirect(
            web.web_url + url_for("login.oidc_callback")
        )
        return redirect


def finish(web: WebSettings) -> tuple[User, str]:
    """Return who came back from the provider, and what to show."""
    target = session.pop(TARGET, "")
    with _translated():
        claims = _claims(web, _client(web))
    try:
        name = local_users.parse_name(_text(claims.get(web.web_oidc_name_claim)))
    except UserInvalid as error:
        raise _refused(f"claim {web.web_oidc_name_claim}: {error}") from error
    groups = claims.get(web.web_oidc_groups_claim, [])
    groups = groups if isinstance(groups, list) else [groups]
    user = User(
        name,
        SOURCE,
        group_roles.grants_of(web.web_group_roles, filter(None, map(_text, groups))),
        _addresses(claims),
        _text(claims.get("name")),
    )
    return user, target


def _client(web: WebSettings) -> FlaskOAuth2App:
    """Return the client of the provider, whose metadata is read once."""
    client = current_app.extensions.get(CLIENT)
    if client is None:
        client = OAuth(current_app).register(
            SOURCE,
            client_id=web.web_oidc_client_id,
            client_secret=web.web_oidc_client_secret or None,
            server_metadata_url=web.web_oidc_issuer.rstrip("/") + DISCOVERY,
            client_kwargs={
                "scope": "openid email profile",
                "code_challenge_method": "S256",
                "default_timeout": ANSWER_TIME,
                "leeway": 0,  # seconds: else short access tokens count for nothing
                "verify": web.web_oidc_ca_file or True,
            },
        )
    metadata = client.load_server_metadata()
    if metadata.get("issuer") != web.web_oidc_issuer:
        raise _failed(f"web_oidc_issuer: the provider is {metadata.get('issuer')}")
    algorithms = metadata.get(SUPPORTED) or ["RS256"]
    metadata[SUPPORTED] = [each for each in algorithms if each in ALGORITHMS]
    current_app.extensions[CLIENT] = client
    return client


def _claims(web: WebSettings, client: FlaskOAuth2App) -> dict[str, Any]:
    """Return the claims of the ID token, and of userinfo where they are missing."""
    token = client.authorize_access_token(
        claims_options={
            "iss": {"essential": True, "value": web.web_oidc_issuer},
            "aud": {"essential": True, "value": web.web_oidc_client_id},
        }
    )
    claims: dict[str, Any] = token.get("userinfo") or {}
    if not claims.get("sub"):
        raise _refused("no ID token")
    has_all = {"email", web.web_oidc_groups_claim} <= claims.keys()
    if has_all or not client.load_server_metadata().get("userinfo_endpoint"):
        return claims
    more = client.userinfo(token=token)
    if more.get("sub") != claims["sub"]:  # OpenID Connect Core 5.3.2
        raise _refused("userinfo is of somebody else")
    return {**more, **claims}


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (AuthlibBaseError, JoseError) as error:
        raise _refused(str(error)) from error
    except (requests.RequestException, OSError) as error:
        raise _failed(str(error)) from error
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        # What the provider sends is not what the standard says.
        raise _failed(f"{type(error).__name__}: {error}") from error


def _refused(reason: str) -> LoginFailed:
    LOGGER.warning(safe_text(f"oidc-refused {reason}"))
    return LoginFailed(_("the login was not completed: try again"))


def _failed(reason: str) -> DirectoryFailed:
    LOGGER.warning(safe_text(f"oidc-failed {reason}"))
    return DirectoryFailed(
        _("the login service does not answer: try again, or tell the postmaster")
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _addresses(claims: dict[str, Any]) -> tuple[str, ...]:
    """Return the address, if the provider has verified that it is theirs."""
    if claims.get("email_verified") is not True:
        return ()
    try:
        return local_users.parse_addresses([_text(claims.get("email"))])
    except UserInvalid:
        return ()
