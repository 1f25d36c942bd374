"""adamw8bit: averages in 8 bits, from which a training goes on bit for bit; it needs bitsandbytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load

from contracts.requests.training.settings import EIGHT_BIT, OptimizerName, TrainingSettings
from worker.training.examples import Examples
from worker.training.objectives import OBJECTIVES
from worker.training.optimizers import available_optimizers
from worker.training.run import CheckpointUnusable, TrainingRun
from worker.training.trainees.controlnet import UNetControlNet

STEPS = 4


def training(checkpoint: Any, examples: Examples, optimizer: OptimizerName) -> TrainingRun:
    settings = TrainingSettings(
        kind="controlnet", rank=1, alpha=1, steps=STEPS, learning_rate=1e-2, resolution=64, seed=7,
        optimizer=optimizer,
    )  # fmt: skip
    rows = [replace(row, control=torch.full((1, 3, *row.size), 90, dtype=torch.uint8)) for row in examples.subject]
    net = UNetControlNet.begin("sd15", checkpoint.unet, checkpoint.vae, rows, settings.seed)
    objective = OBJECTIVES["sd15"](checkpoint.scheduler.config, None)
    return TrainingRun(checkpoint.unet, net, objective, Examples(rows), settings)


def learned(run: TrainingRun, steps: int) -> TrainingRun:
    for _ in range(steps):
        run.learn()
    return run


def test_a_training_goes_on_from_averages_in_8_bits_bit_for_bit(checkpoint: Any, examples: Examples) -> None:
    assert EIGHT_BIT in available_optimizers()
    whole = learned(training(checkpoint, examples, "adamw8bit"), STEPS)
    saved = learned(training(checkpoint, examples, "adamw8bit"), 2).checkpoint()
    rest = training(checkpoint, examples, "adamw8bit")
    rest.restore(saved)
    assert learned(rest, STEPS - 2).checkpoint() == whole.checkpoint()
    assert torch.uint8 in {tensor.dtype for tensor in load(saved).values()}


def test_it_takes_less_memory_and_learns_nearly_the_same(checkpoint: Any, examples: Examples) -> None:
    plain, small = (learned(training(checkpoint, examples, name), 2) for name in ("adamw", "adamw8bit"))
    print(f"AdamW: {plain.state_bytes} bytes of weights and averages; in 8 bits {small.state_bytes}")
    assert small.state_bytes < 0.7 * plain.state_bytes
    weights, others = (load(run.checkpoint()) for run in (plain, small))
    names = [name for name in weights if name.startswith("weight:")]
    change = sum(float((weights[name] - others[name]).abs().sum()) for name in names)
    assert 0 < change / sum(weights[name].numel() for name in names) < 1e-2  # of steps of 0.01


def test_checkpoints_of_the_other_optimizer_are_refused(checkpoint: Any, examples: Examples) -> None:
    saved = learned(training(checkpoint, examples, "adamw"), 1).checkpoint()
    run = training(checkpoint, examples, "adamw8bit")
    try:
        run.restore(saved)
    except CheckpointUnusable:
        assert run.step == 0
        learned(run, 1)
    else:
        raise AssertionError("a checkpoint of AdamW was taken for one of adamw8bit")
