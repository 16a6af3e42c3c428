"""The site of docker/site and the manifests of docker/kubernetes agree with the gateway and with themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import generate_latest

from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.settings import Settings, load_settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.web.pages.health import metrics_registry

DOCKER = Path(__file__).resolve().parents[1] / "docker"
SITE = DOCKER / "site"
KUBERNETES = "1.34"


def compose() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((SITE / "compose.yaml").read_text(encoding="utf-8"))
    return made


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DOCKER / "kubernetes" / "gateway.yaml").read_text(encoding="utf-8")))


def panels() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = json.loads((SITE / "grafana" / "ecg-gateway.json").read_text(encoding="utf-8"))[
        "panels"
    ]
    return made


def test_alerts_and_dashboard_name_figures_that_the_gateway_tells(tmp_path: Path) -> None:
    store, spool = Store(tmp_path / "gateway.db"), Spool(tmp_path / "spool", minimum_free_mib=0)
    told = set(re.findall(r"^# TYPE (\w+) ", generate_latest(metrics_registry(store, spool, Settings)).decode(), re.M))
    texts = [(SITE / "alerts.yml").read_text(encoding="utf-8"), *(t["expr"] for p in panels() for t in p["targets"])]
    named = set(re.findall(r"\becg_gateway_\w+", "\n".join(texts)))
    assert len(named) > 10
    assert {re.sub("_(sum|count)$", "", name) for name in named} <= told
    states = set(re.findall(r'status(?:=|!)~?"([A-Z_|]+)"', "\n".join(texts)))
    known = {status.value for status in (*JobStatus, *DeliveryStatus)}
    assert {state for some in states for state in some.split("|")} <= known


def test_the_settings_of_the_site_hold_and_name_its_services() -> None:
    settings, site = load_settings(SITE / "gateway.toml"), compose()
    services = site["services"]
    assert {d.host for d in settings.destinations} == {"orthanc"} <= services.keys()
    assert "@database:5432/" in settings.storage.database and "database" in services
    assert settings.storage.spool_endpoint == "http://objects:8333" and "objects" in services
    assert str(settings.storage.spool_credentials_file) == "/run/secrets/s3.ini"
    assert f"s3.bucket.create -name {settings.storage.spool.removeprefix('s3://')}'" in str(services["bucket"])
    assert settings.worker.processes == 0
    gateways = [name for name, s in services.items() if s.get("command", [""])[0] == "serve"]
    assert len(gateways) == 2 == len({services[name]["hostname"] for name in gateways})
    assert sum(s.get("command", [""])[0] == "worker" for s in services.values()) == 2
    for name in gateways:
        inside = {port.rpartition(":")[2] for port in services[name]["ports"]}
        assert inside == {str(settings.dicom.port), str(settings.web.port)}
    targets = yaml.safe_load((SITE / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == [f"{name}:{settings.web.port}" for name in gateways]
    orthanc = json.loads((SITE / "orthanc.json").read_text())
    assert {m["Host"] for m in orthanc["DicomModalities"].values()} == set(gateways)
    assert (orthanc["DicomAet"], orthanc["DicomPort"]) == (
        settings.destinations[0].ae_title,
        settings.destinations[0].port,
    )


def test_every_file_and_secret_of_the_site_is_there() -> None:
    site = compose()
    for service in site["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (SITE / source).is_file() if source.startswith("./") else source in site["volumes"], volume
        assert set(service.get("secrets", [])) <= site["secrets"].keys()
    told = (DOCKER.parent / "docs" / "site.md").read_text(encoding="utf-8")
    for secret in site["secrets"].values():
        assert Path(secret["file"]).name in told, "the page says how each secret is made"


@pytest.mark.parametrize("manifest", manifests(), ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_a_manifest_is_what_kubernetes_expects(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_schema_would_refuse_a_wrong_word() -> None:
    wrong = next(m for m in manifests() if m["kind"] == "StatefulSet") | {"sepc": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_the_settings_of_the_manifests_hold(tmp_path: Path) -> None:
    by_kind = {(m["kind"], m["metadata"]["name"]): m for m in manifests()}
    file = tmp_path / "gateway.toml"
    file.write_text(by_kind["ConfigMap", "ecg-gateway"]["data"]["gateway.toml"], encoding="utf-8")
    settings = load_settings(file)
    for kind, name in (("StatefulSet", "ecg-gateway"), ("Deployment", "ecg-worker")):
        pod = by_kind[kind, name]["spec"]["template"]["spec"]
        mounts = {m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
        assert str(settings.storage.path) in mounts and "/etc/ecg-gateway/gateway.toml" in mounts
        assert {m["name"] for m in pod["containers"][0]["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
        assert pod["securityContext"]["runAsUser"] == 10001  # as in the Dockerfile
    ports = {
        p["name"]: p["containerPort"]
        for p in by_kind["StatefulSet", "ecg-gateway"]["spec"]["template"]["spec"]["containers"][0]["ports"]
    }
    assert ports == {"dicom": settings.dicom.port, "web": settings.web.port}
    worker = by_kind["Deployment", "ecg-worker"]["spec"]["template"]["spec"]
    assert worker["terminationGracePeriodSeconds"] > settings.worker.page_timeout_s
