"""Errors of the gateway: the type says what the caller must do.

GatewayError
|-- SettingsError             the configuration is wrong: do not start
|-- IntakeError               reject the object; nothing was stored
|   |-- UnsupportedSopClass   the SOP class is not supported
|   `-- UndecodableDataset    the bytes are not a data set, or the data set contradicts itself
|-- StorageError              spool or database cannot store it now: the sender may try again
|   `-- UnreadableFile        one file of the spool cannot be read now
|-- NotFound                  no job or delivery has this id
|-- AccountError             no account can be made, changed or used like this
|-- IllegalTransition         the state table does not allow this change of a job or delivery
`-- DeliveryError
    |-- DeliveryDeferred      try again later
    |   `-- NotReached        and nothing else before: it is the peer, not the delivery
    `-- DeliveryRefused       do not try again: a person must act
        `-- IdentityMissing   the patient is not known: no message can be made
"""


class GatewayError(Exception):
    """Base of all errors that the gateway raises on purpose; messages contain no patient data."""


class SettingsError(GatewayError):
    """The configuration violates a rule; the message names the setting, its value and the rule."""


class IntakeError(GatewayError):
    """The object cannot become a job."""


class UnsupportedSopClass(IntakeError):
    """The gateway does not support the SOP class."""


class UndecodableDataset(IntakeError):
    """The bytes are not a data set, or the data set contradicts itself."""


class StorageError(GatewayError):
    """Spool or database cannot store anything now."""


class UnreadableFile(StorageError):
    """A file of the spool is not gone, and cannot be read now, while others can."""


class NotFound(GatewayError):
    """No job or delivery has this id."""


class AccountError(GatewayError):
    """An account cannot be made, changed or used like this."""


class IllegalTransition(GatewayError):
    """The state table does not allow this change."""


class DeliveryError(GatewayError):
    """An artefact did not reach its destination; `response` is the code of the peer, if there is one."""

    def __init__(self, message: str, response: str = "") -> None:
        super().__init__(message)
        self.response = response


class DeliveryDeferred(DeliveryError):
    """The peer cannot accept it now: try again later, and not before `wait_s` have passed, where it says so."""

    def __init__(self, message: str, response: str = "", wait_s: float = 0.0) -> None:
        super().__init__(message, response)
        self.wait_s = wait_s


class NotReached(DeliveryDeferred):
    """The peer cannot be reached, or takes nothing from us now: no other delivery would fare better."""


class DeliveryRefused(DeliveryError):
    """The peer refuses it for good: a person must act."""


class IdentityMissing(DeliveryRefused):
    """The patient of the ECG is not known."""
