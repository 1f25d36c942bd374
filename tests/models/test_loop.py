"""The training loop: a resumed run ends where an uninterrupted one does."""

from pathlib import Path

import pytest
import torch
from torch import nn

from models.training import loop
from models.training.loop import Loop, Plan, Rank, share_of_rate, step_numbers

PLAN = Plan(steps=6, batch=4, learning_rate=0.1, warmup_steps=2)


@pytest.fixture(autouse=True)
def _own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RUNS", tmp_path)
    monkeypatch.setattr(loop, "_SAVE_EVERY_STEPS", 3)


class Interrupted(Exception):
    """Stands for a killed process."""


def run(resume: bool = False, stop_at: int | None = None) -> torch.Tensor:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    training = Loop("line", {"model": model}, PLAN, Rank(0, 1), resume)
    for step in training:
        if step == stop_at:
            raise Interrupted
        _, generator = step_numbers("line", Rank(0, 1), step)
        points = torch.randn(PLAN.batch, 3, generator=generator)
        training.learn((model(points).squeeze(1) - points.sum(1)).square().mean())
    return model.weight.detach().clone()


def test_a_resumed_run_ends_where_an_uninterrupted_one_does() -> None:
    whole = run()
    with pytest.raises(Interrupted):
        run(stop_at=4)
    assert torch.allclose(run(resume=True), whole, atol=1e-6)


def test_without_resume_a_run_starts_anew() -> None:
    assert torch.equal(run(), run())


def test_nothing_on_disk_is_pickled(tmp_path: Path) -> None:
    run()
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_the_rate_rises_and_then_falls_to_its_floor() -> None:
    plan = Plan(steps=100, batch=1, learning_rate=1.0, warmup_steps=10, flat_share=0.5, floor_share=0.1)
    shares = [share_of_rate(plan, step) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[10] == shares[40] == 1.0
    assert 0.1 < shares[-1] < 0.11


def test_every_step_and_rank_has_its_own_numbers() -> None:
    draws = {step_numbers("a", Rank(rank, 2), step)[0].random() for rank in range(2) for step in range(50)}
    assert len(draws) == 100
