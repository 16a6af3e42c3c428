"""The simulated ECG of a test patient that `send-test` sends."""

from __future__ import annotations

import numpy as np

from gateway.dicom.objects.uids import derived_uid
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.digitized_page import DigitizedPage
from gateway.store.tables import new_id
from pipeline import LEADS, Calibration, EcgRecord, Quality

TEST_PATIENT_ID = "ECGGW-TEST"


def sample_page(destination: str) -> DigitizedPage:
    """Return 10 s of pulses of 1 mV at 60 per minute; the same object at every call on one day (UTC)."""
    now = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    beat = np.exp(-(((np.arange(5000) % 500) - 100.0) ** 2) / 50).astype(np.float32)
    signal_mv = np.tile(beat, (len(LEADS), 1))
    key = f"{destination} {now:%Y%m%d}"
    return DigitizedPage(
        job_id=new_id(),
        page_number=1,
        layout_name="test",
        heart_rate_per_minute=60.0,
        waveform_sop_instance_uid=derived_uid("test waveform", destination),
        record=EcgRecord(
            signal_mv=signal_mv,
            confidence=np.ones_like(signal_mv),
            leads=LEADS,
            sampling_frequency_hz=500.0,
            calibration=Calibration(),
        ),
        quality=Quality(
            coverage=dict.fromkeys(LEADS, 1.0),
            confidence=dict.fromkeys(LEADS, 1.0),
            einthoven_residual_mv=None,
            layout_score=1.0,
            estimated_snr_db=0.0,
        ),
        context=StudyContext(
            patient_id=TEST_PATIENT_ID,
            patient_name="TEST^GATEWAY",
            study_instance_uid=derived_uid("test study", key),
            study_date=f"{now:%Y%m%d}",
            study_description="TEST of the ECG gateway, no patient",
            source_sop_instance_uid=derived_uid("test source", key),
        ),
        created_at=now,
    )
