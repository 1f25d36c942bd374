"""Worker settings: values that were renamed are still accepted."""

from __future__ import annotations

import pytest

from worker.settings import WorkerSettings


@pytest.mark.parametrize("value", ["on_demand", "visit"])
def test_the_t5_policy_on_demand_is_accepted_under_its_old_name(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_WORKER_T5", value)
    assert WorkerSettings().policy.t5 == "on_demand"
