"""What HL7 messages say: patients, their merges, their orders, and the messages themselves.

A message, its answer, and everything it changes are committed together, before the answer is sent.  Messages may
arrive late, in any order and more than once: an older one fills only what is still empty, and a repeat is known.

A merge gives every job of the prior identity the surviving one.  What was made for the prior one and not delivered is
made again; what was delivered is noted for the archive, which merges its own objects.  Of merges that contradict each
other the one that was made last stands, whichever comes first.
An order changes the jobs that were waiting for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta

from sqlalchemy import and_, literal, or_
from sqlmodel import Session, col, delete, select

from gateway.domain.audit import AuditKind
from gateway.domain.clock import utc_now
from gateway.domain.identity import Decide, Evidence, OrderRecord, PatientRecord, same_issuer
from gateway.domain.patients import OrderUpdate, PatientData, PatientMerge, PatientUpdate
from gateway.domain.received import InboundMessage
from gateway.domain.status import CANCELLABLE, DeliveryStatus, JobAction, JobStatus, has_arrived
from gateway.errors import NotFound
from gateway.store.database import (
    NOTHING_DELIVERED,
    SEVERAL_JOBS,
    Database,
    advance_job,
    apply_decision,
    cancel_undelivered,
    lock_job,
    log_event,
)
from gateway.store.tables import (
    AuditEntry,
    AuditPosition,
    Delivery,
    Job,
    MergeNotice,
    Order,
    Page,
    Patient,
    ReceivedMessage,
)

_ACTOR = "hl7"
_PATIENT_FIELDS = ("patient_name", "patient_birth_date", "patient_sex")
_ORDER_FIELDS = ("description", "referring_physician_name")
_CLOCKS = timedelta(days=1)  # between our clock and those of senders: what is later was told by a wrong one


_WAITS = and_(col(Job.unmatched), col(Job.status) == JobStatus.NEEDS_REVIEW, col(Job.patient_id) == "")


class Patients:
    """Patients, orders and received messages of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def answer_to(self, message: InboundMessage) -> bytes | None:
        """Return what a message of the same sender, control ID and content was answered before; None if it is new."""
        statement = select(ReceivedMessage.answer).where(
            ReceivedMessage.sending_application == message.sending_application,
            ReceivedMessage.sending_facility == message.sending_facility,
            ReceivedMessage.control_id == message.control_id,
            ReceivedMessage.digest == message.digest,
        )
        with self._database.read() as session:
            return session.exec(statement).one_or_none()

    def receive(
        self, message: InboundMessage, updates: Sequence[PatientData], made_at: datetime, decide: Decide
    ) -> list[str]:
        """Keep a message with its answer, and do what it says, in one transaction.

        Parameters
        ----------
        made_at
            When the message was made: it overrides what older ones said.
        decide
            Decides about the jobs that waited for an order, and about those of a patient who was merged.

        Returns
        -------
        list[str]
            The jobs that were changed.

        Raises
        ------
        StorageError
            Nothing is kept, a message that is known already included.
        """
        changed: list[str] = []
        with self._database.write(SEVERAL_JOBS) as session:
            session.add(ReceivedMessage(**{field.name: getattr(message, field.name) for field in fields(message)}))
            session.flush()
            for item in updates:
                if isinstance(item, PatientMerge):
                    changed += _merge(session, item, made_at, decide)
                elif isinstance(item, OrderUpdate):
                    changed += _put_order(session, item, made_at, decide)
                else:
                    _put_patient(session, item, made_at)
            _note(session, message, updates)
        return changed

    def match_waiting(self, decide: Decide) -> list[str]:
        """Decide again about the jobs that wait for an order that is known; return their ids.

        An order may be committed between the search for it and the commit of what a code or a look-up said.
        """
        numbers = (Order.accession_number, Order.placer_order_number, Order.filler_order_number)
        named = or_(*(col(number) == Job.accession_number for number in numbers))
        waits = (_WAITS, Job.accession_number != "")
        known = select(Order).where(col(Order.cancelled).is_(False), select(Job.id).where(*waits, named).exists())
        with self._database.read() as session:
            if session.exec(known.limit(1)).first() is None:
                return []
        with self._database.write(SEVERAL_JOBS) as session:
            return [job_id for order in session.exec(known).all() for job_id in _match_waiting(session, order, decide)]

    def is_outdated(self, updates: Sequence[PatientData], made_at: datetime) -> bool:
        """Return whether a message says something else than a newer one did, and so will not be followed in that."""
        with self._database.read() as session:
            return any(_is_outdated(session, update, made_at) for update in updates)

    def forget_messages(self, before: datetime) -> int:
        """Delete the messages received before a moment; return how many there were."""
        with self._database.write() as session:
            return session.exec(delete(ReceivedMessage).where(col(ReceivedMessage.received_at) < before)).rowcount

    def patient(self, patient_id: str, issuer: str = "") -> PatientRecord | None:
        """Return the record of a patient ID, or the one it was merged into; None where it is unknown or not unique."""
        with self._database.read() as session:
            patient = _find_patient(session, patient_id, issuer)
            return None if patient is None else _patient_record(_surviving(session, patient))

    def prior_ids(self, patient_id: str, issuer: str = "") -> tuple[str, ...]:
        """Return the patient IDs that were merged into a patient's: old pages name them, in print and in codes."""
        with self._database.read() as session:
            patient = _find_patient(session, patient_id, issuer)
            prior: list[Patient] = []
            todo = [] if patient is None else [patient]
            while todo:
                merged = session.exec(select(Patient).where(Patient.merged_into == todo.pop().id)).all()
                todo += merged
                prior += merged
            return tuple(each.patient_id for each in prior)

    def order(self, number: str) -> tuple[OrderRecord, PatientRecord] | None:
        """Return the order with this accession, placer or filler number and its patient; None unless it is just one.

        One that was cancelled counts only where there is no other.
        """
        with self._database.read() as session:
            order = _find_order(session, number)
            return None if order is None else _order_record(session, order)

    def merge_notices(self, limit: int = 100) -> list[MergeNotice]:
        """Return the deliveries under a merged identity that nobody has settled yet, oldest first."""
        statement = select(MergeNotice).where(MergeNotice.settled_by == "").order_by(col(MergeNotice.id))
        with self._database.read() as session:
            return list(session.exec(statement.limit(limit)).all())

    def settle_merge(self, notice_id: int, actor: str) -> None:
        """Record that the archive knows of a merge; raise NotFound where there is no such notice."""
        with self._database.write() as session:
            notice = session.get(MergeNotice, notice_id)
            if notice is None:
                raise NotFound(f"no merge notice {notice_id}")
            lock_job(session, notice.job_id)
            notice.settled_by = actor
            log_event(session, notice.job_id, "MERGE_SETTLED", actor, "")


def _find_patient(session: Session, patient_id: str, issuer: str) -> Patient | None:
    """Return the record of just this identifier; one without an issuer stands for any."""
    known = session.exec(select(Patient).where(Patient.patient_id == patient_id)).all()
    exact = [patient for patient in known if patient.issuer_of_patient_id == issuer]
    alike = exact or [patient for patient in known if same_issuer(patient.issuer_of_patient_id, issuer)]
    return alike[0] if len(alike) == 1 else None


def _surviving(session: Session, patient: Patient) -> Patient:
    return session.get_one(Patient, _lineage(session, patient)[-1])


def _lineage(session: Session, patient: Patient) -> list[int | None]:
    """Return the numbers of a record and of those it was merged into, one after the other.

    `_merge` keeps the line free of circles.  One query reads it, however long it is: a sender may have merged thousands
    of records one into the other.
    """
    if patient.merged_into is None:
        return [patient.id]
    first = select(col(Patient.id), col(Patient.merged_into), literal(0).label("place")).where(Patient.id == patient.id)
    line = first.cte("line", recursive=True)
    into = select(col(Patient.id), col(Patient.merged_into), line.c.place + 1).where(Patient.id == line.c.merged_into)
    line = line.union_all(into)
    return [number for number, _ in session.exec(select(line.c.id, line.c.place).order_by(line.c.place)).all()]


def _patient_of(session: Session, order: Order) -> Patient:
    patient = session.get(Patient, order.patient)
    assert patient is not None
    return _surviving(session, patient)


def _patient_record(patient: Patient) -> PatientRecord:
    return PatientRecord(**{field.name: getattr(patient, field.name) for field in fields(PatientRecord)})


def _order_record(session: Session, order: Order) -> tuple[OrderRecord, PatientRecord]:
    """Return an order and its patient."""
    record = OrderRecord(**{field.name: getattr(order, field.name) for field in fields(OrderRecord)})
    return record, _patient_record(_patient_of(session, order))


def _find_order(session: Session, number: str) -> Order | None:
    has_number = or_(
        col(Order.accession_number) == number,
        col(Order.placer_order_number) == number,
        col(Order.filler_order_number) == number,
    )
    orders = session.exec(select(Order).where(has_number)).all() if number else []
    candidates = [order for order in orders if not order.cancelled] or orders
    return candidates[0] if len(candidates) == 1 else None


def _put_patient(session: Session, update: PatientUpdate, made_at: datetime) -> Patient:
    patient = _known_patient(session, update)
    if patient is None:
        stated = {name: value for name, value in update.model_dump().items() if value is not None}
        patient = Patient(**stated, told_at=made_at)
        session.add(patient)
    else:
        _take_over(patient, update, _PATIENT_FIELDS, made_at)
    session.flush()
    return patient


def _known_patient(session: Session, update: PatientUpdate) -> Patient | None:
    key = (Patient.patient_id == update.patient_id, Patient.issuer_of_patient_id == update.issuer_of_patient_id)
    return session.exec(select(Patient).where(*key)).one_or_none()


def _take_over(
    row: Patient | Order, update: PatientUpdate | OrderUpdate, fields: Sequence[str], made_at: datetime
) -> None:
    """Copy what a message says; an older message fills only what is empty."""
    newer = made_at >= _told_at(row, made_at)
    for name in fields:
        value = getattr(update, name)
        if value is not None and (newer or not getattr(row, name)):
            setattr(row, name, value)
    row.told_at = max(_told_at(row, made_at), made_at)


def _told_at(row: Patient | Order, made_at: datetime) -> datetime:
    """Return when a record's newest message was made; the time of a clock that stood far ahead does not count."""
    return row.told_at if row.told_at < utc_now() + _CLOCKS else made_at


def _is_outdated(session: Session, update: PatientData, made_at: datetime) -> bool:
    if isinstance(update, PatientMerge):
        prior, surviving = _known_patient(session, update.prior), _known_patient(session, update.surviving)
        if prior is None or surviving is None:
            return prior is not None and _is_newer(prior.merged_at, made_at)
        return prior.merged_into != surviving.id and _is_overruled(session, prior, surviving, made_at)
    stated = update.patient if isinstance(update, OrderUpdate) else update
    patient = _known_patient(session, stated)
    if patient is None:
        return False
    if _differs(patient, stated, _PATIENT_FIELDS, made_at):
        return True
    order = _known_order(session, update, patient) if isinstance(update, OrderUpdate) else None
    return order is not None and _differs(order, update, ("cancelled", *_ORDER_FIELDS), made_at)


def _differs(
    row: Patient | Order, update: PatientUpdate | OrderUpdate, fields: Sequence[str], made_at: datetime
) -> bool:
    """Return whether an older message states otherwise what a newer one stated."""
    known = {name: getattr(row, name) for name in fields}
    told = {name: getattr(update, name) for name in fields}
    return made_at < _told_at(row, made_at) and any(
        told[name] is not None and known[name] not in ("", told[name]) for name in fields
    )


def _put_order(session: Session, update: OrderUpdate, made_at: datetime, decide: Decide) -> list[str]:
    """Keep an order and queue the jobs that waited for it; return their ids."""
    patient = _put_patient(session, update.patient, made_at)
    assert patient.id is not None
    order = _known_order(session, update, patient)
    if order is None:
        stated = {name: value for name, value in update.model_dump(exclude={"patient"}).items() if value is not None}
        order = Order(**stated, patient=patient.id, told_at=made_at)
        session.add(order)
    else:
        if made_at >= _told_at(order, made_at):
            order.cancelled = update.cancelled
        numbers = ("placer_order_number", "placer_order_issuer", "filler_order_number", "filler_order_issuer")
        fields = [name for name in (*numbers, "accession_number", "study_instance_uid") if getattr(update, name)]
        _take_over(order, update, [*fields, *_ORDER_FIELDS], made_at)
    session.flush()
    return [] if order.cancelled else _match_waiting(session, order, decide)


def _known_order(session: Session, update: OrderUpdate, patient: Patient) -> Order | None:
    """Return the order that a message is about: this patient's, by the placer's number, the filler's, the accession.

    Two senders may use one number for two patients: these are two orders, and a page that names the number waits.
    """
    person = _surviving(session, patient)
    for column, value in (
        (Order.placer_order_number, update.placer_order_number),
        (Order.filler_order_number, update.filler_order_number),
        (Order.accession_number, update.accession_number),
    ):
        for order in session.exec(select(Order).where(column == value)).all() if value else ():
            if _patient_of(session, order) is person:
                return order
    return None


def _match_waiting(session: Session, order: Order, decide: Decide) -> list[str]:
    """Decide about the jobs that waited for an order; return the ids of those that changed."""
    numbers = {order.accession_number, order.placer_order_number, order.filler_order_number} - {""}
    waiting = select(Job).where(_WAITS, col(Job.accession_number).in_(numbers)).with_for_update(key_share=True)
    return [job.id for job in session.exec(waiting).all() if match_order(session, job, decide)]


def match_order(session: Session, job: Job, decide: Decide) -> bool:
    """Decide about a locked job that waits, if the order it names is known; return whether that changed it."""
    order = _find_order(session, job.context.accession_number)
    if job.context.patient_id or order is None or order.cancelled:
        return False  # it contradicts an order, or there are none or two: it waits on, or a person decides
    before = job.status, job.reason
    decision = decide(job.context, Evidence(order=_order_record(session, order)))
    apply_decision(session, job, decision, _ACTOR, "an order names the patient", event="MATCH")
    return before != (job.status, job.reason)


def _merge(session: Session, merge: PatientMerge, made_at: datetime, decide: Decide) -> list[str]:
    """Let one record stand for two; return the jobs that changed.

    The surviving record may have been merged itself, by a message that was faster: then the record it was merged into
    survives.
    """
    prior = _put_patient(session, merge.prior, made_at)
    surviving = _put_patient(session, merge.surviving, made_at)
    if prior is surviving or _is_overruled(session, prior, surviving, made_at):
        return []
    lineage = _lineage(session, surviving)
    if prior.id in lineage:  # merged the other way round
        surviving.merged_into, surviving.merged_at = None, made_at
        lineage = [surviving.id]
    prior.merged_into, prior.merged_at = surviving.id, made_at
    survivor = session.get_one(Patient, lineage[-1])
    changed: list[str] = []
    jobs = select(Job).where(Job.patient_id == prior.patient_id).with_for_update(key_share=True)
    for job in session.exec(jobs).all():
        if same_issuer(job.context.issuer_of_patient_id, prior.issuer_of_patient_id):
            _repoint(session, job, prior, survivor, decide)
            changed.append(job.id)
    return changed


def _is_overruled(session: Session, prior: Patient, surviving: Patient, made_at: datetime) -> bool:
    """Return whether a newer merge stands against this one: of the prior record, or the other way round."""
    if _is_newer(prior.merged_at, made_at):
        return True
    return _is_newer(surviving.merged_at, made_at) and prior.id in _lineage(session, surviving)


def _is_newer(merged_at: datetime | None, made_at: datetime) -> bool:
    """Return whether a merge is newer; one that was told by a clock that stood far ahead does not count."""
    return merged_at is not None and made_at < merged_at < utc_now() + _CLOCKS


def _repoint(session: Session, job: Job, prior: Patient, surviving: Patient, decide: Decide) -> None:
    """Give a job its patient's surviving identity; what left under the prior one is noted for the archive."""
    deliveries = session.exec(select(Delivery).where(Delivery.job_id == job.id)).all()
    sent = {delivery.status for delivery in deliveries}
    if any(has_arrived(delivery.status, delivery.asked) for delivery in deliveries):
        _note_for_archive(session, job, prior, surviving, "")
    elif DeliveryStatus.PENDING in sent:  # it may be on its way
        _note_for_archive(session, job, prior, surviving, NOTHING_DELIVERED)
    job.context = decide(job.context, Evidence(merged_into=_patient_record(surviving))).context
    log_event(session, job.id, "MERGE", _ACTOR, "the patient's records were merged")
    if job.status == JobStatus.DONE and not set(CANCELLABLE) & sent:
        return
    has_result = session.exec(select(Page.id).where(Page.job_id == job.id).limit(1)).first() is not None
    if job.status in (JobStatus.RUNNING, JobStatus.DONE) or (job.status == JobStatus.NEEDS_REVIEW and has_result):
        job.attempts = 0
        advance_job(session, job, JobAction.REPOINT, _ACTOR, "")
        cancel_undelivered(session, job.id, _ACTOR)


def _note_for_archive(session: Session, job: Job, prior: Patient, surviving: Patient, settled_by: str) -> None:
    session.add(
        MergeNotice(
            job_id=job.id,
            prior_patient_id=prior.patient_id,
            prior_issuer=prior.issuer_of_patient_id,
            surviving_patient_id=surviving.patient_id,
            surviving_issuer=surviving.issuer_of_patient_id,
            settled_by=settled_by,
        )
    )


def _note(session: Session, message: InboundMessage, updates: Sequence[PatientData]) -> None:
    """Have the audit repository, where there is one, told of the patients that a message is about."""
    if session.get(AuditPosition, 1) is None:
        return
    told: dict[tuple[str, str], str] = {}
    for item in updates:
        match item:
            case OrderUpdate():
                patients = [item.patient]
            case PatientMerge():
                patients = [item.surviving, item.prior]
            case _:
                patients = [item]
        for each in patients:
            key = each.patient_id, each.issuer_of_patient_id
            told[key] = each.patient_name or told.get(key, "")
    for (patient_id, issuer), name in told.items():
        session.add(
            AuditEntry(
                kind=AuditKind.PATIENT,
                name=f"{message.sending_application}|{message.sending_facility}",
                patient_id=patient_id,
                issuer_of_patient_id=issuer,
                patient_name=name,
                detail=message.message_type,
            )
        )
