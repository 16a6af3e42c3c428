"""The pages behind nginx and Caddy, by the examples of `config/`: at a sub-path over TLS, with and without log-in."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gateway.domain.account import AccountRole
from gateway.settings import Settings, WebSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from tests.gateway.web.browsing import PASSWORD, Browser, add_account, site
from tests.interop.peers import free_port
from tests.tls_samples import Authority
from tests.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.interop
ROOT = Path(__file__).resolve().parents[2]
NGINX, CADDY = (shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("nginx", "caddy"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "gateway.db")
    yield store
    store.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", minimum_free_mib=0)


@contextmanager
def running(command: list[str], port: int, folder: Path) -> Iterator[None]:
    process = subprocess.Popen(command, env=os.environ | {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)})
    try:
        eventually(lambda: answers(port))
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def answers(port: int) -> bool:
    try:
        httpx.get(f"https://localhost:{port}/", verify=False, trust_env=False)
    except httpx.TransportError:
        return False
    return True


def nginx(folder: Path, authority: Authority, port: int, behind: int, *, log_in: bool) -> list[str]:
    server = authority.issue("localhost", "localhost")
    text = (ROOT / "config" / "nginx.conf").read_text(encoding="utf-8")
    text = text.replace("443", str(port)).replace("8080", str(behind)).replace("ecg.hospital.example;", "localhost;")
    text = text.replace("/etc/nginx/ecg.pem", str(server.certificate_file))
    text = text.replace("/etc/nginx/ecg.key", str(server.private_key_file))
    if log_in:
        text = re.sub(r"# (auth_basic)", r"\1", text).replace("/etc/nginx/ecg.users", str(folder / "users"))
        hashed = subprocess.run(["openssl", "passwd", "-apr1", PASSWORD], capture_output=True, text=True, check=True)
        (folder / "users").write_text(f"ann:{hashed.stdout}")
        (folder / "users").chmod(0o644)
    (folder / "site.conf").write_text(text)
    paths = " ".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    main = f"pid {folder}/pid; error_log {folder}/error.log; events {{}} http {{ access_log off; {paths} "
    (folder / "nginx.conf").write_text(f"user root; daemon off; {main} include {folder}/site.conf; }}")
    return [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def caddy(folder: Path, authority: Authority, port: int, behind: int, *, log_in: bool) -> list[str]:
    server = authority.issue("localhost", "localhost")
    text = (ROOT / "config" / "Caddyfile").read_text(encoding="utf-8")
    tls = f"\ttls {server.certificate_file} {server.private_key_file}\n"
    text = text.replace("ecg.hospital.example {\n", f"https://localhost:{port} {{\n{tls}").replace("8080", str(behind))
    if log_in:
        hashed = subprocess.run(
            [str(CADDY), "hash-password", "--plaintext", PASSWORD], capture_output=True, text=True, check=True
        )
        text = re.sub(r"# (basicauth \{|\tann HASH|\})", r"\1", text).replace("HASH", hashed.stdout.strip())
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n"
    (folder / "Caddyfile").write_text(options + text)
    return [str(CADDY), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


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
