"""What reviewers decided, carried out when the time to take it back has passed."""

from __future__ import annotations

import logging

from gateway.domain.review import Verdict
from gateway.errors import DeliveryRefused, IllegalTransition
from gateway.results.confirmation import confirm
from gateway.results.rejection import reject
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import ReviewDecision

logger = logging.getLogger(__name__)


def carry_out(store: Store, spool: Spool, settings: Settings) -> None:
    """Carry out every decision that is due; one that cannot be leaves its job in the worklist, and the trail says why.

    Raises
    ------
    StorageError
        The others wait until the next call.
    """
    for decision in store.review.due():
        problem = ""
        try:
            _carry_out(store, spool, settings, decision)
        except (IllegalTransition, DeliveryRefused) as error:
            problem = str(error)
            logger.warning("Not carried out: %s", error, extra={"action": "review", "job_id": decision.job_id})
        store.review.settle(decision.job_id, problem)


def _carry_out(store: Store, spool: Spool, settings: Settings, decision: ReviewDecision) -> None:
    if changes := store.review.changes(decision.job_id, decision.version):
        raise IllegalTransition(f"the job has changed after the decision ({changes[0].action})")
    if decision.verdict == Verdict.ACCEPT:
        confirm(store, spool, settings, decision.job_id, decision.actor)
    else:
        reject(store, spool, settings, decision.job_id, decision.reason, decision.actor)
