"""Forms of dates, times and zones (PS3.5 table 6.2-1), as one check each: what is wrong is not known, and never sent.

A date must be one of the calendar: 31 February is none.  An offset from UTC lies from -1200 to +1400 and is not -0000
(PS3.3 C.12.1.1.8); daylight saving is in it already, so a moment with an offset is one moment, in autumn too.
"""

from __future__ import annotations

import re
from datetime import datetime

_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_OFFSET = re.compile(r"\+(0\d|1[0-3])[0-5]\d|\+1400|-(0\d|1[01])[0-5]\d|-1200")


def is_date(text: str) -> bool:
    """Return whether `text` is a DA: a day YYYYMMDD that there was."""
    if not _DATE.fullmatch(text) or not text.isascii():
        return False
    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return True


def is_time(text: str) -> bool:
    """Return whether `text` is a TM: HH, HHMM, HHMMSS or HHMMSS.FFFFFF."""
    return text.isascii() and _TIME.fullmatch(text) is not None


def is_offset(text: str) -> bool:
    """Return whether `text` is an offset from UTC: &ZZXX, as of Timezone Offset From UTC."""
    return text.isascii() and text != "-0000" and _OFFSET.fullmatch(text) is not None


def is_date_time(text: str) -> bool:
    """Return whether `text` is a DT of a whole day at least: a date, a time if there is one, an offset likewise."""
    moment, offset = (text[:-5], text[-5:]) if text[-5:-4] in ("+", "-") else (text, "")
    return is_date(moment[:8]) and (not moment[8:] or is_time(moment[8:])) and (not offset or is_offset(offset))
