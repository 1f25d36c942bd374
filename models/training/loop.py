"""The training loop that every stage shares: schedule, averaging over ranks, EMA, checkpoints. Knows no task.

Nothing random lives here, and every stage draws its random numbers from the step's number, so that a resumed
run goes on exactly as the interrupted one would have. Checkpoints are safetensors and JSON.
"""

import json
import math
import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from models.training.optimizers import Optimizers

RUNS = Path(__file__).resolve().parent / "runs"
_SAVE_EVERY_STEPS = 250


@dataclass(frozen=True)
class Plan:
    """How long and how fast. Shares are parts of the whole run, from 0 to 1."""

    steps: int
    batch: int
    learning_rate: float
    #: Muon's, for the matrices of a transformer; 0 leaves them to AdamW
    muon_rate: float = 0.0
    warmup_steps: int = 200
    flat_share: float = 0.0
    floor_share: float = 0.01
    ema_decay: float = 0.999
    weight_decay: float = 0.01
    bfloat16_share: float = 0.0


@dataclass(frozen=True)
class Rank:
    """One of the processes that train together. A lone process is rank 0 of 1."""

    index: int
    count: int


def join_ranks() -> Rank:
    """Reads the launcher's environment and meets the other ranks. One thread each, if there are several."""
    rank = Rank(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if rank.count > 1:
        torch.set_num_threads(1)
        if not dist.is_initialized():
            dist.init_process_group("gloo")
    return rank


def pick_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster there: a CPU without instructions for it takes ten times as long."""
    return device.type != "cpu" or bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


class Loop:
    """Runs one stage. `for step in loop: loop.learn(loss)`; afterwards the models hold the EMA weights."""

    def __init__(
        self, name: str, models: Mapping[str, nn.Module], plan: Plan, rank: Rank, resume: bool = False
    ) -> None:
        self.name, self.plan, self.rank = name, plan, rank
        self._named = {
            f"{prefix}.{name}": parameter
            for prefix, model in models.items()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self._parameters = list(self._named.values())
        self._optimizers = Optimizers(self._named, plan.learning_rate, plan.muon_rate, plan.weight_decay)
        self._ema = [parameter.detach().clone() for parameter in self._parameters]
        self._first_step, self.loss, self.seconds, self._started = 0, 0.0, 0.0, time.monotonic()
        if resume and (self.folder / "state.json").exists():
            self._restore()

    @property
    def folder(self) -> Path:
        """Where this run keeps its checkpoints; git ignores it."""
        return RUNS / self.name

    def __iter__(self) -> Iterator[int]:
        """Yields the steps that are left and shows a bar on rank 0."""
        left = range(self._first_step, self.plan.steps)
        bar = tqdm(left, desc=self.name, disable=self.rank.index > 0, mininterval=5.0)
        before = self.seconds
        for step in bar:
            share = share_of_rate(self.plan, step)
            self._optimizers.schedule(share)
            self._step = step
            yield step
            bar.set_postfix(loss=f"{self.loss:.4f}", rate=f"{share * self.plan.learning_rate:.1e}", refresh=False)
            self.seconds = before + time.monotonic() - self._started
            if self.rank.index == 0 and (step + 1) % _SAVE_EVERY_STEPS == 0:
                self._save(step + 1)
        self._finish()

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """bfloat16 for the first part of the run, where the plan asks for it; the tail is always float32."""
        early = self._step < self.plan.bfloat16_share * self.plan.steps
        return torch.autocast(device.type, torch.bfloat16, enabled=early and has_bfloat16(device))

    def learn(self, loss: Tensor) -> None:
        """One step of the optimizers."""
        loss.backward()  # type: ignore[no-untyped-call]
        self._average_gradients()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizers.step()
        decay = min(self.plan.ema_decay, (1 + self._step) / (10 + self._step))
        torch._foreach_lerp_(self._ema, [p.detach() for p in self._parameters], 1 - decay)
        value = loss.item()
        self.loss = value if self._step == self._first_step and not self.loss else 0.98 * self.loss + 0.02 * value

    def _average_gradients(self) -> None:
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.rank.count == 1:
            return
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.rank.count
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _finish(self) -> None:
        with torch.no_grad():
            for parameter, average in zip(self._parameters, self._ema, strict=True):
                parameter.copy_(average)
        if self.rank.index == 0:
            self._save(self.plan.steps)

    def _save(self, step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        for (name, parameter), average in zip(self._named.items(), self._ema, strict=True):
            tensors[f"weight:{name}"], tensors[f"average:{name}"] = parameter.detach(), average
        tensors |= self._optimizers.remember()
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        scratch = self.folder / "state.part"
        save_file(tensors, scratch)
        scratch.replace(self.folder / "state.safetensors")
        record = {
            "step": step,
            "steps": self.plan.steps,
            "batch": self.plan.batch * self.rank.count,
            "loss": round(self.loss, 5),
            "wall_minutes": round(self.seconds / 60, 2),
            "ranks": self.rank.count,
            "device": pick_device().type,
        }
        (self.folder / "state.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def _restore(self) -> None:
        record = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        self._first_step, self.loss = record["step"], record["loss"]
        self.seconds = record["wall_minutes"] * 60
        tensors = load_file(self.folder / "state.safetensors")
        with torch.no_grad():
            for (name, parameter), average in zip(self._named.items(), self._ema, strict=True):
                parameter.copy_(tensors[f"weight:{name}"])
                average.copy_(tensors[f"average:{name}"])
        self._optimizers.recall(tensors, self._first_step)


def share_of_rate(plan: Plan, step: int) -> float:
    """Warm-up, then flat, then half a cosine down to the floor."""
    warm = min(1.0, (step + 1) / plan.warmup_steps)
    done = step / plan.steps
    if done < plan.flat_share:
        return warm
    falling = (done - plan.flat_share) / (1 - plan.flat_share)
    cosine = 0.5 * (1 + math.cos(math.pi * falling))
    return warm * (cosine * (1 - plan.floor_share) + plan.floor_share)


def step_numbers(name: str, rank: Rank, step: int) -> tuple[random.Random, torch.Generator]:
    """The step's own random numbers, for Python and for torch."""
    rng = random.Random(f"train/{name}/{rank.index}/{step}")
    return rng, torch.Generator().manual_seed(rng.getrandbits(60))
