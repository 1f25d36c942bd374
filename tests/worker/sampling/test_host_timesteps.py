"""No step waits for the device, whatever the scheduler, and what the host computes instead changes no bit."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES, Mode
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.combinations import ALL, covering, usual_or_all
from tests.support.counting_device import CountingDevice, on_device
from tests.support.jobs import JoinAll, RecordingWatch, make_job, start_jobs
from tests.support.trained import TRAINED_FAMILIES
from tests.support.untrained.deepfloyd import NOISE
from worker.engine.engine import Engine
from worker.generation.results.outputs import JobResult
from worker.pool.pool import Pool
from worker.sampling.schedulers import make_scheduler

EVERY_MODE = [(family.id, mode) for family in TRAINED_FAMILIES.values() for mode in family.modes]
#: Modes without ControlNets, and what else happens in steps: previews, tables on the CPU, noise, predicted steps,
#: true guidance.
OTHERS: list[tuple[str, Mode, dict[str, Any]]] = [
    ("sdxl", Mode.IMG2IMG, {"previews": 2, "scheduler": "ddim"}),
    ("sdxl", Mode.INPAINT, {"scheduler": "lcm"}),
    ("sdxl", Mode.TXT2IMG, {"speed": "fast", "num_inference_steps": 8}),
    ("flux", Mode.TXT2IMG, {"previews": 2, "true_cfg_scale": 2.0, "scheduler": "flow_unipc"}),
]


class _CountingWatch(RecordingWatch):
    """Notes after each step how often the host has waited."""

    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self.after_step: list[Counter[str]] = []
        self._waits = waits

    def step(self, step: int, steps: int) -> None:
        super().step(step, steps)
        self.after_step.append(self._waits.copy())


def _job(catalogue: Catalogue, family: str, mode: Mode, fields: dict[str, Any]) -> JobParameters:
    """A job that makes all of its steps."""
    whole = {"strength": 1.0} if "strength" in FAMILIES[family].modes[mode] else {}
    return make_job(catalogue, family, mode, **{"num_inference_steps": 4, **whole, **fields})


def _generate(
    jobs: Sequence[JobParameters], pool: Pool, storage: Storage, watch: RecordingWatch
) -> list[JobResult]:
    engine = Engine(pool, JoinAll())
    try:
        flights = start_jobs(jobs, engine, pool, storage, watch)
        while engine.jobs:
            engine.tick()
    finally:
        engine.close()
    assert [flight.coroutine.error for flight in flights] == [None] * len(jobs)
    assert all(flight.result.status == "generated" for flight in flights), [flight.result for flight in flights]
    return [flight.result for flight in flights]


def _count_waits(jobs: Sequence[JobParameters], pool: Pool, storage: Storage) -> list[JobResult]:
    """Run jobs, with joined calls, on the counting device; no step may wait."""
    with on_device(pool, pool.ready(jobs[0], len(jobs))) as device:
        watch = _CountingWatch(device.waits)
        results = _generate(jobs, pool, storage, watch)
    # Inside the scheduler's step; what a pipeline does after the first one belongs to that, and may wait.
    noted = watch.after_step[len(jobs) :]
    steps = [dict(after - before) for before, after in pairwise(noted)]
    last = len(steps) - len(jobs)
    assert last > 0
    assert steps[:last] == [{}] * last
    # Only to tell the stage's seconds apart from the decoder's, once for each job.
    assert steps[last:] == [{"synchronize": 1}] * len(jobs)
    return results


def _compare(jobs: Sequence[JobParameters], pool: Pool, storage: Storage) -> None:
    """The same, and the images must be those of the CPU."""
    expected = _generate(jobs, pool, storage, RecordingWatch())
    for result, other in zip(_count_waits(jobs, pool, storage), expected, strict=True):
        assert [image.tobytes() for image in result.images] == [image.tobytes() for image in other.images]


@pytest.mark.parametrize(
    ("family", "mode"), EVERY_MODE if ALL else covering([row for row in EVERY_MODE if "controlnet" in row[1]])
)
def test_no_step_of_any_pipeline_waits_for_the_device(
    family: str, mode: Mode, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    _count_waits([_job(catalogue, family, mode, {})], pool, storage)


@pytest.mark.parametrize(("family", "mode", "fields"), OTHERS)
def test_no_step_waits_whatever_the_request_asks_for(
    family: str, mode: Mode, fields: dict[str, Any], catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    _compare([_job(catalogue, family, mode, fields)], pool, storage)


def test_no_step_waits_for_images_with_different_adapters(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    loras: list[list[dict[str, Any]]] = [[], [{"name": "sdxl-lora"}], [{"name": "sdxl-lora", "scale": 0.8}]]
    jobs = [make_job(catalogue, "sdxl", batchable=True, num_inference_steps=3, loras=own) for own in loras]
    _compare(jobs, pool, storage)


#: Sana-Sprint's adds no noise to an image, and is compared in its pipeline.
NAMES = sorted(set(SCHEDULERS) - {"scm"})


@pytest.mark.parametrize("begin", [None, 1])
@pytest.mark.parametrize("name", NAMES)
def test_no_step_of_any_scheduler_waits_for_the_device(name: str, begin: int | None, pool: Pool) -> None:
    scheduler = make_scheduler(name, _config(name, pool))
    with CountingDevice() as device, torch.inference_mode():
        waits = [device.waits.copy() for _ in _trajectory(scheduler, torch.bfloat16, begin, "cuda:0")]
    assert len(waits) > 4
    # Before the first sample, timesteps and noise come to the device; tables of sigmas may come back once.
    assert waits[-1] - waits[2] == {}


def test_the_counting_device_finds_waits(catalogue: Catalogue, pool: Pool) -> None:
    """As diffusers' DDIM waits: it indexes a table on the CPU by a timestep on the device."""
    with on_device(pool, pool.model("shapes-sdxl")) as device, torch.inference_mode():
        table, timestep = torch.arange(9.0), torch.tensor(3, device="cuda:0")
        assert table[timestep] == 3
        assert torch.ones(2, pin_memory=True).to("cuda:0", non_blocking=True).device.type == "cuda"
        assert device.waits == {"item": 1, "copy cpu to cuda": 1}
        assert (timestep + table[:1].pin_memory().to("cuda:0")).tolist() == [3]
        with pytest.raises(RuntimeError, match="on one device"):
            timestep + table


# -- against diffusers ------------------------------------------------------------------------------------


def _plain(scheduler: Any) -> Any:
    """diffusers' own scheduler with the same configuration."""
    own: Any = next(kind for kind in type(scheduler).__mro__ if kind.__module__.startswith("diffusers."))
    return own.from_config(scheduler.config)


def _config(name: str, pool: Pool) -> Any:
    """The configuration of a checkpoint that the scheduler works with."""
    if SCHEDULERS[name].kind == "edm":
        return {**diffusers.EDMEulerScheduler().config, "_class_name": "EDMEulerScheduler"}
    if SCHEDULERS[name].kind == "learned_variance":
        return {**diffusers.DDPMScheduler(**NOISE).config, "_class_name": "DDPMScheduler"}
    family = "sdxl" if SCHEDULERS[name].kind == "diffusion" else "flux"
    return pool.model(f"shapes-{family}").base.scheduler.config


def _trajectory(
    scheduler: Any, dtype: torch.dtype, begin: int | None, device: str = "cpu"
) -> Iterator[torch.Tensor]:
    """The samples of a run whose model answers with noise, each followed by an inpaint's noised start.

    Args:
        begin: the first step; None for a pipeline that does not tell it, and is no inpaint.
    """
    generator = torch.Generator().manual_seed(5)
    shifted = {"mu": 0.5} if scheduler.config.get("use_dynamic_shifting") else {}
    scheduler.set_timesteps(5, device=device, **shifted)
    timesteps = scheduler.timesteps[begin or 0 :]
    learned = scheduler.config.get("variance_type") == NOISE["variance_type"]
    channels = 3 if learned else 4
    start, noise, sample = (
        torch.randn(2, channels, 8, 8, generator=generator).to(device, dtype) for _ in range(3)
    )
    outputs = [
        torch.randn(2, channels * (1 + learned), 8, 8, generator=generator).to(device, dtype) for _ in timesteps
    ]
    named: dict[str, Any] = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        named["generator"] = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    if begin is not None and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    for index, timestep in enumerate(timesteps):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(sample, timestep)
        sample = scheduler.step(outputs[index], timestep, sample, **named, return_dict=False)[0]
        yield sample
        if begin is not None and index + 1 < len(timesteps):
            at = torch.tensor([timesteps[index + 1]])
            is_flow = not hasattr(scheduler, "add_noise")
            yield scheduler.scale_noise(start, at, noise) if is_flow else scheduler.add_noise(start, noise, at)


@pytest.mark.parametrize("begin", [None, 1])
@pytest.mark.parametrize(
    "dtype", usual_or_all(torch.bfloat16, [torch.float32, torch.bfloat16, torch.float16]), ids=str
)
@pytest.mark.parametrize("name", NAMES)
def test_a_scheduler_gives_bit_for_bit_what_diffusers_gives(
    name: str, dtype: torch.dtype, begin: int | None, pool: Pool
) -> None:
    scheduler = make_scheduler(name, _config(name, pool))
    ours, theirs = (list(_trajectory(one, dtype, begin)) for one in (scheduler, _plain(scheduler)))
    assert len(ours) == len(theirs) > 4
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        assert torch.equal(mine, other)


def test_the_steps_of_a_schedule_have_equal_values_on_both_sides(pool: Pool) -> None:
    scheduler = make_scheduler("euler", pool.model("shapes-sdxl").base.scheduler.config)
    scheduler.set_timesteps(5, device="cpu")
    later = scheduler.timesteps[2:]
    assert len(later) == 3
    assert [float(step) for step in later] == [float(step.on_host) for step in later] == later.tolist()
    assert float(later[1]) == float(list(later)[1])
