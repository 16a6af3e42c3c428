"""Every reason why a job waits for its identity, in words.  They hold no patient data."""

from __future__ import annotations

NO_ORDER = "no order has this accession number yet: the job waits for an order, or for a person to give the identity"
CANCELLED = "the order with this accession number was cancelled"
OTHER_PATIENT = "the order with this accession number is for another patient than the page names"
CONTRADICTION = "the patient's record has another {} than the page"

NO_IDENTITY = "no patient ID: a person must give the identity"
NOT_IN_STATEMENT = "no patient ID"
LOOKING_UP = "the identity is being looked up"

NOT_FOUND = "the {} does not know this {}: it will be asked again, or a person gives the identity"
AMBIGUOUS = "the {} has several patients under this {}"
NO_ANSWER = "the {} could not be asked for the identity: {}"

SEVERAL_CODES = "the codes on the pages name different patients or orders"
OTHER_PATIENT_ID = "the page prints another patient ID than the record has"
OTHER_ACCESSION_NUMBER = "the page prints another accession number than the record has"
OTHER_NAME = "the page prints another patient's name than the record has"
OTHER_CODE = "a code on the page names another patient or order than the record"
