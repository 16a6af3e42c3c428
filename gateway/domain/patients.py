"""What one HL7 message says about patients and orders, in DICOM's forms."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class PatientUpdate(BaseModel):
    """What one message says about a patient, in DICOM form; None: nothing, "": that there is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patient_id: str
    issuer_of_patient_id: str = ""
    patient_name: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None


class PatientMerge(BaseModel):
    """One message's word that two records are the same person, and which of them goes on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prior: PatientUpdate
    surviving: PatientUpdate


class OrderUpdate(BaseModel):
    """What one message says about an order; a number that is not told is ""."""

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
