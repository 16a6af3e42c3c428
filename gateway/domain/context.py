"""Whose ECG a page is and what it was ordered as, in DICOM's forms."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StudyContext(BaseModel):
    """Whose ECG it is and what it was ordered as: copied from the source, never invented.

    Fields carry the DICOM attribute's value in its DICOM form ("" = not known): PatientName as PN, dates as DA, times
    as TM, date-times as DT.  Strings are already decoded to Unicode.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    study_instance_uid: str = ""
    study_date: str = ""
    study_time: str = ""
    study_id: str = ""
    study_description: str = ""
    accession_number: str = ""
    referring_physician_name: str = ""
    acquisition_date_time: str = ""  # when the ECG was recorded, if the source says so
    timezone_offset_from_utc: str = ""
    placer_order_number: str = ""
    placer_order_issuer: str = ""  # who gave it: namespace^universal ID^type (HL7 EI-2 to EI-4)
    filler_order_number: str = ""
    filler_order_issuer: str = ""  # likewise
    institution_name: str = ""
    source_sop_class_uid: str = ""
    source_sop_instance_uid: str = ""
    source_series_instance_uid: str = ""
    source_manufacturer: str = ""
    source_manufacturer_model_name: str = ""
    source_device_serial_number: str = ""
    request_attributes_json: str = ""  # RequestAttributesSequence items as a DICOM JSON array, or ""
