"""Debian's Prometheus with the rules of docker/site reads a running gateway, and every expression means something."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.conftest import Gateway
from tests.acceptance.peers import c_store, free_port, secondary_capture
from tests.fake_digitizer import page_pixels
from tests.test_site import SITE, panels
from tests.waiting import PATIENCE_S, wait_for

pytestmark = pytest.mark.interop

PROMETHEUS, PROMTOOL = Path("/usr/bin/prometheus"), Path("/usr/bin/promtool")
EMPTY_HERE = {  # two rates need more time, no certificate is set, and everything has arrived
    "Seconds a page",
    "Pages digitized a minute",
    "Certificates end in",
    "Deliveries that have not arrived",
}


@pytest.fixture(autouse=True)
def installed() -> None:
    if not PROMETHEUS.exists():
        pytest.skip(f"prometheus is not installed: no {PROMETHEUS}")


def test_the_rules_hold_and_fire_when_they_must() -> None:
    for arguments in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([PROMTOOL, *arguments], cwd=SITE, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_a_gateway(make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    gateway = make_gateway()
    gateway.start()
    assert c_store(gateway.port, secondary_capture(page_pixels(seed=1))) == [0x0000]
    gateway.wait_until_settled(1)
    settings = yaml.safe_load((SITE / "prometheus.yml").read_text(encoding="utf-8"))
    settings["global"]["scrape_interval"] = settings["global"]["evaluation_interval"] = "1s"
    settings["rule_files"] = [str(SITE / "alerts.yml")]
    settings["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{gateway.web_port}"]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    url, log = f"http://127.0.0.1:{(port := free_port())}", tmp_path / "prometheus.log"

    def ask(path: str, **query: str) -> Any:
        try:
            with urllib.request.urlopen(
                f"{url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=PATIENCE_S
            ) as a:
                return json.load(a)["data"]
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:  # it listens, and starts
                return {"result": []}
            raise AssertionError(f"{query}: {error.read().decode()}") from None
        except (urllib.error.URLError, ConnectionError):  # it starts
            return {"result": []}

    command = [PROMETHEUS, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    with open(log, "wb") as file:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=file, stderr=file)
    try:
        done = 'ecg_gateway_jobs{status="DONE"} == 1'
        wait_for(
            "a first reading, or its end", lambda: process.poll() is not None or ask("query", query=done)["result"]
        )
        assert process.poll() is None, log.read_text()
        empty = {p["title"] for p in panels() for t in p["targets"] if not ask("query", query=t["expr"])["result"]}
        assert empty <= EMPTY_HERE
        rules = wait_for("the rules to be evaluated", lambda: _evaluated(ask("rules", type="alert")))
        assert {rule["health"] for rule in rules} == {"ok"}
        assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _evaluated(found: Any) -> list[Any]:
    rules = [rule for group in found.get("groups", []) for rule in group["rules"]]
    return rules if rules and all(rule["health"] != "unknown" for rule in rules) else []
