"""Full-size architectures with random weights on a GPU: `python -m bench.gpu [--models sdxl flux.1-dev …]`.

One table for each model: a bare diffusers loop, and beside it our exact settings, with a LoRA of rank 16, fast,
all of them compiled, several images in one call, and a new and a repeated prompt with T5 on the CPU. All other
images have a new prompt, too; emulated budgets are a block of `make gpu-check`. The checkpoints are written once,
below `--folder`. Without a CUDA device the shapes models stand in: the bench runs, and its
figures mean nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch

from bench.full_size import add_lora, write_catalogue, write_checkpoint
from bench.report import options, print_table, report
from bench.trials import PROMPT, Trial, busy_seconds, make, opened, parameters
from contracts.byte_sizes import gib
from contracts.catalogue.families import Task
from contracts.catalogue.reader import read_catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.jobs.failures import JobFailed
from contracts.jobs.receipt import Receipt
from contracts.memory.policy import Policy
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.counts.architectures import read_architectures
from worker.families import get_family
from worker.runtime.device import free_memory
from worker.runtime.kernel_options import KernelOptions
from worker.runtime.warnings import silence_known_warnings

#: A row's name and the fields of its request.
Jobs = dict[str, dict[str, Any]]
Row = list[object]
_JOBS: Jobs = {"exact": {}, "exact, with a LoRA": {"lora": "bench"}, "fast": {"speed": "fast"}}
_HEAD = (
    "settings | compiled | plan | denoiser runs | s an image | ÷ bare | s to encode | planned | peak | ÷ planned"
)


def main() -> None:
    """Measure and print."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--models", nargs="+", default=["sdxl", "sd3.5-large", "flux.1-dev"], help="architectures")
    parser.add_argument("--folder", type=Path, default=Path("data/full-size"), help="where the checkpoints are")
    parser.add_argument("--steps", type=int, help="default: 30 for SDXL, 28 for the others")
    parser.add_argument("--short", action="store_true", help="SDXL and FLUX.1-dev: bare, exact, a LoRA, fast")
    parser.set_defaults(**{"models": ["sdxl", "flux.1-dev"], "runs": 1} if "--short" in sys.argv else {})
    arguments = parser.parse_args()
    silence_known_warnings()
    if not torch.cuda.is_available():
        print("no CUDA device is used: tiny models on the CPU; these figures mean nothing", file=sys.stderr)
        run(tiny(), short=arguments.short)
        return
    with report("gpu"):
        print(f"{torch.cuda.get_device_name()}\n")
        run(full_size(arguments), short=arguments.short)


def tiny() -> Trial:
    """Takes seconds on any machine. A model that only edits has no place in these tables."""
    torch.set_num_threads(1)
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    models = tuple(row for row in catalogue.models if row.can_run(Task.TXT2IMG))
    return Trial(catalogue.model_copy(update={"models": models}), "cpu", side=64, steps=8)


def full_size(arguments: argparse.Namespace) -> Trial:
    """Writes the checkpoints that are not there yet."""
    chosen = {one.id: one for one in read_architectures() if one.id in arguments.models}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for id, architecture in chosen.items():
        write_checkpoint(architecture, arguments.folder / id, "cuda", torch.bfloat16)
        free_memory()
    catalogue = read_catalogue(write_catalogue(chosen, arguments.folder))
    return Trial(catalogue, "cuda", side=1024, steps=arguments.steps, runs=arguments.runs)


def run(trial: Trial, *, short: bool = False) -> None:
    """Print the table of each model."""
    for spec in trial.catalogue.models:
        steps = parameters(trial, spec).num_inference_steps
        print(f"\n## {spec.id}, {trial.side} × {trial.side}, {steps} steps\n")
        bare_seconds = measure_bare(trial, spec)
        if bare_seconds is None:
            print("not measured: the device does not hold the whole model, as a bare loop needs it")
            continue
        rows: list[Row] = [["bare diffusers, eager", "off", "–", steps, f"{bare_seconds:.3f}", "1.00", *["–"] * 4]]
        for how, jobs in settings(trial, spec, short=short):
            rows += measure(trial, spec, bare_seconds, how, jobs)
        print_table(_HEAD, rows)


def settings(trial: Trial, spec: ModelSpec, *, short: bool) -> Iterator[tuple[dict[str, Any], Jobs]]:
    """Options of each pool, and the jobs that run in it."""
    yield {}, _JOBS
    if short:
        return
    is_cuda = trial.device == "cuda"
    for how in ("blocks", "graphs") if is_cuda else ():
        yield {"kernels": KernelOptions(compile=how)}, _JOBS
    yield {}, {f"images in one call: {images}": {"images": images} for images in ((2, 4, 8) if is_cuda else (2,))}
    if get_family(spec.family_spec.id).t5:
        prompts: Jobs = {"T5 on the CPU, a new prompt": {}, "T5 on the CPU, the same again": {"prompt": PROMPT}}
        yield {"policy": Policy(t5="cpu")}, prompts


def measure(trial: Trial, spec: ModelSpec, bare_seconds: float, how: Mapping[str, Any], jobs: Jobs) -> list[Row]:
    """A row for each of the jobs: the median of its runs after a first one; or why it failed."""
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        opened(trial, add_lora(trial.catalogue, spec, Path(folder)), **how) as pool,
    ):
        for name, fields in jobs.items():
            own = [{"prompt": f"{PROMPT}, {name}, {seed}", **fields} for seed in range(trial.runs + 1)]
            try:
                receipts = [make(trial, pool, spec, seed, **each).receipt for seed, each in enumerate(own)]
            except JobFailed as error:
                rows.append([name, "–", str(error), *["–"] * 7])
            else:
                rows.append(_row(name, receipts, bare_seconds, fields.get("images", 1)))
    return rows


def _row(name: str, receipts: list[Receipt], bare_seconds: float, images: int) -> Row:
    last, memory = receipts[-1], receipts[-1].memory
    if memory is None:
        raise SystemExit(f"{name}: the receipt has no plan")
    seconds = statistics.median(busy_seconds(receipt) for receipt in receipts[1:]) / images
    peak = ["–", "–"]
    if memory.peak_bytes is not None:
        peak = [gib(memory.peak_bytes), f"{memory.peak_bytes / memory.planned_bytes:.2f}"]
    runs = last.parameters.expected_steps - last.predicted_calls
    times = [f"{seconds:.3f}", f"{seconds / bare_seconds:.2f}", f"{last.timings['encode_prompt']:.3f}"]
    return [name, last.kernels["compile"], memory.plan, runs, *times, gib(memory.planned_bytes), *peak]


def measure_bare(trial: Trial, spec: ModelSpec) -> float | None:
    """Median seconds of an image in a plain loop; None where the device does not hold the whole model."""
    job = parameters(trial, spec)
    names = ("width", "height", "guidance_scale", "num_inference_steps")
    request = {"prompt": PROMPT, **{name: getattr(job, name) for name in names}}
    try:
        source = str(trial.catalogue.place(spec))
        pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(source, dtype=trial.dtype).to(trial.device)
        pipeline.set_progress_bar_config(disable=True)
        seconds = []
        for seed in range(trial.runs + 1):
            started = time.perf_counter()
            pipeline(**request, generator=torch.Generator("cpu").manual_seed(seed))
            seconds.append(time.perf_counter() - started)  # the image is on the host, so the device is done
        return statistics.median(seconds[1:])
    except torch.OutOfMemoryError:
        return None
    finally:
        free_memory()


if __name__ == "__main__":
    main()
