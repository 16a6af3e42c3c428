"""No line of any process's log names a patient, in either format, however much goes wrong."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from io import BytesIO

import pytest

from gateway.domain.status import JobStatus
from tests.acceptance.conftest import QUICK_RETRY, Gateway
from tests.acceptance.peers import Ehr, Pacs, c_store, free_port, secondary_capture
from tests.fake_digitizer import Behaviour, page_pixels, page_png
from tests.waiting import PATIENCE_S, wait_for

NAME, PATIENT_ID, BIRTH_DATE, ACCESSION = "ZWYRTKOWSKA^QUINTESSA", "PID0815XYZ", "19410507", "ACC4711QRS"
MARKS = ("ZWYRTKOWSKA", "QUINTESSA", PATIENT_ID, BIRTH_DATE, ACCESSION)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # the test's own values, which break their VR on purpose
@pytest.mark.parametrize("form", ["plain", "json"])
def test_no_patient_in_any_log_line(make_gateway: Callable[..., Gateway], pacs: Pacs, ehr: Ehr, form: str) -> None:
    local = {"host": "127.0.0.1", "retry": QUICK_RETRY | {"attempts": 2}}
    gateway = make_gateway(
        log={"format": form, "level": "DEBUG"},
        worker={"page_timeout_s": PATIENCE_S, "maximum_attempts": 1},
        review={"deliver_doubtful": True},
        web={"show_patient": True},
        destinations=[
            {"kind": "dicom", "name": "pacs", "port": pacs.port, "ae_title": "PACS", **local},
            {"kind": "dicom", "name": "wrong", "port": pacs.port, "ae_title": "PACS", "sop_class": "general", **local},
            {"kind": "dicom", "name": "dead", "port": free_port(), "ae_title": "NOBODY", **local},
            {"kind": "hl7", "name": "ehr", "port": ehr.port, **local},
        ],
    )
    gateway.start()
    identity = {"PatientBirthDate": BIRTH_DATE, "AccessionNumber": ACCESSION, "StudyDescription": NAME}
    behaviours = (Behaviour.GOOD, Behaviour.DOUBTFUL, Behaviour.NO_ECG, Behaviour.BROKEN, Behaviour.DEADLY)
    sources = [
        secondary_capture(page_pixels(behaviour), patient_id=PATIENT_ID, patient_name=NAME, **identity)
        for behaviour in behaviours
    ]
    statuses = c_store(gateway.port, *sources)
    assert statuses == [0x0000] * len(sources)
    odd = secondary_capture(page_pixels(), patient_id=PATIENT_ID, patient_name=NAME, **identity)
    odd.PatientSex, odd.StudyDate = "QUINTESSA", BIRTH_DATE + "ZWYRTKOWSKA"
    c_store(gateway.port, odd)
    sidecar = json.dumps({"patient_id": PATIENT_ID, "patient_name": NAME})
    for name, data in ((f"{PATIENT_ID}.png", page_png()), (f"{NAME}.png", page_png(seed=1)), ("x.txt", b"no")):
        (gateway.inbox / f"{name}.json").write_text(sidecar)
        (gateway.inbox / name).write_bytes(data)
    wait_for("the text file to be rejected", (gateway.inbox / "rejected" / "x.txt").exists)
    jobs = gateway.wait_until_settled(len(sources) + 3)
    assert {JobStatus.NEEDS_REVIEW, JobStatus.FAILED} <= {job.status for job in jobs}
    for path in ("", *(f"jobs/{job.id}" for job in jobs), "metrics", "healthz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.web_port}/{path}", timeout=PATIENCE_S) as page:
            page.read()
    assert gateway.stop() == 0
    assert any(PATIENT_ID == w.PatientID for w in pacs.received) and NAME.encode() in b"".join(ehr.received)
    if form == "json":
        records = [json.loads(line) for line in gateway.log.splitlines()]
        assert {job.id for job in jobs} <= {record["job_id"] for record in records}
    log = BytesIO(gateway.log_path.read_bytes()).read().decode("utf-8", "replace").upper()
    assert len(log.splitlines()) > 40 and "KEYERROR" in log and "NOT REACHED" in log
    assert [mark for mark in MARKS if mark in log] == []
