"""The application on a free port, and a browser: it says where its forms come from, and sends their token."""

from __future__ import annotations

import functools
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from gateway.domain.account import AccountRole
from gateway.intake.accept import Intake
from gateway.security.passwords import hash_password
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Account
from gateway.web.app import create_app
from tests.waiting import PATIENCE_S, eventually

PASSWORD = "a horse, a battery, a staple"
_hash_once = functools.cache(hash_password)


class Browser(httpx.Client):
    """Sends the token of this browser's forms, as every page of ours has it."""

    def token(self) -> str:
        found = re.search(r'name="csrf-token" content="([0-9a-f]{64})"', self.get("/login").text)
        assert found is not None
        return found[1]

    def post(self, url: Any, **options: Any) -> httpx.Response:
        options["headers"] = {"X-CSRF-Token": self.token()} | options.get("headers", {})
        return super().post(url, **options)

    def log_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        return self.post("/login", data={"name": name, "password": password})


@contextmanager
def served(app: FastAPI, **options: Any) -> Iterator[str]:
    """Serve an application; yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none", **options))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            eventually(lambda: server.started)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


@contextmanager
def site(
    store: Store, spool: Spool, settings: Settings, alive: Callable[[], list[str]] = list, first: str = ""
) -> Iterator[str]:
    """Serve the pages of a gateway; yield their address."""
    with served(create_app(Intake(spool, store), spool, lambda: settings, alive, first), proxy_headers=False) as url:
        yield url


@contextmanager
def browser(url: str, *, follow_redirects: bool = True) -> Iterator[Browser]:
    with Browser(
        base_url=url,
        headers={"Origin": url},
        trust_env=False,
        follow_redirects=follow_redirects,
        timeout=PATIENCE_S,
    ) as client:
        yield client


def add_account(store: Store, name: str, role: AccountRole, **more: Any) -> None:
    store.accounts.add(Account(name=name, role=role, password_hash=_hash_once(PASSWORD), **more))
