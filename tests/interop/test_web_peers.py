"""The pages behind nginx and Caddy, by the examples of `config/`: at a sub-path over TLS, with and without log-in."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.domain.account import AccountRole
from gateway.settings import Settings, WebSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from tests.gateway.web.browsing import PASSWORD, Browser, add_account, site
from tests.interop.peers import free_port
from tests.interop.proxies import CADDY, NGINX, caddy, nginx, running
from tests.tls_samples import Authority
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.interop


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "gateway.db")
    yield store
    store.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", minimum_free_mib=0)


@pytest.mark.parametrize(
    "proxy",
    [
        pytest.param(nginx, marks=pytest.mark.skipif(NGINX is None, reason="nginx is not installed")),
        pytest.param(caddy, marks=pytest.mark.skipif(CADDY is None, reason="caddy is not installed")),
    ],
)
@pytest.mark.parametrize("log_in", [False, True])
def test_pages_behind_a_proxy(
    proxy: Callable[..., list[str]], log_in: bool, store: Store, spool: Spool, tmp_path: Path
) -> None:
    authority, port = Authority(tmp_path), free_port()
    web = {"root_path": "/ecg", "allowed_hosts": ("localhost",), "proxies": ("127.0.0.1",)}
    if log_in:
        web |= {
            "proxy_user_header": "X-Remote-User",
            "other_role": "reviewer",
            "proxy_groups_header": "X-Remote-Groups",
        }
    else:
        add_account(store, "rita", AccountRole.REVIEWER)
    store.trail.begin()
    with site(store, spool, Settings(web=WebSettings(**web))) as behind:
        command = proxy(tmp_path, authority, port, int(behind.rpartition(":")[2]), log_in=log_in)
        with running(command, port, tmp_path), open_browser(port, authority) as client:
            client.headers.update({"X-Forwarded-For": "6.6.6.6", "X-Remote-User": "boss", "X-Remote-Groups": "admin"})
            assert client.get("/ecg/").status_code == 401
            if log_in:
                client.auth = ("ann", PASSWORD)
            else:
                answer = client.post("/ecg/login", data={"name": "rita", "password": PASSWORD})
                assert answer.status_code == 200 and answer.url.path == "/ecg/"
                assert store.trail.entries(1)[0].address == "127.0.0.1"  # not what the client has written
            page = client.get("/ecg/")
            assert page.status_code == 200 and ">ann<" in page.text if log_in else "rita" in page.text
            for address in re.findall(r'(?:href|src|action|hx-get)="(/[^"#]*)"', page.text):
                if "logout" not in address:
                    assert client.get(address.replace("&amp;", "&")).status_code == 200, address


@contextmanager
def open_browser(port: int, authority: Authority) -> Iterator[Browser]:
    class Below(Browser):
        def token(self) -> str:
            return str(re.search(r'csrf-token" content="(\w+)"', self.get("/ecg/login").text)[1])

    url = f"https://localhost:{port}"
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    with Below(
        base_url=url,
        headers={"Origin": url},
        trust_env=False,
        follow_redirects=True,
        verify=context,
        timeout=PATIENCE_S,
    ) as client:
        yield client
