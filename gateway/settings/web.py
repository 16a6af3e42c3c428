"""`[web]`: where the pages are served, for whom, and who stands in front of them."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gateway.settings.section import Host, Port, Section, checked_networks, is_loopback, matching
from gateway.settings.source.mistakes import rule
from gateway.settings.tls import TlsClientSettings, TlsListenerSettings

RootPath = Annotated[
    str, matching(r"(/[A-Za-z0-9._~-]+)*", "must be empty or a path such as /ecg, without a / at its end")
]
HeaderName = Annotated[str, matching(r"[A-Za-z0-9-]*", "must be the name of an HTTP header")]
RoleName = Literal["viewer", "reviewer", "admin"]


class OidcSettings(Section):
    """Log-in at the site's OpenID provider."""

    issuer: Annotated[str, matching(r"https?://[^?#\s]+", "must be an http(s) address without ? and #")]
    client_id: Annotated[str, Field(min_length=1)]
    client_secret_file: Path
    scopes: tuple[str, ...] = ("openid", "profile")
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    title: str = "the hospital's log-in"
    tls: TlsClientSettings = TlsClientSettings()

    @model_validator(mode="after")
    def _secure(self) -> OidcSettings:
        if self.issuer.startswith("http:") and not is_loopback(urlsplit(self.issuer).hostname or ""):
            raise rule("who logs in is asked by https only", "issuer")
        if "openid" not in self.scopes:
            raise rule("must contain openid", "scopes")
        return self


class WebSettings(Section):
    """The web pages.  Reviewers and administrators see patients; others do where `show_patient` says so."""

    enabled: bool = True
    host: Host = "127.0.0.1"
    port: Port = 8080
    tls: TlsListenerSettings | None = None  # None: plain
    root_path: RootPath = ""  # under which a reverse proxy shows us
    allowed_hosts: tuple[Host, ...] = ()  # empty: on loopback this machine's names, elsewhere any
    proxies: tuple[str, ...] = ()  # IP addresses or CIDR networks whose X-Forwarded-* count
    proxy_user_header: HeaderName = ""  # in which a proxy of `proxies` states who has logged in there
    proxy_name_header: HeaderName = ""  # the full name
    proxy_groups_header: HeaderName = ""  # the groups, separated by commas
    roles: dict[str, RoleName] = Field(default={})  # of groups, by proxy or OpenID provider
    other_role: Literal["none", "viewer", "reviewer", "admin"] = "none"  # of who is in none of them
    oidc: OidcSettings | None = None
    show_patient: bool = False
    session_idle_minutes: int = Field(default=30, ge=1, le=1440)
    session_hours: int = Field(default=12, ge=1, le=168)
    maximum_connections: int = Field(default=100, ge=1)
    maximum_connections_per_host: int = Field(default=50, ge=1)  # behind a proxy all come from one

    @property
    def logs_in_elsewhere(self) -> bool:
        """Whether persons may log in without an account of ours."""
        return bool(self.proxy_user_header) or self.oidc is not None

    @field_validator("proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for number, each in enumerate(checked_networks(proxies)):
            if ip_network(each, strict=False).prefixlen == 0:
                raise rule("every machine would be a proxy, and could name any person", number)
        return proxies

    @model_validator(mode="after")
    def _proxy_log_in(self) -> WebSettings:
        if self.proxy_user_header and not self.proxies:
            raise rule("proxy_user_header needs proxies: only theirs counts", "proxy_user_header")
        for name in ("proxy_name_header", "proxy_groups_header"):
            if getattr(self, name) and not self.proxy_user_header:
                raise rule(f"{name} needs proxy_user_header", name)
        return self
