"""What the blocks share: the model, images of it, and how seconds and bytes are measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.full_size import write_catalogue, write_checkpoint
from bench.trials import Trial, busy_seconds, make
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.jobs.receipt import Receipt
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.counts.architectures import read_architectures
from worker.pool.pool import Pool
from worker.runtime.device import pick_device
from worker.runtime.memory_tracker import MemoryTracker

GIB = 2**30
_STEPS = 8
#: Of the shapes model that stands in where there is no card: what all of it takes, in float32.
_TINY_GIB = 13 / 1024


@dataclass(frozen=True)
class Setup:
    """What the blocks share.

    Attributes:
        deadline: in seconds of `time.monotonic`.
        scale: of sizes, in terms of SDXL in bfloat16.
    """

    trial: Trial
    device: torch.device
    folder: Path
    deadline: float
    scale: float = 1.0

    @property
    def spec(self) -> ModelSpec:
        """The model that is run."""
        return self.trial.catalogue.models[0]

    @property
    def checkpoint(self) -> Path:
        """Its folder."""
        return Path(str(self.trial.catalogue.locate(self.spec.source)))

    @property
    def repeats(self) -> int:
        """Images for one row; on a card the first ones warm up."""
        return 4 if self.device.type == "cuda" else 1

    def bytes(self, gib: float) -> int:
        """A size, or for the stand-in what corresponds to it."""
        return int(gib * GIB * self.scale)


def prepare(folder: Path, deadline: float, *, tiny: bool) -> Setup:
    """SDXL with random weights on the first card, written where it is missing; or the stand-in on the CPU."""
    if tiny:
        catalogue = read_catalogue(BUILT_IN_CATALOGUE)
        catalogue = catalogue.model_copy(update={"models": (catalogue.model("shapes-sdxl"),)})
        trial = Trial(catalogue, "cpu", side=64, steps=2)
        return Setup(trial, torch.device("cpu"), folder, deadline, scale=_TINY_GIB / 6.5)
    device = pick_device("cuda")
    architecture = next(one for one in read_architectures() if one.id == "sdxl")
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(architecture, folder / "sdxl", "cuda", torch.bfloat16)
    catalogue = read_catalogue(write_catalogue({"sdxl": architecture}, folder))
    return Setup(Trial(catalogue, "cuda", side=1024, steps=_STEPS), device, folder, deadline)


def twins(setup: Setup) -> Catalogue:
    """The catalogue with the model twice, as `a` and `b`."""
    rows = tuple(setup.spec.model_copy(update={"id": id, "source": str(setup.checkpoint)}) for id in ("a", "b"))
    return setup.trial.catalogue.model_copy(update={"models": rows, "default_model": "a"})


def images(setup: Setup, pool: Pool, count: int, first_seed: int = 0) -> list[dict[str, Any]]:
    """Generate images one by one; a row for each."""
    rows = []
    for seed in range(first_seed, first_seed + count):
        receipt = make(setup.trial, pool, setup.spec, seed).receipt
        row: dict[str, Any] = {
            "step_seconds": step_seconds(receipt), "decode_seconds": receipt.timings["decode"],
            "busy_seconds": busy_seconds(receipt), "compile": receipt.kernels["compile"],
        }  # fmt: skip
        memory = receipt.memory
        if memory is not None and memory.peak_bytes is not None:
            row |= {"plan": memory.plan, "planned_gib": gib(memory.planned_bytes)}
            row["peak_gib"] = gib(memory.peak_bytes)
            row["peak_of_plan"] = round(memory.peak_bytes / memory.planned_bytes, 3)
        rows.append(row)
    return rows


def step_seconds(receipt: Receipt) -> float:
    """Of one denoising step."""
    return receipt.timings["denoise"] / receipt.parameters.num_inference_steps


def seconds_of(device: torch.device, work: Callable[[], object]) -> float:
    """Of a call, with the work that it leaves on the device."""
    synchronize(device)
    started = time.monotonic()
    work()
    synchronize(device)
    return time.monotonic() - started


def bytes_of(device: torch.device, work: Callable[[], object]) -> int:
    """The most that a call takes of the device's memory beside what was there."""
    if device.type != "cuda":
        tracker = MemoryTracker(device, 2**50)
        with tracker.running(0):
            work()
        return tracker.peak_bytes or 0
    synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) - before


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gib(size_bytes: int) -> float:
    """For people; small sizes of the stand-in stay visible."""
    return float(f"{size_bytes / GIB:.3g}")
