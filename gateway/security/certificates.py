"""The certificates that the settings name: the expiry of each, and present problems.

Used by the health page, the metrics, `check-config`, and once a day by the service.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from pydantic import BaseModel

from gateway.security.tls import words
from gateway.settings import TlsSettings

EXPIRY_WARNING = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A file with certificates: its expiry (None: it cannot be read), and its problem."""

    file: Path
    not_after: datetime | None  # UTC
    problem: str = ""  # it cannot be read, has expired, or expires within `EXPIRY_WARNING`
    usable: bool = True  # it can be read and has not expired


def certificates(settings: BaseModel, now: datetime) -> tuple[Certificate, ...]:
    """Return every certificate file in a settings tree, each once.

    For our own certificates with their chains, the first expiry counts; for trusted authorities, the last.
    """
    sections = list(_tls_sections(settings))
    files = {section.ca_file: False for section in sections} | {section.certificate_file: True for section in sections}
    return tuple(look(file, now, ours=ours) for file, ours in files.items() if file is not None)


def _tls_sections(settings: BaseModel) -> Iterator[TlsSettings]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, TlsSettings):
                yield inner
            elif isinstance(inner, BaseModel):
                yield from _tls_sections(inner)


def look(file: Path, now: datetime, *, ours: bool) -> Certificate:
    """Return what a file with certificates holds: our own with its chain, or trusted authorities."""
    try:
        ends = [certificate.not_valid_after_utc for certificate in x509.load_pem_x509_certificates(file.read_bytes())]
    except OSError as error:
        return Certificate(file=file, not_after=None, problem=f"{file}: {words(error)}", usable=False)
    except ValueError:
        return Certificate(file=file, not_after=None, problem=f"{file} holds no PEM certificate", usable=False)
    not_after = min(ends) if ours else max(ends)
    usable, problem = now < not_after, ""
    if now >= not_after - EXPIRY_WARNING:
        problem = f"{file} {'expires' if usable else 'expired'} on {not_after:%Y-%m-%d}"
    return Certificate(file=file, not_after=not_after, problem=problem, usable=usable)
