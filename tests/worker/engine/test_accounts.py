"""Owners are served in turn, by the seconds they got."""

from __future__ import annotations

import pytest

from worker.engine import accounts as module
from worker.engine.accounts import OwnerAccounts


def test_who_was_served_more_leads_by_those_seconds() -> None:
    accounts = OwnerAccounts()
    accounts.enter({"a", "b"})
    accounts.charge("a", 3.0)
    accounts.enter({"a", "b"})
    assert (accounts.lead("a"), accounts.lead("b")) == (3.0, 0.0)


def test_a_newcomer_starts_level_with_the_least_served_owner_who_waits() -> None:
    accounts = OwnerAccounts()
    accounts.enter({"a"})
    accounts.charge("a", 100.0)
    accounts.enter({"a"})
    accounts.enter({"a", "new"})
    assert (accounts.lead("a"), accounts.lead("new")) == (0.0, 0.0)


def test_a_lead_is_not_lost_by_a_pause_and_time_without_jobs_earns_nothing() -> None:
    accounts = OwnerAccounts()
    accounts.enter({"a", "b"})
    accounts.charge("a", 5.0)
    accounts.enter({"b"})
    accounts.enter({"a", "b"})
    assert accounts.lead("a") == 5.0
    accounts.enter({"a"})
    accounts.charge("a", 20.0)
    accounts.enter({"a"})
    accounts.enter({"a", "b"})
    assert accounts.lead("a") == 0.0


def test_idle_owners_who_would_start_at_the_floor_are_forgotten_and_others_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MAX_IDLE_OWNERS", 3)
    accounts = OwnerAccounts()
    for number in range(50):
        accounts.enter({"constant", f"owner {number}"})
        accounts.charge(f"owner {number}", float(number))
    accounts.enter({"constant"})
    assert sorted(accounts._seconds) == ["constant", "owner 47", "owner 48", "owner 49"]
