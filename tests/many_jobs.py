"""Many jobs in a database at once, and how long the queue's answers take: `python -m tests.many_jobs 10000`."""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from gateway.domain.artefact import Role
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.settings import Settings, WebSettings
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job, JobEvent, Page, new_id, search_text

FAMILIES = "Adler Bach Conti Dufour Eriksen Ferro Grau Hasan Ivanov Jensen Kowalski Lund Moreau Novak Olsen".split()
GIVEN = "Ada Ben Cleo Dana Emil Fay Gus Hana Ida Jon Kim Lea Max Nora Otto".split()
SOURCES = ("dicom:CART1", "dicom:CART2", "folder:/data/scans/ward 3", "submit")
DESTINATIONS = ("pacs", "ehr")
QUALITY = json.dumps(
    {"coverage": {}, "confidence": {}, "warnings": [], "notes": [], "printed": {}, "padding": "x" * 900}
)
_AT_ONCE = 2000


def rows(count: int, seed: int = 1) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]]:
    """Yield jobs with their pages and deliveries, the newest first: one in fifty failed, one in forty was refused."""
    rng, now = random.Random(seed), utc_now()
    for number in range(count):
        at = now - timedelta(minutes=5 * number)
        status = (
            JobStatus.FAILED if number % 50 == 49 else JobStatus.NEEDS_REVIEW if number % 9 == 8 else JobStatus.DONE
        )
        context = StudyContext(
            patient_id=f"P{number:06d}",
            patient_name=f"{rng.choice(FAMILIES)}^{rng.choice(GIVEN)}",
            accession_number=f"A{number:06d}",
            study_instance_uid=f"1.2.826.0.1.{number}",
        )
        job = Job(
            id=new_id(),
            source=SOURCES[number % len(SOURCES)],
            source_key=f"key {number}",
            media_type="image/png",
            file_name=f"scan_{number:06d}.png",
            status=status,
            reason="there is no ECG grid on the page" if status == JobStatus.FAILED else "",
            context=context,
            created_at=at,
            updated_at=at + timedelta(seconds=20),
        )
        job.patient_id, job.accession_number = context.patient_id, context.accession_number
        job.search_text = search_text(job)
        page = Page(
            job_id=job.id,
            page_number=1,
            status=status,
            layout="3x4+1" if number % 4 else "12x1",
            estimated_snr_db=rng.uniform(4, 24),
            coverage=0.97,
            quality_json=QUALITY,
            waveform_sop_instance_uid=f"2.25.{number}",
            seconds=rng.uniform(1, 6),
        )
        deliveries = [
            Delivery(
                job_id=job.id,
                page_number=1,
                destination=name,
                kind="dicom" if name == "pacs" else "hl7",
                status=DeliveryStatus.REFUSED if name == "ehr" and number % 40 == 7 else DeliveryStatus.DELIVERED,
                artefact=f"page-1.{name}",
                identifier=f"{name}-{number}",
                role=Role.WAVEFORM if name == "pacs" else Role.MESSAGE,
                created_at=at,
                delivered_at=at + timedelta(seconds=30),
            )
            for name in DESTINATIONS
            if status == JobStatus.DONE
        ]
        without = {"id"}
        yield dict(job), [page.model_dump(exclude=without)], [each.model_dump(exclude=without) for each in deliveries]


def fill(store: Store, count: int) -> None:
    """Put jobs into a database, with six lines of the trail for each."""
    batch: list[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = []
    for row in rows(count):
        batch.append(row)
        if len(batch) == _AT_ONCE:
            _insert(store, batch)
            batch = []
    if batch:
        _insert(store, batch)


def _insert(store: Store, batch: list[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]]) -> None:
    with store.database.write() as session:
        connection = session.connection()
        connection.execute(insert(Job), [job for job, _, _ in batch])
        for table, number in ((Page, 1), (Delivery, 2)):
            if values := [each for row in batch for each in row[number]]:
                connection.execute(insert(table), values)
        actions = ("RECEIVED", "CLAIM", "COMPLETE", "DELIVERY_DELIVER", "DELIVERY_DELIVER", "NOTE")
        events = [
            {"job_id": job["id"], "at": job["created_at"], "action": action, "actor": "scp", "detail": ""}
            for job, _, _ in batch
            for action in actions
        ]
        connection.execute(insert(JobEvent), events)


def milliseconds(work: Callable[[], object], times: int = 5) -> tuple[float, float]:
    """Return the median time that something takes in this process: of the clock, and of the processor."""
    taken = []
    for _ in range(times):
        start, busy = time.perf_counter(), time.process_time()
        work()
        taken.append((1000 * (time.perf_counter() - start), 1000 * (time.process_time() - busy)))
    clock, processor = zip(*taken, strict=True)
    return statistics.median(clock), statistics.median(processor)


def main(count: int) -> None:
    """Print how long the queue's answers take with so many jobs: server and browser are this process."""
    from gateway.spool.folder import Spool
    from tests.gateway.web.browsing import browser, site

    with tempfile.TemporaryDirectory() as folder:
        store, spool = Store(Path(folder) / "gateway.db"), Spool(Path(folder) / "spool", 0)
        fill(store, count)
        settings = Settings(web=WebSettings(show_patient=True))
        with site(store, spool, settings) as url, browser(url) as client:
            renewed = client.get("/").text.split('hx-get="')[1].split('"')[0].replace("&amp;", "&")
            asked = {
                "queue page": "/",
                "its last page": f"/?page={count // 50}",
                "search: a patient ID": f"/?q=P{count // 2:06d}",
                "search: a name": "/?q=novak+ada",
                "what one destination refused": "/?delivery=REFUSED&destination=ehr",
                "sorted by patient": "/?sort=patient",
                "statistics, 30 days": "/statistics",
                "destinations": "/destinations",
            }
            for words, path in asked.items():
                clock, processor = milliseconds(lambda path=path: client.get(path).raise_for_status())
                print(f"| {words} | {clock:.0f} | {processor:.0f} |", flush=True)
            again = {"HX-Request": "true"}
            clock, processor = milliseconds(lambda: client.get(renewed, headers=again).raise_for_status())
            print(f"| renewed, nothing new | {clock:.0f} | {processor:.0f} |")
        store.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
