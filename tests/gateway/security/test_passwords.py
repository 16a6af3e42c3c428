"""Passwords, and addresses that fail too often."""

from __future__ import annotations

import pytest

from gateway.errors import AccountError
from gateway.security.attempts import FailedAttempts
from gateway.security.passwords import check_password, digest, hash_password, is_outdated, is_password, new_secret


def test_hash_belongs_to_its_password_only() -> None:
    kept = hash_password("correct horse battery")
    assert kept.startswith("$argon2id$") and not is_outdated(kept)
    assert is_password(kept, "correct horse battery")
    assert not is_password(kept, "correct horse batterx")
    assert not is_password(None, "correct horse battery")
    assert not is_password("no hash", "correct horse battery")
    assert is_outdated("$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$" + "A" * 22)


@pytest.mark.parametrize("password", ["short", "x" * 257, "aaaaaaaaaaaabbb", "I am ANN-LEE, hello"])
def test_password_that_may_not_be(password: str) -> None:
    with pytest.raises(AccountError, match="a password "):
        check_password(password, "ann-lee")


def test_secrets_differ_and_their_digest_does_not_tell_them() -> None:
    one, other = new_secret(), new_secret()
    assert one != other and len(one) >= 43
    assert digest(one) != digest(other) and one not in digest(one)


def test_failures_of_an_address_are_forgotten_after_a_while() -> None:
    now = [0.0]
    attempts = FailedAttempts(3, 10.0, lambda: now[0])
    for at in (0.0, 4.0, 8.0):
        now[0] = at
        assert not attempts.too_many("10.0.0.1")
        attempts.add("10.0.0.1")
    assert attempts.too_many("10.0.0.1") and not attempts.too_many("10.0.0.2")
    now[0] = 10.5
    assert not attempts.too_many("10.0.0.1")


def test_network_of_one_ipv6_subscriber_is_one_address() -> None:
    attempts = FailedAttempts(2, 10.0)
    attempts.add("2001:db8::1")
    attempts.add("2001:db8::2")
    assert attempts.too_many("2001:db8::3") and not attempts.too_many("2001:db8:0:1::1")
