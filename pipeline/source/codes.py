"""Page -> the bar codes and QR codes on it: what a cover sheet or a patient's label says to machines.

Any common symbology, at any angle and size down to about two pixels a module; nothing is made of the text here.
"""

from __future__ import annotations

import zxingcpp

from pipeline.datatypes import PageImage


def read_codes(page: PageImage) -> tuple[str, ...]:
    """Return the texts of the codes on a page, each once, in the reader's order; control characters at the ends go.

    A code whose check digits fail is none.  A text may be a patient's identity: never logged.
    """
    found = zxingcpp.read_barcodes(page.pixels)
    return tuple(dict.fromkeys(text for code in found if code.valid and (text := code.text.strip("\0\r\n\t \x1d\x04"))))
