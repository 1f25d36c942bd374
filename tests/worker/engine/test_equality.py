"""A job in random company equals itself alone: bit for bit with a named seed, within one level of 255 without."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import ALL_FAMILIES, FAMILIES, Family, Mode
from contracts.catalogue.schedulers import names_for
from contracts.errors import InvalidRequest
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support import combinations
from tests.support.jobs import (
    Pixels,
    RecordingWatch,
    decode_pixels,
    generate_pixels,
    make_job,
    model_of,
    start_jobs,
    store_result,
)
from worker.engine.costs import CallCosts
from worker.engine.engine import Engine
from worker.engine.policy import Waiting
from worker.pool.pool import Pool

#: Whose calls are joined in tests of their own, or as SDXL's are.
_LIKE_OTHERS: set[str] = set() if combinations.ALL else {"sana", "kolors", "sd15", "pixart", "z-image"}
FAMILY_IDS = [
    *(id for id in FAMILIES if id not in _LIKE_OTHERS),
    "flux-kontext",
    *(["qwen-image-edit-plus", "qwen-image-layered", "flux2-klein"] if combinations.ALL else []),
]
#: Of families whose usual draw of jobs shares no call.
_SEEDS = {"flux2": 24, "flux-kontext": 26}
#: Jobs that are drawn of each family.
DRAWN = 7 if combinations.ALL else 4
#: Of 255, in float32 on the CPU.
TOLERANCE_LEVELS = 1


class Cancelled(BaseException):
    """Thrown into a job."""


@dataclass
class RandomPolicy:
    """Serves any call next, with any of those that can share it: pauses and joins at random."""

    rng: random.Random

    def choose(
        self, waiting: Sequence[Waiting], costs: CallCosts, max_rows: int, buckets: object = None
    ) -> list[Waiting]:
        del costs, buckets
        first = self.rng.choice(waiting)
        group = [first]
        for call in self.rng.sample(waiting, len(waiting)):
            rows = sum(one.rows for one in group) + call.rows
            fits = call is not first and call.key is not None and call.key == first.key and rows <= max_rows
            additions = {one.additions for one in (*group, call)} - {None}
            if fits and len(additions) <= 1 and self.rng.random() < 0.8:
                group.append(call)
        return group

    def served(self, calls: Sequence[Waiting], seconds: float) -> None:
        del calls, seconds


def _random_jobs(catalogue: Catalogue, family: str, rng: random.Random) -> list[JobParameters]:
    """Jobs of any mode, scheduler, adapters, speed and guidance; the last two can share their calls."""
    jobs = [_random_job(catalogue, family, rng) for _ in range(DRAWN - 1)]
    last = _random_job(catalogue, family, rng, batchable=True)
    return [*jobs, last, last.model_copy(update={"seed": last.seed + 1})]


def _random_job(catalogue: Catalogue, family: str, rng: random.Random, **fields: Any) -> JobParameters:
    while True:
        with suppress(InvalidRequest):  # what cannot act together
            return _draw(catalogue, family, rng, **fields)


def _draw(catalogue: Catalogue, family: str, rng: random.Random, **fixed: Any) -> JobParameters:
    spec, adapter = ALL_FAMILIES[family], f"{catalogue.model(model_of(catalogue, family)).family}-lora"
    mode = rng.choice(list(spec.modes))
    fields: dict[str, Any] = {
        "seed": rng.randrange(1000),
        **_subject(spec, rng),
        "num_inference_steps": rng.choice([2, 3]),
        "num_images": rng.choice([1, 1, 2]),
        "batchable": rng.random() < 0.7,
        "loras": rng.choice([[], [], [{"name": adapter}], [{"name": adapter, "scale": 0.5}]]),
        "previews": rng.choice([0, 0, 1]),
    }
    if spec.references is not None:
        fields |= rng.choice([{}, {}, {"height": 80}])  # steps of other sizes are never joined
    if rng.random() < 0.3:
        fields |= {"speed": "fast", "num_inference_steps": 5, "strength": 1.0}
    if mode is Mode.TXT2IMG and fields.get("speed") != "fast":
        fields["scheduler"] = rng.choice(names_for(spec.kind))
    if "strength" not in spec.modes[mode]:
        fields.pop("strength", None)
    elif "strength" not in fields:
        fields["strength"] = rng.choice([0.7, 1.0])
    return make_job(catalogue, family, mode, controls=rng.choice([1, 1, 2]), **fields | fixed)


def _subject(spec: Family, rng: random.Random) -> dict[str, Any]:
    text = rng.choice(["a red circle", "a blue square on green", "a star"])
    return {spec.subject: rng.choice([0, "goldfish", 999])} if spec.prompted_by_class else {spec.subject: text}


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_a_job_in_random_company_equals_itself_alone(
    family: str, flux_tools: Catalogue, tools_pool: Pool, storage: Storage
) -> None:
    catalogue, pool = flux_tools, tools_pool
    seed = _SEEDS.get(family, 20)
    rng = random.Random(f"{family} {seed}")
    jobs = _random_jobs(catalogue, family, rng)
    cancelled, failing = jobs[0], jobs[1].model_copy(update={"image": "inputs/gone.png"})
    alone = [generate_pixels(job, pool, storage) for job in jobs[2:]]
    model = pool.model(jobs[0].model)
    before = _traces(model)

    engine = Engine(pool, RandomPolicy(rng))
    flights = start_jobs([failing, *jobs[2:]], engine, pool, storage)
    (stopped,) = start_jobs([cancelled], engine, pool, storage, RecordingWatch(1, Cancelled()), name="cancelled")
    try:
        while engine.jobs:
            engine.tick()
    finally:
        engine.close()

    assert isinstance(stopped.coroutine.error, Cancelled | None)
    results = [store_result(flight, storage) for flight in flights]
    assert all(result.status == "completed" for result in results[1:]), results
    for job, flight, result, expected in zip(jobs[2:], flights[1:], results[1:], alone, strict=True):
        shown: Pixels = decode_pixels(storage.read(result.stored[0].key))
        allowed = 0 if flight.job.exact else TOLERANCE_LEVELS
        assert np.abs(shown - expected).max() <= allowed, f"seed {seed}: {job!r} in company of {jobs!r}"
        assert not (flight.job.exact and result.receipt.joined)
    assert any(result.receipt.joined for result in results[1:]), "no call was shared: nothing was tested"
    assert _traces(model) == before


def _traces(model: Any) -> tuple[object, ...]:
    """What a job could leave behind in the modules that all share: hooks and attention processors."""
    hooks = [
        (name, len(module._forward_hooks), len(module._forward_pre_hooks))
        for part in model.base.components.values()
        if hasattr(part, "named_modules")
        for name, module in part.named_modules()
        if module._forward_hooks or module._forward_pre_hooks
    ]
    processors = getattr(model.denoiser, "attn_processors", {})
    return hooks, [(name, id(processor)) for name, processor in processors.items()], model.adapters.is_active


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_no_pipeline_edits_the_modules_that_jobs_share(
    family: str, flux_tools: Catalogue, tools_pool: Pool, storage: Storage
) -> None:
    """Compared at the first suspension inside the pipeline, where an edit would reach the neighbours."""
    for mode in ALL_FAMILIES[family].modes:
        job = make_job(flux_tools, family, mode)
        model = tools_pool.ready(job, 1)
        before = _traces(model)
        engine = Engine(tools_pool)
        (flight,) = start_jobs([job], engine, tools_pool, storage)
        while not flight.steps_done:
            engine.tick()
        assert _traces(model)[1] == before[1]
        engine.close()
        assert _traces(model) == before
