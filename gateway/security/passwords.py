"""Passwords: what may be one, their hashes (argon2id, RFC 9106), and secrets that only their digest is kept of."""

from __future__ import annotations

import hashlib
import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from gateway.errors import AccountError

SHORTEST = 12
_LONGEST = 256
_hasher = PasswordHasher()  # the second recommended option of RFC 9106: 64 MiB, 3 passes, 4 lanes
_few = threading.BoundedSemaphore(2)  # each takes 64 MiB for a tenth of a second
_nobodys = "$argon2id$v=19$m=65536,t=3,p=4$c29tZSBzYWx0IG9mIG91cnM$" + "A" * 43  # costs what a real one costs


def check_password(password: str, name: str) -> None:
    """Raise AccountError where this may be nobody's password; the message has the rule."""
    if not SHORTEST <= len(password) <= _LONGEST:
        raise AccountError(f"a password has {SHORTEST} to {_LONGEST} characters")
    if name and name.lower() in password.lower():
        raise AccountError("a password does not contain the name of its account")
    if len(set(password)) < 5:
        raise AccountError("a password has at least five different characters")


def hash_password(password: str) -> str:
    """Return what is kept of a password."""
    with _few:
        return _hasher.hash(password)


def is_password(password_hash: str | None, password: str) -> bool:
    """Return whether a password belongs to a hash; for nobody's hash, None, it takes as long."""
    try:
        with _few:
            _hasher.verify(password_hash or _nobodys, password[:_LONGEST])
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None


def is_outdated(password_hash: str) -> bool:
    """Return whether a hash was made with other parameters than those of today."""
    return _hasher.check_needs_rehash(password_hash)


def new_secret() -> str:
    """Return 256 random bits, as text for a cookie or an address."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return what is kept of a secret of `new_secret`."""
    return hashlib.sha256(secret.encode()).hexdigest()
