"""Errors of the gateway: the type says what the caller has to do.

GatewayError
|-- SettingsError             the configuration is wrong: do not start
|-- IntakeError               the sender is told no; nothing was kept
|   |-- UnsupportedSopClass   not a class we take
|   `-- UndecodableDataset    the bytes are no data set, or one that contradicts itself
|-- StorageError              spool or database cannot take it now: the sender may try again
|-- NotFound                  no job or delivery has this id
|-- IllegalTransition         a job or delivery was asked to change in a way the table forbids
`-- DeliveryError
    |-- DeliveryDeferred      try again later
    `-- DeliveryRefused       never, as it stands: a person must look
        `-- IdentityMissing   nothing says whose ECG it is, so no message about it can be made
"""


class GatewayError(Exception):
    """Base of all errors the gateway raises on purpose; messages hold no patient data."""


class SettingsError(GatewayError):
    """The configuration breaks a rule; the message names the setting, its value and the rule."""


class IntakeError(GatewayError):
    """What was sent cannot become a job."""


class UnsupportedSopClass(IntakeError):
    """A SOP class the gateway does not take."""


class UndecodableDataset(IntakeError):
    """Bytes that are no data set, or a data set that contradicts itself."""


class StorageError(GatewayError):
    """Spool or database cannot take anything now."""


class NotFound(GatewayError):
    """No job or delivery has this id."""


class IllegalTransition(GatewayError):
    """The state table has no such step."""


class DeliveryError(GatewayError):
    """A result did not reach its destination; `response` is the peer's code, if it gave one."""

    def __init__(self, message: str, response: str = "") -> None:
        super().__init__(message)
        self.response = response


class DeliveryDeferred(DeliveryError):
    """Not now: try again later."""


class DeliveryRefused(DeliveryError):
    """Not ever, as it stands: a person must look."""


class IdentityMissing(DeliveryRefused):
    """Nothing says whose ECG this is."""
