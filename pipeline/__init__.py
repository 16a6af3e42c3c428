"""The digitizer: a picture of ECG paper in, its leads in millivolts out.

Importing this package loads the data types only.  `heart_rate_per_minute`, `to_csv` and the names that need torch or
OpenCV (`Digitizer`, `digitize`, `load_pages`, `draw_overlay`, `write_png`) are loaded when they are first used.
"""

import os
from typing import TYPE_CHECKING

# OpenBLAS reads it once, when NumPy is imported.  Matrices are small here: a second thread only waits for the first.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pipeline.corrections import check_corrections, corrections_json, parse_corrections, parse_pages
from pipeline.datatypes import (
    ALL_LEADS,
    BUDGET,
    EXTRA_LEADS,
    LEADS,
    Act,
    ByPerson,
    Calibration,
    Corrections,
    Digitization,
    EcgRecord,
    FileBudget,
    GridScale,
    Layout,
    LayoutMatch,
    Lead,
    LeadLabel,
    LineByHand,
    PageImage,
    PrintedValues,
    Quality,
    RectifiedPage,
    SegmentationMap,
    TextLine,
    TraceSet,
    Unreadable,
)
from pipeline.errors import BrokenRule, CorrectionError, DigitizationError

# OpenCV reads its own limit once, when it is imported: a second lock behind the check of each file's header.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(BUDGET.page_pixels))

if TYPE_CHECKING:
    from pipeline.digitizer import Digitizer, digitize
    from pipeline.layout.file import load_layouts
    from pipeline.output.files import to_csv
    from pipeline.output.overlay import draw_overlay, write_png
    from pipeline.signal.heart_rate import heart_rate_per_minute
    from pipeline.source.page import load_pages
else:

    def __getattr__(name: str) -> object:
        """Load what is no data type when it is first used (PEP 562)."""
        if name in ("Digitizer", "digitize"):
            from pipeline import digitizer as home
        elif name in ("draw_overlay", "write_png"):
            from pipeline.output import overlay as home
        elif name == "to_csv":
            from pipeline.output import files as home
        elif name == "load_layouts":
            from pipeline.layout import file as home
        elif name == "heart_rate_per_minute":
            from pipeline.signal import heart_rate as home
        elif name == "load_pages":
            from pipeline.source import page as home
        else:
            raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
        return getattr(home, name)

    def __dir__() -> list[str]:
        """List the names that load later, too."""
        return sorted({*globals(), *__all__})


__version__ = "0.1.0"

__all__ = [
    "ALL_LEADS",
    "BUDGET",
    "EXTRA_LEADS",
    "LEADS",
    "Act",
    "BrokenRule",
    "ByPerson",
    "Calibration",
    "CorrectionError",
    "Corrections",
    "Digitization",
    "DigitizationError",
    "Digitizer",
    "EcgRecord",
    "FileBudget",
    "GridScale",
    "Layout",
    "LayoutMatch",
    "Lead",
    "LeadLabel",
    "LineByHand",
    "PageImage",
    "PrintedValues",
    "Quality",
    "RectifiedPage",
    "SegmentationMap",
    "TextLine",
    "TraceSet",
    "Unreadable",
    "check_corrections",
    "corrections_json",
    "digitize",
    "draw_overlay",
    "heart_rate_per_minute",
    "load_layouts",
    "load_pages",
    "parse_corrections",
    "parse_pages",
    "to_csv",
    "write_png",
]
