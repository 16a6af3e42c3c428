"""The description of the REST interface is true: schemathesis asks by it, and the examples of the documentation run."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.failures import FailureGroup

from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.web.api import jobs
from tests.fake_digitizer import page_png
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.gateway.web.rest import program
from tests.waiting import PATIENCE_S

PAGE = Path(__file__).resolve().parents[3] / "docs" / "rest-api.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)

_UNFIT = {
    "positive_data_acceptance",  # corrections of the right form may not fit the page
    "ignored_auth",  # asked once an operation: wrong tokens are counted
}
_FEW = settings(
    max_examples=8,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_the_documented_examples_run(
    store: Store, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scan.png").write_bytes(page_png())
    (tmp_path / "page.dcm").write_bytes(part10(secondary_capture()))
    monkeypatch.chdir(tmp_path)
    with program(store, spool) as client:
        ended = threading.Event()

        def digitize() -> None:
            while not ended.wait(0.1):
                client.work()

        worker = threading.Thread(target=digitize)
        worker.start()
        names: dict[str, object] = {}
        try:
            for text in EXAMPLES:
                text = text.replace("http://127.0.0.1:8080", client.address).replace("ecgw_YOUR_TOKEN", client.secret)
                exec(compile(text, str(PAGE), "exec"), names)
        finally:
            ended.set()
            worker.join(PATIENCE_S)
            names["gateway"].close()  # type: ignore[attr-defined]
    assert {name for name in os.listdir(tmp_path) if name.startswith(("result", "report"))} == {
        *(f"result.{form}" for form in ("csv", "npz", "dcm", "fhir.json")),
        "report.pdf",
    }
    assert len(names["jobs"]) == 2  # type: ignore[arg-type]
    assert int(names["last"]) > 5  # type: ignore[call-overload]


def test_every_operation_is_in_the_documentation(store: Store, spool: Spool) -> None:
    text = "\n".join(EXAMPLES)
    with program(store, spool) as client:
        paths = client.get("/openapi.json").json()["paths"]
    known = {path.rpartition("/")[2] for path in paths if not path.endswith("}")}
    assert sorted(name for name in known if name not in text) == []


def test_schemathesis_finds_nothing_that_is_not_as_described(
    store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = jobs._stream
    monkeypatch.setattr(jobs, "_stream", lambda trail, number, wait_s: stream(trail, number, 0))  # nobody waits
    asked: set[int] = set()
    wrong: list[str] = []
    with program(store, spool) as client, requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = client.headers["Authorization"]
        parameters = {"job_id": client.digitized(), "number": 1}
        schema = schemathesis.openapi.from_url(f"{client.address}/api/v1/openapi.json")
        unfit = [CHECKS.get_one(name) for name in _UNFIT]

        def ask(case: Case) -> None:
            asked.add(case.call_and_validate(session=session, excluded_checks=unfit).status_code)

        def ask_without_token(case: Case) -> None:
            case.call_and_validate(session=session, checks=[CHECKS.get_one("ignored_auth")])

        for found in schema.get_all_operations():
            operation = found.ok()
            known = {each.name: parameters[each.name] for each in operation.path_parameters}
            right = operation.as_strategy(GenerationMode.POSITIVE, path_parameters=known)
            once = settings(_FEW, max_examples=1)
            for few, cases, put in (
                (_FEW, right, ask),
                (_FEW, operation.as_strategy(GenerationMode.NEGATIVE), ask),
                (once, right, ask_without_token),
            ):
                try:
                    few(given(cases)(put))()
                except FailureGroup as group:
                    wrong += [f"{operation.label}: {each}" for each in group.exceptions]
    if wrong:
        pytest.fail("\n\n".join(wrong))
    assert asked >= {200, 404, 409, 422}
