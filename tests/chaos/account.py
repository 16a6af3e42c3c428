"""What was acknowledged against what arrived: lost, twice, wrong patient.

Every page that is sent has a patient ID of its own, so whatever arrives can be told apart by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """One object at the PACS, or one message at the EHR, each time that it came.

    `identifier` is its SOP Instance UID or MSH-10; `about` the SOP Instance UID of the page, or of the waveform.
    """

    identifier: str
    patient_id: str
    about: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What the gateway acknowledged, and to whom it belongs."""

    objects: dict[str, str] = field(default_factory=dict)  # SOP Instance UID -> patient ID; answered 0x0000
    files: dict[str, str] = field(default_factory=dict)  # name in the watched folder -> patient ID
    orders: dict[str, str] = field(default_factory=dict)  # accession number -> patient ID; answered AA
    mutated: set[str] = field(default_factory=set)  # SOP Instance UIDs of mutated objects answered 0x0000
    sent: set[str] = field(default_factory=set)  # patient IDs of all that was sent, acknowledged or not

    def copy(self) -> Ledger:
        """Return what is written down now; the senders go on writing."""
        objects, files, orders = (dict(list(each.items())) for each in (self.objects, self.files, self.orders))
        return Ledger(objects=objects, files=files, orders=orders, mutated=set(self.mutated), sent=set(self.sent))

    def size(self) -> int:
        return len(self.objects) + len(self.files) + len(self.orders) + len(self.mutated)

    def pages(self) -> dict[str, str]:
        """Return the patient ID of every page that must arrive, and what page it is."""
        return {patient: f"object {uid}" for uid, patient in self.objects.items()} | {
            patient: f"file {name}" for name, patient in self.files.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is wrong, each in words; all empty is what is promised."""

    lost: frozenset[str] = frozenset()
    twice: frozenset[str] = frozenset()
    wrong: frozenset[str] = frozenset()

    def since(self, earlier: Account) -> Account:
        return Account(
            lost=self.lost - earlier.lost, twice=self.twice - earlier.twice, wrong=self.wrong - earlier.wrong
        )


def missing(ledger: Ledger, objects: Sequence[Arrived], messages: Sequence[Arrived]) -> list[str]:
    """Return, in words, every acknowledged page that is not at both peers."""
    at_pacs, at_ehr = ({arrived.patient_id for arrived in peer} for peer in (objects, messages))
    return [
        f"{page} is not at the {peer}"
        for patient, page in ledger.pages().items()
        for peer, there in (("PACS", at_pacs), ("EHR", at_ehr))
        if patient not in there
    ]


def account(
    ledger: Ledger,
    objects: Sequence[Arrived],
    messages: Sequence[Arrived],
    jobs: Iterable[str],
    orders: Sequence[str],
) -> Account:
    """Compare all of it.

    Parameters
    ----------
    jobs : Iterable[str]
        The source keys of all jobs.
    orders : Sequence[str]
        The accession numbers of all orders in the database.
    """
    known_jobs, known_orders = set(jobs), set(orders)
    lost = missing(ledger, objects, messages)
    lost += [f"object {uid} has no job" for uid in (*ledger.objects, *ledger.mutated) if uid not in known_jobs]
    lost += [f"order {number} is not kept" for number in ledger.orders if number not in known_orders]
    twice = [f"order {number} is kept twice" for number in ledger.orders if orders.count(number) > 1]
    for kind, arrivals in (("SOP Instance UID", objects), ("MSH-10", messages)):
        identifiers, digests = defaultdict(set), defaultdict(set)
        for arrived in arrivals:
            identifiers[arrived.patient_id].add(arrived.identifier)
            digests[arrived.identifier].add(arrived.digest)
        twice += [
            f"a page of {p} has {len(i)} {kind}s" for p, i in identifiers.items() if p in ledger.sent and len(i) > 1
        ]
        twice += [f"{kind} {i} has {len(d)} contents" for i, d in digests.items() if len(d) > 1]
    owners = {arrived.identifier: arrived.patient_id for arrived in objects}
    wrong = [
        f"the result of object {arrived.about} is under {arrived.patient_id}"
        for arrived in objects
        if arrived.patient_id != ledger.objects.get(arrived.about, arrived.patient_id)
    ]
    wrong += [
        f"message {arrived.identifier} is about waveform {arrived.about} of another patient"
        for arrived in messages
        if arrived.patient_id != owners.get(arrived.about, arrived.patient_id)
    ]
    return Account(lost=frozenset(lost), twice=frozenset(twice), wrong=frozenset(wrong))
