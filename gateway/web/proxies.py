"""Reverse proxies in front of us: what those of the list state about a request counts; from others nothing does.

A request of a listed proxy gets the client's address, the scheme and the host that the proxy states (X-Forwarded-For,
-Proto, -Host).  Of several addresses the last one that is no listed proxy is the client's: what stands before it, the
client may have written itself.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.domain.account import AccountRole, Origin, User, outside_name
from gateway.settings import WebSettings


class Proxies:
    """ASGI middleware, the outermost: everything behind it sees the request as the client sent it to the proxy."""

    def __init__(self, app: ASGIApp, root: str, current: Callable[[], WebSettings]) -> None:
        self._app = app
        self._root = root
        self._current = current

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http":
            web = self._current()
            scope = {**scope, "root_path": self._root}
            if not scope["path"].startswith(f"{self._root}/"):  # the proxy has taken the root path away
                scope["path"] = self._root + scope["path"]
            client = scope.get("client")
            if client and is_proxy(client[0], web):
                scope = {**scope, **_stated(scope, web)}
        await self._app(scope, receive, send)


def is_proxy(address: str, web: WebSettings) -> bool:
    """Return whether an address is that of a listed proxy."""
    try:
        known = ip_address(address)
    except ValueError:
        return False
    return any(known in ip_network(each, strict=False) for each in web.proxies)


def by_proxy(request: Request) -> bool:
    """Return whether a listed proxy sent a request."""
    return bool(request.scope.get("ecg_gateway.by_proxy"))


def proxy_user(request: Request, web: WebSettings) -> User | None:
    """Return who has logged in at a listed proxy; None where it states nobody, or somebody without a role.

    Raises
    ------
    ValueError
        It states a name that nobody can have.
    """
    stated = request.headers.get(web.proxy_user_header, "") if web.proxy_user_header else ""
    if not stated or not by_proxy(request):
        return None
    groups = request.headers.get(web.proxy_groups_header, "") if web.proxy_groups_header else ""
    role = role_of([group.strip() for group in groups.split(",")], web)
    if role is None:
        return None
    return User(
        name=outside_name(_text(stated)),
        full_name=_text(request.headers.get(web.proxy_name_header, ""))[:64] if web.proxy_name_header else "",
        role=role,
        origin=Origin.PROXY,
        address=request.client.host if request.client else "",
        sees_patients=web.show_patient or role.covers(AccountRole.REVIEWER),
    )


def role_of(groups: list[str], web: WebSettings) -> AccountRole | None:
    """Return the highest role that a person's groups give; None where they give none."""
    found = [AccountRole(web.roles[group]) for group in groups if group in web.roles]
    if found:
        return max(found, key=list(AccountRole).index)
    return None if web.other_role == "none" else AccountRole(web.other_role)


def _stated(scope: Scope, web: WebSettings) -> Scope:
    headers = Headers(scope=scope)
    stated: Scope = {"ecg_gateway.by_proxy": True}
    addresses = [each.strip() for each in ",".join(headers.getlist("x-forwarded-for")).split(",") if each.strip()]
    for address in reversed(addresses):
        stated["client"] = (_bare(address), 0)
        if not is_proxy(_bare(address), web):
            break
    scheme = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
    if scheme in ("http", "https"):
        stated["scheme"] = scheme
    if host := headers.get("x-forwarded-host", "").rpartition(",")[2].strip():
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        stated["headers"] = [*others, (b"host", host.encode("latin-1"))]
    return stated


def _bare(address: str) -> str:
    """Return an address without the port that some proxies add, and without brackets."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def _text(value: str) -> str:
    """Return a header's value, which is UTF-8 where a proxy does not write ASCII."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value
