"""Page -> the texts of the bar codes and QR codes on it, for example on a cover sheet or a patient's label.

Any common symbology is read, at any angle and size down to about two pixels per module.  The texts are not interpreted.
"""

from __future__ import annotations

import zxingcpp

from pipeline.datatypes import PageImage


def read_codes(page: PageImage) -> tuple[str, ...]:
    """Return the texts of the codes on a page, each once, in the reader's order.

    Control characters at the ends are removed, and codes with wrong check digits are left out.  A text may identify a
    patient: it must not be logged.
    """
    found = zxingcpp.read_barcodes(page.pixels)
    return tuple(dict.fromkeys(text for code in found if code.valid and (text := code.text.strip("\0\r\n\t \x1d\x04"))))
