"""Every reason why a job waits for its identity, in words.  They hold no patient data."""

from __future__ import annotations

NO_ORDER = "no order has this accession number yet: it goes on when one arrives, or when a person says whose it is"
CANCELLED = "the order with this accession number was cancelled"
OTHER_PATIENT = "the order with this accession number is for another patient than the page names"
CONTRADICTION = "the patient's record has another {} than the page names"

NO_IDENTITY = "nothing says whose ECG this is: there is no patient_id"
NOT_IN_OBJECT = "no Patient ID: whose ECG this is must be told by a person"
NOT_IN_STATEMENT = "no patient ID"
LOOKING_UP = "whose ECG this is, is being looked up"

NOT_FOUND = "the {} that was asked does not know this {}: it is asked again, or a person says whose it is"
AMBIGUOUS = "the {} that was asked has several patients under this {}"
NO_ANSWER = "the {} could not be asked whose it is: {}"

SEVERAL_CODES = "the codes on the pages name different patients or orders"
OTHER_PATIENT_ID = "the page prints another patient ID than the record has"
OTHER_ACCESSION_NUMBER = "the page prints another accession number than the record has"
OTHER_NAME = "the page prints another patient's name than the record has"
OTHER_CODE = "a code on the page names another patient or order than the record"
