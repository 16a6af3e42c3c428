"""Roles, and names of accounts."""

from __future__ import annotations

import pytest

from gateway.domain.account import AccountRole, Origin, User, account_name


def test_each_role_may_do_what_the_ones_before_it_may() -> None:
    viewer, reviewer, admin = AccountRole
    assert admin.covers(reviewer) and reviewer.covers(viewer) and viewer.covers(viewer)
    assert not viewer.covers(reviewer) and not reviewer.covers(admin)


def test_who_decides_may_open_pages() -> None:
    def user(role: AccountRole, **more: bool) -> User:
        return User(name="a", role=role, origin=Origin.ACCOUNT, **more)

    assert user(AccountRole.REVIEWER).decides and user(AccountRole.REVIEWER).opens_pages
    assert not user(AccountRole.VIEWER).decides and not user(AccountRole.VIEWER).opens_pages
    assert user(AccountRole.VIEWER, sees_patients=True).opens_pages


def test_names_are_kept_in_lower_case() -> None:
    assert account_name(" Ann.Lee@hospital.example ") == "ann.lee@hospital.example"


@pytest.mark.parametrize("name", ["", "a" * 65, "ann lee", "-ann", "änn", "ann/lee", "worker-7", "SCP", "outbox"])
def test_name_that_may_not_be(name: str) -> None:
    with pytest.raises(ValueError):
        account_name(name)
