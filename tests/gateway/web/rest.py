"""The REST interface on a free port, with a digitizer beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx

from gateway.domain.account import ApiScope
from gateway.domain.clock import utc_now
from gateway.operations.tokens import new_token
from gateway.settings import DicomDestination, Hl7Destination, Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.worker.worker import Worker
from tests.fake_digitizer import FakeDigitizer, page_png
from tests.gateway.web.browsing import site
from tests.waiting import PATIENCE_S

SETTINGS = Settings(
    destinations=(
        DicomDestination(name="pacs", host="127.0.0.1", port=11112, ae_title="PACS"),
        Hl7Destination(name="ehr", host="127.0.0.1", port=2575),
    )
)
PATIENT = {"patient_id": "MRN-SECRET", "patient_name": "Secret^Ada", "patient_birth_date": "19610504"}


def token(store: Store, *scopes: ApiScope, name: str = "lab", owner: str = "mirth", **kept: Any) -> str:
    """Make a token with all scopes, or with these."""
    secret, made = new_token(name, owner, scopes or tuple(ApiScope), 30, "cli:test")
    for field, value in kept.items():
        setattr(made, field, value)
    store.tokens.add(made)
    return secret


def ended(days: int = 1) -> Any:
    return utc_now() - timedelta(days=days)


class Program(httpx.Client):
    """Uses the interface with a token, and has pages digitized."""

    def __init__(self, url: str, secret: str, store: Store, spool: Spool) -> None:
        super().__init__(
            base_url=f"{url}/api/v1",
            headers={"Authorization": f"Bearer {secret}"} if secret else {},
            trust_env=False,
            timeout=PATIENCE_S,
        )
        self.store, self.spool, self.address, self.secret = store, spool, url, secret

    def with_token(self, secret: str) -> Program:
        return Program(self.address, secret, self.store, self.spool)

    def submit(self, data: bytes = page_png(), headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        files = {"file": ("scan.png", data, "image/png")}
        return self.post("/jobs", files=files, data={**PATIENT, **fields}, headers=headers)

    def digitized(self, data: bytes = page_png(), **fields: Any) -> str:
        job_id: str = self.submit(data, **fields).json()["job_id"]
        self.work()
        return job_id

    def work(self) -> None:
        worker = Worker(SETTINGS, self.store, self.spool, FakeDigitizer(), name="w")
        while worker.run_once():
            pass

    def decide(self, job_id: str, decision: str, version: int | None = None, **more: str) -> httpx.Response:
        if version is None:
            version = self.get(f"/jobs/{job_id}").json()["version"]
        return self.post(f"/jobs/{job_id}/decisions", json={"version": version, "decision": decision, **more})


@contextmanager
def program(store: Store, spool: Spool) -> Iterator[Program]:
    with site(store, spool, SETTINGS) as url, Program(url, token(store), store, spool) as client:
        yield client
