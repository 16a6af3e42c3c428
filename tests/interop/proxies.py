"""nginx and Caddy of Debian in front of the pages, by the examples of `config/`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.gateway.web.browsing import PASSWORD
from tests.tls_samples import Authority
from tests.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).resolve().parents[2]
NGINX, CADDY = (shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("nginx", "caddy"))


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
