"""A warm model's steps while another model is loaded: `python -m bench.cold_load`.

A job of the small SDXL is being denoised when the first job of a cold FLUX comes, whose transformer has a gigabyte
of random float16 weights that are loaded as float32. Loaded at once, it would be one gap between two steps. Here
both compete for the same cores; the block `cold_beside` of `make gpu-check` measures the same on a card.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch

from bench.full_size import write_checkpoint
from bench.report import options, print_table, report, spread
from bench.trials import Trial, opened, parameters
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.storage import Storage
from contracts.weights.counts.architectures import Architecture
from worker.engine.engine import Engine
from worker.engine.job import Job, JobInFlight
from worker.generation.alone import Unwatched
from worker.generation.generate import JobGeneration
from worker.pool.pool import Pool
from worker.runtime.warnings import silence_known_warnings

#: Steps before the cold job comes: the first ones warm up, the others tell what a step takes.
_STEPS_BEFORE = 10
#: Attention heads of the cold model's transformer, instead of four.
_HEADS = 56


@dataclass(frozen=True)
class Load:
    """One load of a model, in seconds.

    Attributes:
        slices: of each, in order.
        gaps: from each step of the warm job to its next one; one, where there is none, of the whole load.
        step: of the warm job, before.
    """

    slices: list[float]
    gaps: list[float]
    step: float = 0.0

    @property
    def seconds(self) -> float:
        """From its begin to its end."""
        return sum(self.gaps)

    @property
    def steps(self) -> int:
        """Of the warm job, meanwhile."""
        return len(self.gaps) - 1


def main() -> None:
    """Measure and print."""
    arguments = options(__doc__, runs=3).parse_args()
    silence_known_warnings()
    torch.set_num_threads(1)
    with report("cold_load"), tempfile.TemporaryDirectory() as folder:
        catalogue = _with_wide_flux(read_catalogue(BUILT_IN_CATALOGUE), Path(folder))
        trial = Trial(catalogue, "cpu", side=64, steps=None)
        warm, cold = catalogue.model("shapes-sdxl"), catalogue.model("wide")
        measure(trial, cold)  # reads the files
        pairs = [(measure(trial, cold), measure(trial, cold, warm)) for _ in range(arguments.runs)]
        print_table(" | nothing beside | a warm job beside", _rows(pairs))


def _rows(pairs: list[tuple[Load, Load]]) -> list[list[str]]:
    alone, beside = [first for first, _ in pairs], [second for _, second in pairs]
    longest = [[max(pair[side].slices) / pair[0].seconds for pair in pairs] for side in (0, 1)]
    gaps = [max(second.gaps) / first.seconds for first, second in pairs]
    stepped = [one.steps * one.step / one.seconds for one in beside]
    longer = [sum(second.slices) / first.seconds for first, second in pairs]
    return [
        ["seconds of the load", *(spread([one.seconds for one in each], 2) for each in (alone, beside))],
        ["its own slices ÷ the load with nothing beside", "1.00", spread(longer, 2)],
        ["slices", *(spread([len(one.slices) for one in each], 0) for each in (alone, beside))],
        ["longest slice ÷ the load with nothing beside", *(spread(each, 2) for each in longest)],
        ["steps of the warm job meanwhile", "0", spread([one.steps for one in beside], 0)],
        ["their share of the time", "0", spread(stepped, 2)],
        ["longest gap between two of them ÷ the load with nothing beside", "1.00", spread(gaps, 2)],
    ]  # fmt: skip


def measure(trial: Trial, cold: ModelSpec, warm: ModelSpec | None = None, warm_steps: int = 200) -> Load:
    """Load a model for its first job, in a new pool, beside a job of `warm` if that is given."""
    with opened(trial, max_models=2) as pool:
        pool.prepare(cold.id)
        engine = Engine(pool)
        try:
            running = None if warm is None else _start(engine, pool, trial, warm, warm_steps)
            step = 0.0 if running is None else _seconds_of_step(engine, running)
            return _load(engine, _start(engine, pool, trial, cold, 1), running, step)
        finally:
            engine.close()


def _seconds_of_step(engine: Engine, running: JobInFlight) -> float:
    while running.steps_done < _STEPS_BEFORE:
        engine.tick()
    began = time.perf_counter()
    while running.steps_done < 2 * _STEPS_BEFORE:
        engine.tick()
    return (time.perf_counter() - began) / _STEPS_BEFORE


def _load(engine: Engine, loading: JobInFlight, running: JobInFlight | None, step: float) -> Load:
    own, ends = list[float](), list[float]()
    while loading.placed is None:
        if loading.coroutine.dead:
            raise SystemExit(f"the model could not be loaded: {loading.result or loading.coroutine.error}")
        before, began = 0 if running is None else running.steps_done, time.perf_counter()
        engine.tick()
        if running is None or running.steps_done == before:
            own.append(time.perf_counter() - began)
            ends = ends or [began]  # what came before its first slice does not count
        elif ends:
            ends.append(time.perf_counter())
    ends.append(time.perf_counter())
    return Load(own, [after - before for before, after in pairwise(ends)], step)


def _start(engine: Engine, pool: Pool, trial: Trial, spec: ModelSpec, steps: int) -> JobInFlight:
    job = Job(spec.id, parameters(trial, spec, num_inference_steps=steps, seed=1))

    def work(flight: JobInFlight) -> Any:
        return JobGeneration(flight, engine, pool, cast("Storage", None), Unwatched()).run()

    return engine.start(job, work)


def _with_wide_flux(catalogue: Catalogue, folder: Path) -> Catalogue:
    """The catalogue with `wide`: the small FLUX with a much wider transformer of random weights in float16."""
    row = catalogue.model("shapes-flux")
    file = Path(str(catalogue.place(row))) / "transformer" / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | {"num_attention_heads": _HEADS}
    architecture = Architecture("wide", "flux", sources=(), counts={}, configs={"transformer": config})
    write_checkpoint(architecture, folder / "wide", "cpu", torch.float16)
    wide = row.model_copy(update={"id": "wide", "source": str(folder / "wide")})
    return catalogue.model_copy(update={"models": (*catalogue.models, wide)})


if __name__ == "__main__":
    main()
