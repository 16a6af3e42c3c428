"""A small OpenID provider: discovery, log-in without a question, tokens with PKCE and a client secret, keys."""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "ecg-gateway", "a secret of ours"


@dataclass
class OpenIdProvider:
    """What it says may be changed by a test: `claims` of its tokens, the `signer`, what it `states`."""

    issuer: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)
    refuses: str = ""
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1", "use": "sig"}, auto_kid=False))
    signer: RSAKey | None = None
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/.well-known/openid-configuration")
        def metadata() -> Response:
            paths = {"authorization_endpoint": "/auth", "token_endpoint": "/token", "jwks_uri": "/keys"}
            stated = {name: self.issuer + path for name, path in paths.items()}
            return JSONResponse({"issuer": self.issuer} | stated | self.states)

        @app.get("/auth")
        def authorize(request: Request) -> Response:
            asked = dict(request.query_params)
            if self.refuses:
                answer = {"error": self.refuses, "state": asked["state"]}
            else:
                code = hashlib.sha256(asked["state"].encode()).hexdigest()
                self.codes[code] = asked
                answer = {"code": code, "state": asked["state"]}
            return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 303)

        @app.post("/token")
        async def token(request: Request) -> Response:
            form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
            asked = self.codes.pop(form.get("code", ""), None)
            basic = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
            challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
            right = asked is not None and (asked["code_challenge"], asked["redirect_uri"]) == (
                challenge.decode(),
                form["redirect_uri"],
            )
            if not right or request.headers.get("authorization") != basic:
                return JSONResponse({"error": "invalid_grant"}, 400)
            now = int(time.time())
            claims = {"iss": self.issuer, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 60}
            claims |= {"nonce": asked["nonce"]} | self.claims
            header = {"alg": "RS256", "kid": "1"}
            signed = jwt.encode(header, claims, self.signer or self.key)
            return JSONResponse({"access_token": "x", "token_type": "Bearer", "id_token": signed})

        @app.get("/keys")
        def keys() -> Response:
            return JSONResponse({"keys": [self.key.as_dict(private=False)]})

        return app
