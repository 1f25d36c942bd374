"""Measured beside planned bytes, emulated cards, and moves over a sequence of calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import diffusers
import torch

from bench.trials import make, opened
from contracts.memory.activation_tables import find_activations
from contracts.memory.activations import WorkloadShape, peak_values, without_workspaces
from contracts.metrics import Counters
from tests.support.gpu_blocks.setup import Setup, bytes_of, gib, images, seconds_of, twins

#: Emulated cards.
_BUDGETS_GIB = (4, 6, 8, 12)
#: Too small for two SDXL with their fastest plans, large enough for one beside another that is on demand.
_SHARED_GIB = 14.0


def workspaces(setup: Setup) -> Iterator[dict[str, Any]]:
    """Activations of a decode and of a denoising step beside what plans count, with cuDNN's workspace and without.

    Where `of_planned` is above 1 on a card, `counting.live_tensors.WORKSPACE_SHARE` is too small for it.
    """
    dtype = setup.trial.dtype
    sides = (1024, 1536, 2048) if setup.device.type == "cuda" else (64, 128)
    for part, class_name in (("vae", "AutoencoderKL"), ("unet", "UNet2DConditionModel")):
        module = getattr(diffusers, class_name).from_pretrained(setup.checkpoint / part, dtype=dtype)
        module = module.to(setup.device).eval()
        config = json.loads((setup.checkpoint / part / "config.json").read_text(encoding="utf-8"))
        activations = find_activations(config)
        for side in sides:
            run = partial(_run, module, _arguments(part, config, side // 8, setup))
            run()
            taken = bytes_of(setup.device, run)
            shape, images_at_once = WorkloadShape(side, side), 1 if part == "vae" else 2
            planned = peak_values(activations.peaks, shape, images_at_once) * dtype.itemsize
            plain = peak_values(without_workspaces(activations).peaks, shape, images_at_once) * dtype.itemsize
            yield {
                "component": part, "side": side, "seconds": seconds_of(setup.device, run), "gib": gib(taken),
                "of_planned": round(taken / planned, 3), "of_planned_without_workspace": round(taken / plain, 3),
            }  # fmt: skip
        del module, run


def budgets(setup: Setup) -> Iterator[dict[str, Any]]:
    """Peaks and seconds under emulated cards, and whether reserved memory grows over images."""
    for size in _BUDGETS_GIB if setup.device.type == "cuda" else _BUDGETS_GIB[::3]:
        with opened(setup.trial, budget_bytes=setup.bytes(size)) as pool:
            rows, reserved = [], []
            for seed in range(setup.repeats):
                rows += images(setup, pool, 1, seed)
                reserved.append(gib(torch.cuda.memory_reserved()) if setup.device.type == "cuda" else 0.0)
            retries = pool.memory_tracker.retries
            yield {"budget_gib": size, **rows[-1], "reserved_gib": reserved, "retries": retries}


def moves(setup: Setup) -> Iterator[dict[str, Any]]:
    """What two models cost that alternate on a card too small for both: plans, moves, loads, evictions."""
    catalogue, counters, budget = twins(setup), Counters(), setup.bytes(_SHARED_GIB)
    rows = catalogue.models
    with opened(setup.trial, catalogue, budget_bytes=budget, counters=counters, max_models=9) as pool:
        plans = []
        for seed in range(2 * setup.repeats):
            memory = make(setup.trial, pool, rows[seed % 2], seed).receipt.memory
            plans.append("" if memory is None else memory.plan)
        models = [pool._cache.find(row.id) for row in rows]
        moved = [model and gib(model.placement.moved_bytes["device"]) for model in models]
        counted = counters.drain()
    count = partial(_count, counted)
    yield {"plans": plans, "moved_gib": moved, "loads": count("model_loads"), "evictions": count("evictions")}


def _count(counted: Mapping[str, float], name: str) -> float:
    return sum(value for key, value in counted.items() if key.startswith(f'["{name}"'))


def _run(module: Any, arguments: Mapping[str, Any]) -> None:
    with torch.inference_mode():
        (module.decode if hasattr(module, "decode") else module)(**arguments)


def _arguments(part: str, config: Mapping[str, Any], side: int, setup: Setup) -> dict[str, Any]:
    """Of one image of SDXL, guided."""
    new = partial(torch.zeros, device=setup.device, dtype=setup.trial.dtype)
    if part == "vae":
        return {"z": new(1, config["latent_channels"], side, side)}
    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    return {
        "sample": new(2, config["in_channels"], side, side),
        "timestep": torch.tensor(500.0, device=setup.device),
        "encoder_hidden_states": new(2, 77, config["cross_attention_dim"]),
        "added_cond_kwargs": {"text_embeds": new(2, pooled), "time_ids": new(2, 6)},
    }
