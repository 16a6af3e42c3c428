"""The digitizer: a picture of ECG paper in, twelve leads in millivolts out.

Importing this package brings the data types only; torch and OpenCV load with the stages that need them.
"""

from pipeline.datatypes import (
    LEADS,
    Calibration,
    Digitization,
    EcgRecord,
    GridScale,
    Layout,
    LayoutMatch,
    Lead,
    LeadLabel,
    PageImage,
    Quality,
    RectifiedPage,
    SegmentationMap,
    TextLine,
    TraceSet,
)

__version__ = "0.1.0"

__all__ = [
    "LEADS",
    "Calibration",
    "Digitization",
    "EcgRecord",
    "GridScale",
    "Layout",
    "LayoutMatch",
    "Lead",
    "LeadLabel",
    "PageImage",
    "Quality",
    "RectifiedPage",
    "SegmentationMap",
    "TextLine",
    "TraceSet",
]
