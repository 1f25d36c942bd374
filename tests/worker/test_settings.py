"""Worker settings: values that were renamed are still accepted, and what a named seed means."""

from __future__ import annotations

import pytest

from worker.settings import WorkerSettings


@pytest.mark.parametrize("value", ["on_demand", "visit"])
def test_the_t5_policy_on_demand_is_accepted_under_its_old_name(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_WORKER_T5", value)
    assert WorkerSettings().policy.t5 == "on_demand"


@pytest.mark.parametrize(("seeds", "expected"), [("exact", False), ("joined", True)])
def test_what_a_named_seed_means_is_a_setting_and_a_request_may_say_otherwise(
    seeds: str, monkeypatch: pytest.MonkeyPatch, *, expected: bool
) -> None:
    monkeypatch.setenv("DARKROOM_WORKER_SEEDS", seeds)
    settings = WorkerSettings()
    assert settings.may_join(None) is expected
    assert [settings.may_join(asked) for asked in (True, False)] == [True, False]


def test_a_seed_is_exact_unless_the_operator_says_otherwise() -> None:
    assert not WorkerSettings().may_join(None)
