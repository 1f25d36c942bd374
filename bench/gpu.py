"""Full-size architectures with random weights on a GPU: `python -m bench.gpu [--models sdxl flux.1-dev …]`.

One table for each model: a bare diffusers loop, and beside it our exact settings, with a LoRA of rank 16, fast,
all of them compiled, several images in one call, emulated budgets, and a new and a repeated prompt with T5 on the
CPU. All other images have a new prompt, too. The checkpoints are written once, below `--folder`. Without a CUDA
device, or with `--tiny`, the shapes models stand in: the bench runs, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.bare import Bare, measure_bare, measure_rate
from bench.full_size import GIB, add_lora, write_catalogue, write_checkpoint
from bench.report import options, print_table, report
from bench.trials import PROMPT, JobFailed, Trial, busy_seconds, make, opened, parameters
from contracts.catalogue.catalogue import ModelSpec, read_catalogue
from contracts.memory.plan import Policy
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.architectures import read_architectures
from worker.families import get_family
from worker.runtime.device import free_memory
from worker.runtime.kernel_options import KernelOptions
from worker.runtime.warnings import silence_known_warnings

#: A row's name and the fields of its request.
Jobs = dict[str, dict[str, Any]]
_JOBS: Jobs = {"exact": {}, "exact, with a LoRA": {"lora": "bench"}, "fast": {"speed": "fast"}}
_HEAD = (
    "settings | compiled | channels last | plan | denoiser runs | s an image | ÷ bare | s to encode | "
    "planned GiB | peak GiB | ÷ planned"
)


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--models", nargs="+", default=["sdxl", "sd3.5-large", "flux.1-dev"], help="architectures")
    parser.add_argument("--folder", type=Path, default=Path("data/full-size"), help="where the checkpoints lie")
    parser.add_argument("--budgets", nargs="+", type=float, default=[8, 12, 16, 24, 48], help="GiB")
    parser.add_argument("--steps", type=int, help="default: 30 for SDXL, 28 for the others")
    parser.add_argument("--short", action="store_true", help="SDXL and FLUX.1-dev: bare, exact, a LoRA, fast")
    parser.set_defaults(**{"models": ["sdxl", "flux.1-dev"], "runs": 1} if "--short" in sys.argv else {})
    parser.add_argument("--tiny", action="store_true", help="the shapes models on the CPU")
    arguments = parser.parse_args()
    silence_known_warnings()
    if arguments.tiny or not torch.cuda.is_available():
        print("no CUDA device is used: tiny models on the CPU; these figures mean nothing", file=sys.stderr)
        run(tiny(), short=arguments.short)
        return 0
    with report("gpu"):
        print(f"{torch.cuda.get_device_name()}\n")
        run(full_size(arguments), short=arguments.short)
    return 0


def tiny() -> Trial:
    """Takes seconds on any machine."""
    torch.set_num_threads(1)
    kernels = [KernelOptions(), KernelOptions(compile="blocks", compile_backend="aot_eager")]
    return Trial(read_catalogue(BUILT_IN_CATALOGUE), "cpu", [GIB // 56, GIB // 32], kernels, 64, 8, (1, 2), runs=1)


def full_size(arguments: argparse.Namespace) -> Trial:
    """Writes the checkpoints that are not there yet."""
    chosen = {one.id: one for one in read_architectures() if one.id in arguments.models}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for id, architecture in chosen.items():
        write_checkpoint(architecture, arguments.folder / id, "cuda", torch.bfloat16)
        free_memory()
    catalogue = read_catalogue(write_catalogue(chosen, arguments.folder))
    budgets = [int(size * GIB) for size in arguments.budgets]
    plain = [KernelOptions(), KernelOptions(channels_last="on")]
    kernels = [*plain, KernelOptions(compile="blocks"), KernelOptions(compile="graphs")]
    return Trial(catalogue, "cuda", budgets, kernels, 1024, arguments.steps, (1, 2, 4, 8), arguments.runs)


def run(trial: Trial, *, short: bool = False) -> None:
    """Print the table of each model."""
    for spec in trial.catalogue.models:
        steps = parameters(trial, spec).num_inference_steps
        print(f"\n## {spec.id}, {trial.side} × {trial.side}, {steps} steps\n")
        bare = open_bare(trial, spec)
        if bare is None:
            print("not measured: the device does not hold the whole model, as a bare loop needs it")
            continue
        least_seconds = bare.operations / measure_rate(trial.device, trial.dtype)
        print(f"all products of an image, at the rate of one large product: {least_seconds:.3f} s\n")
        seconds, peak = f"{bare.seconds:.3f}", _gib(bare.peak_bytes)
        rows = [["bare diffusers, eager", "off", "off", "–", steps, seconds, "1.00", "–", "–", peak, "–"]]
        for pool_options, jobs in settings(trial, spec, short=short):
            rows += measure(trial, spec, bare, pool_options, jobs)
        print_table(_HEAD, rows)


def settings(trial: Trial, spec: ModelSpec, *, short: bool) -> Iterator[tuple[dict[str, Any], Jobs]]:
    """Options of each pool, and the jobs that run in it."""
    if short:
        yield {}, _JOBS
        return
    for kernels in trial.kernels:
        yield {"kernels": kernels}, _JOBS
    yield {}, {f"images in one call: {images}": {"images": images} for images in trial.batches}
    for budget_bytes in trial.budgets:
        yield {"budget_bytes": budget_bytes}, {f"budget {budget_bytes / GIB:.2f} GiB": {}}
    if get_family(spec.family).t5:
        prompts: Jobs = {"T5 on the CPU, a new prompt": {}, "T5 on the CPU, the same again": {"prompt": PROMPT}}
        yield {"policy": Policy(t5="cpu")}, prompts


def measure(
    trial: Trial, spec: ModelSpec, bare: Bare, pool_options: dict[str, Any], jobs: Jobs
) -> list[list[object]]:
    """A row for each of the jobs: the median of its runs after a first one; or why it failed."""
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        catalogue = add_lora(trial.catalogue, spec, Path(folder))
        with opened(trial, catalogue, **pool_options) as pool:
            for name, fields in jobs.items():
                try:
                    receipts = [
                        make(trial, pool, spec, seed, **{"prompt": f"{PROMPT}, {name}, {seed}", **fields}).receipt
                        for seed in range(trial.runs + 1)
                    ]
                except JobFailed as error:
                    rows.append([name, "–", "–", str(error), *["–"] * 7])
                    continue
                last, memory = receipts[-1], receipts[-1].memory
                if memory is None:
                    raise SystemExit(f"{spec.id}: the receipt has no plan")
                seconds = statistics.median(busy_seconds(receipt) for receipt in receipts[1:])
                seconds /= fields.get("images", 1)
                ratio = "–" if memory.peak_bytes is None else f"{memory.peak_bytes / memory.planned_bytes:.2f}"
                rows.append([
                    name, last.kernels["compile"], last.kernels["channels_last"], memory.plan,
                    last.parameters.num_inference_steps - last.predicted_calls, f"{seconds:.3f}",
                    f"{seconds / bare.seconds:.2f}", f"{last.timings['encode_prompt']:.3f}",
                    _gib(memory.planned_bytes), _gib(memory.peak_bytes), ratio,
                ])  # fmt: skip
    return rows


def open_bare(trial: Trial, spec: ModelSpec) -> Bare | None:
    """The bare loop's figures; None where the device is too small for it."""
    job, source = parameters(trial, spec), str(trial.catalogue.place(spec))
    request = {
        "prompt": PROMPT, "width": job.width, "height": job.height, "guidance_scale": job.guidance_scale,
        "num_inference_steps": job.num_inference_steps,
    }  # fmt: skip
    try:
        return measure_bare(source, trial.device, trial.dtype, request, trial.runs)
    except torch.OutOfMemoryError:
        return None
    finally:
        free_memory()


def _gib(size_bytes: int | None) -> str:
    return "not counted" if size_bytes is None else f"{size_bytes / GIB:.2f}"


if __name__ == "__main__":
    sys.exit(main())
