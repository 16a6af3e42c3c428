"""The content of one HL7 message about patients and orders, in the forms of DICOM."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class PatientUpdate(BaseModel):
    """The content of one message about a patient, in DICOM form; None: not stated, "": stated to be empty."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patient_id: str
    issuer_of_patient_id: str = ""
    patient_name: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None


class PatientMerge(BaseModel):
    """The statement of one message that two records are the same person, with the surviving record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prior: PatientUpdate
    surviving: PatientUpdate


class OrderUpdate(BaseModel):
    """The content of one message about an order; a number that is not stated is ""."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patient: PatientUpdate
    placer_order_number: str = ""
    placer_order_issuer: str = ""
    filler_order_number: str = ""
    filler_order_issuer: str = ""
    accession_number: str = ""
    study_instance_uid: str = ""
    description: str | None = None
    referring_physician_name: str | None = None
    cancelled: bool = False


PatientData = PatientUpdate | PatientMerge | OrderUpdate
