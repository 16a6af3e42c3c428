"""OpenID Connect (Core 1.0, Discovery 1.0): the authorization code flow with PKCE (RFC 7636) and a nonce.

The provider's metadata and keys are read at each log-in, so a key that it changes needs nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from gateway.errors import AccountError
from gateway.security.passwords import new_secret
from gateway.security.tls import client_context
from gateway.settings import OidcSettings

_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
_TIMEOUT_S = 10.0
_CLOCKS_S = 120  # between the provider's clock and ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a log-in began with, and must end with."""

    redirect_uri: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who has logged in at the provider."""

    name: str
    full_name: str
    groups: tuple[str, ...]


class Provider:
    """An OpenID provider."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings

    def begin(self, redirect_uri: str, state: str) -> tuple[str, Asked]:
        """Return where the browser goes to log in, and what the end needs.

        Raises
        ------
        AccountError
            The provider cannot be reached, or is another one.
        """
        asked = Asked(redirect_uri=redirect_uri, nonce=new_secret(), verifier=new_secret())
        with self._client() as client:
            endpoint = self._metadata(client)["authorization_endpoint"]
        address: str = prepare_grant_uri(
            endpoint,
            self._settings.client_id,
            "code",
            redirect_uri=redirect_uri,
            scope=" ".join(self._settings.scopes),
            state=state,
            nonce=asked.nonce,
            code_challenge=create_s256_code_challenge(asked.verifier),
            code_challenge_method="S256",
        )
        return address, asked

    def end(self, asked: Asked, code: str) -> Person:
        """Return who has logged in, for the code that the browser has brought back.

        Raises
        ------
        AccountError
            The provider refuses the code, or its token is not for us, not for this log-in, or not its own.
        """
        with self._client() as client:
            metadata = self._metadata(client)
            tokens = self._answer(client, "POST", metadata["token_endpoint"], self._token_request(asked, code))
            keys: Any = self._answer(client, "GET", metadata["jwks_uri"])
        try:
            token = jwt.decode(str(tokens.get("id_token", "")), KeySet.import_key_set(keys), algorithms=_ALGORITHMS)
            claims = CodeIDToken(
                token.claims,
                token.header,
                options={"iss": {"value": self._settings.issuer}, "aud": {"value": self._settings.client_id}},
                params={
                    "nonce": asked.nonce,
                    "client_id": self._settings.client_id,
                    "access_token": tokens.get("access_token"),
                },
            )
            claims.validate(leeway=_CLOCKS_S)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise AccountError(f"the token of the provider is not valid: {type(error).__name__}") from error
        return self._person(dict(claims))

    def _person(self, claims: dict[str, Any]) -> Person:
        name, groups = claims.get(self._settings.name_claim), claims.get(self._settings.groups_claim) or []
        if not isinstance(name, str) or not name:
            raise AccountError(f"the token of the provider has no {self._settings.name_claim}")
        groups = [groups] if isinstance(groups, str) else groups
        known = tuple(str(group) for group in groups) if isinstance(groups, list) else ()
        return Person(name=name, full_name=str(claims.get("name") or "")[:64], groups=known)

    def _token_request(self, asked: Asked, code: str) -> dict[str, str]:
        return {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": asked.redirect_uri,
            "code_verifier": asked.verifier,
        }

    def _client(self) -> httpx.Client:
        return httpx.Client(verify=client_context(self._settings.tls), timeout=_TIMEOUT_S, trust_env=False)

    def _metadata(self, client: httpx.Client) -> dict[str, Any]:
        address = f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        metadata = self._answer(client, "GET", address)
        if metadata.get("issuer") != self._settings.issuer:
            raise AccountError(f"the provider calls itself {metadata.get('issuer')}, not {self._settings.issuer}")
        needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        if missing := [name for name in needed if not isinstance(metadata.get(name), str)]:
            raise AccountError(f"the provider states no {missing[0]}")
        return metadata

    def _answer(
        self, client: httpx.Client, method: str, address: str, form: dict[str, str] | None = None
    ) -> dict[str, Any]:
        try:
            secret = self._settings.client_secret_file.read_text(encoding="utf-8").strip() if form else ""
            auth = httpx.BasicAuth(self._settings.client_id, secret) if form else None
            answer = client.request(method, address, data=form, auth=auth)
            found = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise AccountError(f"the provider cannot be asked: {type(error).__name__}") from error
        if answer.status_code != 200 or not isinstance(found, dict):
            refused = found.get("error") if isinstance(found, dict) else ""
            raise AccountError(f"the provider answers {answer.status_code} {refused or ''}".rstrip())
        return found
