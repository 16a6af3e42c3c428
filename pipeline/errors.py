"""Errors of the digitizer.  All are deterministic: the same page fails the same way, so none is worth a retry.

DigitizationError
|-- PageUnreadable      the bytes are no picture or PDF we can decode, or too large to decode safely
|-- GridNotFound        no ECG grid and nothing else to take a scale from
|-- LayoutUnknown       no layout fits what is printed
|-- TraceNotFound       no ECG trace on the page
|-- DeviceError         the page is too much for the memory of the device the networks run on
`-- WeightsMismatch     a weights file is not the one its record describes
"""


class DigitizationError(Exception):
    """A page that cannot become a record; the message says why, in words a person at the hospital understands."""


class PageUnreadable(DigitizationError):
    """The bytes cannot be decoded into a page, or doing so would be unsafe."""


class GridNotFound(DigitizationError):
    """There is no grid on the page and no other evidence of scale."""


class LayoutUnknown(DigitizationError):
    """No configured layout explains the page."""


class TraceNotFound(DigitizationError):
    """There is no ECG trace on the page."""


class DeviceError(DigitizationError):
    """The device the networks run on has too little memory for the page."""


class WeightsMismatch(DigitizationError):
    """A weights file does not have the hash its record states."""
