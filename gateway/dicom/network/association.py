"""An association with a destination, or in words why there is none.

Each way to fail is a type of its own, because what to do about it differs; all are deliveries to be tried again, but
for a peer that takes no context of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from gateway.dicom.network.transport import Requestor
from gateway.dicom.objects.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.errors import DeliveryRefused, NotReached, SettingsError
from gateway.security.tls import client_context, server_name, words
from gateway.settings import DicomDestination


class NoConnection(NotReached):
    """The name does not resolve, nobody listens, the TLS handshake failed, or the connection broke."""


class AssociationRejected(NotReached):
    """The peer said no to the association (PS3.8 table 9-21): `rejection` is its result, source and reason."""

    def __init__(self, message: str, rejection: tuple[int, int, int]) -> None:
        super().__init__(message)
        self.rejection = rejection


class NoContext(DeliveryRefused):
    """The peer took the association and none of its presentation contexts."""


def associate(
    destination: DicomDestination,
    calling_ae_title: str,
    contexts: Sequence[PresentationContext],
    *,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[tuple[evt.EventType, Callable[..., Any]]] = (),
    maximum_object_bytes: int = 0,
) -> Association:
    """Return an established association with at least one accepted presentation context.

    Parameters
    ----------
    destination : DicomDestination
        The peer; each of connecting, the TLS handshake and the peer's answer may take its `timeout_s`.
    calling_ae_title : str
        Our AE title.
    roles
        For contexts in which we are the SCP although we ask for the association.
    handlers
        What answers the requests of the peer on this association.
    maximum_object_bytes : int
        The largest object that is taken from the peer.

    Raises
    ------
    NoConnection, AssociationRejected, NoContext
        There is none.
    """
    ae = Requestor(ae_title=calling_ae_title)
    ae.maximum_object_bytes = maximum_object_bytes
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = destination.timeout_s
    host, name = destination.host, destination.name
    try:
        tls = destination.tls and (client_context(destination.tls), server_name(destination.tls, host))
        association = ae.associate(
            *(host, destination.port, list(contexts), destination.ae_title),
            ext_neg=list(roles),
            tls_args=tls,
            evt_handlers=list(handlers),
        )
    except SettingsError as error:
        raise NoConnection(f"{name}: {error}") from error
    except OSError as error:
        raise NoConnection(f"{name}: {host} cannot be resolved") from error
    if association.is_established:
        return association
    answer = association.acceptor.primitive
    if answer is not None and answer.result == 0x00:
        raise NoContext(f"{name}: the peer takes no {UID(contexts[0].abstract_syntax).name}")
    if association.is_rejected:
        rejection = (answer.result, answer.result_source, answer.diagnostic)
        raise AssociationRejected(f"{name}: association rejected: {answer.reason_str}", rejection)
    broken = association.dul.socket.error
    reason = words(broken) if broken else "the peer did not answer the association request"
    raise NoConnection(f"{name}: no association with {host}:{destination.port}: {reason}")
