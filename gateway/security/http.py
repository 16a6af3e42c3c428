"""One request to a peer over HTTP, with TLS as its settings want it, and an answer that is bounded.

Redirections are not followed and proxies not used: both would hand a token on.  No error says what was asked: a query
names patients.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from gateway.errors import DeliveryDeferred, DeliveryRefused, NotReached, SettingsError
from gateway.security.tls import client_context, server_name, words
from gateway.settings import TlsClientSettings

MAXIMUM_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class WebPeer:
    """A peer: what errors call it, where it is, and how it is reached.

    Parameters
    ----------
    timeout_s
        Of each step: connecting, sending, each part of the answer.
    tls
        Of https; None: the system's authorities.
    """

    name: str
    url: str
    timeout_s: float
    tls: TlsClientSettings | None = None

    @property
    def secure(self) -> bool:
        """Whether it is reached by https."""
        return self.url.startswith("https:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status, headers and body of an answer that arrived whole."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def request(
    peer: WebPeer,
    path: str,
    headers: Mapping[str, str],
    content: bytes | None = None,
    maximum_bytes: int = MAXIMUM_BYTES,
) -> Answer:
    """Make one request, a POST where there is something to send.

    Parameters
    ----------
    path
        What follows the peer's `url`, its query included.

    Raises
    ------
    NotReached
        There is no connection.
    DeliveryDeferred
        It broke off, or no whole answer came in time.
    DeliveryRefused
        The answer has more than `maximum_bytes`.
    """
    tls = peer.tls or TlsClientSettings()
    body = bytearray()
    try:
        host = urlsplit(peer.url).hostname or ""
        with (
            httpx.Client(
                verify=client_context(tls) if peer.secure else True, timeout=peer.timeout_s, trust_env=False
            ) as client,
            client.stream(
                "GET" if content is None else "POST",
                peer.url.rstrip("/") + path,
                headers={**headers, "Accept-Encoding": "identity"},
                content=content,
                extensions={"sni_hostname": server_name(tls, host)} if peer.secure else {},
            ) as response,
        ):
            for chunk in response.iter_raw(1 << 16):
                body += chunk
                if len(body) > maximum_bytes:
                    raise DeliveryRefused(f"{peer.name}: an answer of more than {maximum_bytes >> 20} MiB")
            return Answer(status=response.status_code, headers=response.headers, body=bytes(body))
    except SettingsError as error:
        raise NotReached(f"{peer.name}: {error}") from error
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL, ssl.SSLError) as error:
        raise NotReached(f"{peer.name}: {_reason(error)}") from error
    except httpx.HTTPError as error:  # it was there, and broke off: perhaps because of what it was sent
        raise DeliveryDeferred(f"{peer.name}: {_reason(error)}") from error


def secret(path: Path) -> str:
    """Return what a file of one secret holds; raise SettingsError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read") from error


def _reason(error: Exception) -> str:
    """Return what went wrong, without the address that was asked."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return words(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return f"no connection ({type(error).__name__})"
