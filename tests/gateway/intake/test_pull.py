"""Pulling history from an archive that can be told to fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from gateway.dicom.network.find import Study, StudyQuery
from gateway.dicom.network.retrieve import Instance
from gateway.domain.artefact import Role
from gateway.domain.context import StudyContext
from gateway.domain.received import ReceivedObject
from gateway.domain.status import JobStatus
from gateway.errors import DeliveryDeferred, DeliveryRefused, IntakeError, SettingsError
from gateway.intake.accept import Intake
from gateway.intake.collect import Collection
from gateway.intake.pull import Progress, Wanted, months, pull, show_pull
from gateway.spool.folder import Spool
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import Delivery

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
CT = "1.2.840.10008.5.1.4.1.1.2"


class Archive:
    """Studies "1.1" .. "1.n" of three pages and a CT slice; `lost` never arrives, `down` studies fail."""

    def __init__(self, intake: Intake | Collection, n_studies: int = 2) -> None:
        self.intake, self._n_studies = intake, n_studies
        self.queries: list[StudyQuery] = []
        self.batches: list[list[str]] = []
        self.lost: set[str] = set()
        self.down: set[str] = set()
        self.error: type[Exception] = DeliveryDeferred
        self.descriptions = ["Resting ECG"]

    def studies(self, query: StudyQuery) -> Sequence[Study]:
        self.queries.append(query)
        return [
            Study(
                study_instance_uid=f"1.{n}",
                study_date="20100101",
                modalities="OT",
                accession_number="",
                study_description=self.descriptions[n % len(self.descriptions)],
                patient_id="1",
                patient_name="",
            )
            for n in range(self._n_studies)
        ]

    def instances(self, study_instance_uid: str, modalities: Sequence[str]) -> Sequence[Instance]:
        if study_instance_uid in self.down:
            raise self.error("the peer broke off")
        classes = [SECONDARY_CAPTURE] * 3 + [CT]
        return [
            Instance(
                study_instance_uid=study_instance_uid,
                series_instance_uid=f"{study_instance_uid}.1",
                sop_class_uid=sop_class,
                sop_instance_uid=f"{study_instance_uid}.1.{number}",
            )
            for number, sop_class in enumerate(classes)
        ]

    def fetch(self, instances: Sequence[Instance]) -> None:
        self.batches.append([instance.sop_instance_uid for instance in instances])
        for uid in self.batches[-1]:
            if uid not in self.lost:
                self.intake.accept(
                    ReceivedObject(
                        source="dicom:PACS",
                        source_key=uid,
                        media_type="application/dicom",
                        data=b"page",
                        context=StudyContext(patient_id="1"),
                        destinations=None,
                        actor="test",
                    )
                )


def run(archive: Archive, store: Store, **changes: object) -> Progress:
    wanted = {"query": StudyQuery(), "batch": 2, **changes}
    return pull(archive, archive.intake, Wanted(**wanted), lambda progress: None)  # type: ignore[arg-type]


def test_batches_of_one_study_each_and_nothing_twice(intake: Intake, store: Store) -> None:
    archive = Archive(intake)
    end = run(archive, store)
    assert archive.batches == [["1.0.1.0", "1.0.1.1"], ["1.0.1.2"], ["1.1.1.0", "1.1.1.1"], ["1.1.1.2"]]
    assert (end.studies, end.studies_done, end.fetched, end.known, end.failed) == (2, 2, 6, 0, 0)
    again = run(archive, store)
    assert (again.fetched, again.known) == (0, 6) and len(archive.batches) == 4


def test_objects_may_be_kept_in_a_folder_without_jobs(store: Store, tmp_path: Path) -> None:
    archive = Archive(Collection(tmp_path / "objects"))
    archive.lost = {"1.1.1.2"}
    assert run(archive, store).fetched == 5
    archive.lost.clear()
    again = run(archive, store)
    assert (again.fetched, again.known) == (1, 5) and archive.batches[-1] == ["1.1.1.2"]
    files = sorted((tmp_path / "objects").rglob("*.dcm"))
    assert sorted(path.stem for path in files) == [f"1.{study}.1.{k}" for study in (0, 1) for k in range(3)]
    assert files[0].read_bytes() == b"page" and store.jobs.newest() == []
    with pytest.raises(IntakeError, match="no UID"):
        archive.intake.has("../1")


def test_objects_that_are_moved_to_the_listener_cannot_be_kept_in_a_folder(
    gateway_command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(
        f'[storage]\npath = "{tmp_path}"\n'
        '[[destinations]]\nkind = "dicom"\nname = "pacs"\nhost = "127.0.0.1"\nport = 104\nae_title = "PACS"\n'
    )
    status, _, said = gateway_command(config, "pull --from pacs", "--into", tmp_path / "objects")
    assert status == 2 and "--into needs retrieve = 'get'" in said


def test_an_object_whose_file_was_lost_is_fetched_again(intake: Intake, spool: Spool, store: Store) -> None:
    archive = Archive(intake, 1)
    run(archive, store)
    job = store.jobs.find("1.0.1.1")
    assert job is not None
    spool.remove(job.id)
    again = run(archive, store)
    assert (again.fetched, again.known) == (1, 2) and archive.batches[-1] == ["1.0.1.1"]
    assert spool.has(job.id) and len(store.jobs.newest()) == 3


def test_what_we_made_and_sent_there_is_not_taken_for_a_page(intake: Intake, store: Store) -> None:
    archive = Archive(intake, 1)
    job = intake.accept(
        ReceivedObject(
            source="submit",
            source_key="x",
            media_type="image/png",
            data=b"page",
            context=StudyContext(patient_id="1"),
            destinations=None,
            actor="test",
        )
    )
    assert store.jobs.claim("w", 60)
    overlay = Delivery(
        job_id=job.job_id,
        role=Role.WAVEFORM,
        page_number=1,
        destination="pacs",
        kind="dicom",
        artefact="o.dcm",
        identifier="1.0.1.1",
    )
    store.jobs.complete(job.job_id, "w", JobResult(status=JobStatus.DONE, deliveries=[overlay]))
    end = run(archive, store)
    assert (end.fetched, end.known) == (2, 1) and archive.batches == [["1.0.1.0", "1.0.1.2"]]


def test_what_does_not_arrive_is_counted_and_fetched_the_next_time(intake: Intake, store: Store) -> None:
    archive = Archive(intake)
    archive.lost = {"1.1.1.2"}
    end = run(archive, store)
    assert (end.fetched, end.failed, end.problem) == (5, 1, "1 of 1 objects of a study did not arrive")
    archive.lost = set()
    assert run(archive, store).fetched == 1
    assert archive.batches[-1] == ["1.1.1.2"]


@pytest.mark.parametrize("error", [DeliveryDeferred, DeliveryRefused])
def test_one_study_that_fails_does_not_end_the_pull_but_three_in_a_row_do(
    intake: Intake, store: Store, error: type[Exception]
) -> None:
    """Also one that the archive says it will never send: else a pull would end there each time."""
    archive = Archive(intake, 6)
    archive.error = error
    archive.down = {"1.0", "1.1"}
    end = run(archive, store)
    assert (end.fetched, end.failed, end.problem) == (12, 2, "the peer broke off")
    archive.down = {"1.0", "1.1", "1.2"}
    with pytest.raises(error):
        run(archive, store)


def test_how_far_a_pull_came_that_ended_is_said(intake: Intake, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.intake.pull._LINE_S", 0.0)
    archive = Archive(intake, 6)
    archive.down = {"1.3", "1.4", "1.5"}
    console = Console(record=True, width=200, force_terminal=False)
    with pytest.raises(DeliveryDeferred):
        show_pull(archive, archive.intake, Wanted(query=StudyQuery()), console)
    text = console.export_text()
    assert "2/6 studies, fetching: 6 fetched, 0 known before, 0 failed" in text
    assert "ended after 5 of 6 studies: 9 fetched, 0 known before, 2 failed" in text
    assert "continues where this one ended" in text


def test_months_and_modalities_are_asked_for_one_by_one(intake: Intake, store: Store) -> None:
    archive = Archive(intake)
    query = StudyQuery(study_date="20100115-20100301", study_description="*ECG*")
    run(archive, store, query=query, modalities=("OT", "SC"))
    asked = [(each.study_date, each.modalities) for each in archive.queries]
    spans = ["20100115-20100131", "20100201-20100228", "20100301-20100301"]
    assert asked == [(span, modality) for span in spans for modality in ("OT", "SC")]


def test_dates() -> None:
    assert list(months("20100101-20151231"))[-1] == "20151201-20151231" and len(list(months("20100101-20151231"))) == 72
    for plain in ("", "20100101", "20100101-", "-20100101"):
        assert list(months(plain)) == [plain]
    with pytest.raises(SettingsError):
        list(months("20101301-20101401"))


def test_a_description_the_archive_does_not_look_at_is_looked_at_here(intake: Intake, store: Store) -> None:
    archive = Archive(intake)
    archive.descriptions = ["Chest", "resting ecg [1]"]
    assert run(archive, store, query=StudyQuery(study_description="*ECG [1]")).studies == 1


def test_nothing_is_fetched_while_too_many_jobs_wait(
    intake: Intake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(intake, 1)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        if seconds:
            waits.append(seconds)
            store.jobs.claim("w", 60)

    monkeypatch.setattr("gateway.intake.pull.time.sleep", sleep)
    assert run(archive, store, batch=1, maximum_queued=2).fetched == 3
    assert len(waits) == 1


def test_what_came_of_it_is_printed(intake: Intake, store: Store) -> None:
    console = Console(record=True, width=200, force_terminal=False)
    show_pull(Archive(intake), intake, Wanted(query=StudyQuery()), console)
    assert "2 studies: 6 fetched, 0 known before, 0 failed" in console.export_text()
