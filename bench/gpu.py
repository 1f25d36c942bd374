"""Full-size architectures with random weights on a GPU: `python -m bench.gpu [--models sdxl flux.1-dev …]`.

For each model, in one run: the plan at emulated budgets with its predicted and its measured peak; our exact
settings, compiled, and fast; a new and a repeated prompt with T5 on the CPU; batches of 1, 2, 4 and 8. All beside
a bare diffusers loop, and the time that the device would need for the arithmetic alone. The checkpoints are
written once, below `--folder`. Without a CUDA device, or with `--tiny`, the shapes models stand in: the bench
runs, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.full_size import write_catalogue, write_checkpoint
from bench.nobody import Nobody
from bench.report import options, report
from bench.table import print_table
from contracts.architectures import read_architectures
from contracts.catalogue import Catalogue, ModelSpec, read_catalogue
from contracts.plans import Policy
from contracts.records import Receipt
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.tasks import Speed, Txt2ImgRequest
from contracts.validation import check, resolve
from worker.deliveries import Painted
from worker.families import load_family
from worker.jobs import Job, paint
from worker.kernel_choice import Compile, KernelChoice
from worker.occupancy import free_memory
from worker.pipelines import Pool
from worker.warnings import silence_known_warnings

GIB = 2**30
PROMPT = "a lighthouse on a cliff at dawn, oil on canvas"


@dataclass(frozen=True)
class Trial:
    """What is run.

    Attributes:
        budgets: bytes that a worker may use, as if the device had no more.
        compilers: ways to compile that run here, as (how, torch.compile's back end).
        side: of the square images, in pixels.
    """

    catalogue: Catalogue
    device: str
    budgets: Sequence[int]
    compilers: Sequence[tuple[Compile, str]]
    side: int
    steps: int
    batches: Sequence[int]
    runs: int


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--models", nargs="+", default=["sdxl", "sd3.5-large", "flux.1-dev"], help="architectures")
    parser.add_argument("--folder", type=Path, default=Path("data/full-size"), help="where the checkpoints lie")
    parser.add_argument("--budgets", nargs="+", type=float, default=[8, 12, 16, 24, 48], help="GiB")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--tiny", action="store_true", help="the shapes models on the CPU")
    arguments = parser.parse_args()
    silence_known_warnings()
    if arguments.tiny or not torch.cuda.is_available():
        print("no CUDA device is used: tiny models on the CPU; these figures mean nothing", file=sys.stderr)
        run(tiny())
        return 0
    with report("gpu"):
        print(f"{torch.cuda.get_device_name()}\n")
        run(full_size(arguments))
    return 0


def tiny() -> Trial:
    """Seconds on any machine."""
    torch.set_num_threads(1)
    budgets = [GIB // 56, GIB // 32]
    compilers: list[tuple[Compile, str]] = [("blocks", "aot_eager")]
    return Trial(
        read_catalogue(BUILT_IN_CATALOGUE), "cpu", budgets, compilers, side=64, steps=8, batches=(1, 2), runs=1
    )


def full_size(arguments: argparse.Namespace) -> Trial:
    """Writes the checkpoints where they are not there yet."""
    chosen = {one.id: one for one in read_architectures() if one.id in arguments.models}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for id, architecture in chosen.items():
        write_checkpoint(architecture, arguments.folder / id, "cuda", torch.bfloat16)
        free_memory()
    catalogue = read_catalogue(write_catalogue(chosen, arguments.folder))
    budgets = [int(size * GIB) for size in arguments.budgets]
    compilers: list[tuple[Compile, str]] = [("blocks", "inductor"), ("graphs", "inductor")]
    return Trial(catalogue, "cuda", budgets, compilers, 1024, arguments.steps, (1, 2, 4, 8), arguments.runs)


def run(trial: Trial) -> None:
    """All tables of all models."""
    for spec in trial.catalogue.models:
        print(f"\n## {spec.id}, {trial.side} × {trial.side}, {trial.steps} steps\n")
        bare_seconds = time_bare(trial, spec)
        least_seconds = count_operations(trial, spec) / measure_rate(trial)
        print(f"bare diffusers loop, everything on the device: {bare_seconds:.3f} s an image")
        print(f"its products alone, at the rate of one large one: {least_seconds:.3f} s\n")
        print_table(
            ["settings", "denoiser runs", "s an image ÷ bare", "peak GiB"], speed_rows(trial, spec, bare_seconds)
        )
        print()
        columns = ["budget, GiB", "plan", "planned GiB", "peak GiB", "peak ÷ planned", "s an image ÷ bare"]
        print_table(columns, [budget_row(trial, spec, budget, bare_seconds) for budget in trial.budgets])
        print()
        print_table(["images in a call", "images a second ÷ bare"], batch_rows(trial, spec, bare_seconds))
        if load_family(spec.family).t5:
            print()
            print_table(["T5 on the CPU", "s to encode ÷ a step"], prompt_rows(trial, spec))


def speed_rows(trial: Trial, spec: ModelSpec, bare_seconds: float) -> list[list[object]]:
    """Everything on the device: our exact settings, then compiled, and each of them fast."""
    rows: list[list[object]] = []
    for how, backend in (("off", ""), *trial.compilers):
        torch._dynamo.reset()
        pool = Pool(
            trial.catalogue, device=trial.device, kernels=KernelChoice(compile=how, compile_backend=backend)
        )
        for speed in ("exact", "fast"):
            receipts = [make(trial, pool, spec, seed, speed=speed).receipt for seed in range(trial.runs + 1)][1:]
            last = receipts[-1]
            seconds = statistics.median(busy_seconds(receipt) for receipt in receipts)
            peak = last.memory.peak_bytes if last.memory else None
            rows.append([
                f"{speed}, compiled: {last.kernels['compile']}", trial.steps - last.predicted_calls,
                f"{seconds / bare_seconds:.2f}", "not counted" if peak is None else f"{peak / GIB:.2f}",
            ])  # fmt: skip
    return rows


def budget_row(trial: Trial, spec: ModelSpec, budget_bytes: int, bare_seconds: float) -> list[object]:
    """What the planner said of a budget, and what came of it."""
    pool = Pool(trial.catalogue, device=trial.device, budget_bytes=budget_bytes)
    receipts = [make(trial, pool, spec, seed).receipt for seed in range(trial.runs + 1)][1:]
    memory = receipts[-1].memory
    if memory is None or memory.peak_bytes is None:
        raise SystemExit(f"{spec.id}: the receipt says nothing of memory")
    seconds = statistics.median(busy_seconds(receipt) for receipt in receipts)
    peak, planned = memory.peak_bytes, memory.planned_bytes
    return [
        f"{budget_bytes / GIB:.2f}", memory.plan, f"{planned / GIB:.2f}", f"{peak / GIB:.2f}",
        f"{peak / planned:.2f}", f"{seconds / bare_seconds:.2f}",
    ]  # fmt: skip


def batch_rows(trial: Trial, spec: ModelSpec, bare_seconds: float) -> list[list[object]]:
    """Images a second, of calls that paint several."""
    pool = Pool(trial.catalogue, device=trial.device)
    rows: list[list[object]] = []
    for images in trial.batches:
        receipts = [make(trial, pool, spec, seed, images).receipt for seed in range(trial.runs + 1)][1:]
        seconds = statistics.median(busy_seconds(receipt) for receipt in receipts)
        rows.append([images, f"{images / seconds * bare_seconds:.2f}"])
    return rows


def prompt_rows(trial: Trial, spec: ModelSpec) -> list[list[object]]:
    """A new prompt costs T5's time on the CPU, a repeated one nothing."""
    pool = Pool(trial.catalogue, device=trial.device, policy=Policy(t5="cpu"))
    make(trial, pool, spec, 0, prompt="something else first")
    rows: list[list[object]] = []
    for name in ("a new prompt", "the same again"):
        timings = make(trial, pool, spec, 0).receipt.timings
        rows.append([name, f"{timings['encode_prompt'] / (timings['denoise'] / trial.steps):.2f}"])
    return rows


def make(
    trial: Trial,
    pool: Pool,
    spec: ModelSpec,
    seed: int,
    images: int = 1,
    prompt: str = PROMPT,
    speed: Speed = "exact",
) -> Painted:
    """One job's images, as a worker makes them."""
    request = Txt2ImgRequest(
        prompt=prompt, model=spec.id, seed=seed, num_images=images, width=trial.side, height=trial.side,
        num_inference_steps=trial.steps, speed=speed,
    )  # fmt: skip
    job = Job("bench", 0, resolve(request, check(request, trial.catalogue), {}), 0.0)
    (outcome,) = paint([job], pool, _NO_STORAGE, Nobody())
    if not isinstance(outcome, Painted):
        raise SystemExit(f"{spec.id}: {outcome.message}")
    return outcome


#: A txt2img job reads nothing.
_NO_STORAGE: Any = None


def busy_seconds(receipt: Receipt) -> float:
    """From the claimed job to its images, without the load of the model."""
    return sum(seconds for stage, seconds in receipt.timings.items() if stage not in ("queue", "load", "write"))


def time_bare(trial: Trial, spec: ModelSpec) -> float:
    """Median seconds of an image in a plain diffusers loop, everything resident."""
    paint_bare, found = open_bare(trial, spec), []
    for seed in range(trial.runs + 1):
        started = time.perf_counter()
        paint_bare(seed)
        found.append(time.perf_counter() - started)
    del paint_bare
    free_memory()
    return statistics.median(found[1:])


def count_operations(trial: Trial, spec: ModelSpec) -> float:
    """Floating-point operations of all products of one image, as torch counts them while it is painted."""
    paint_bare = open_bare(trial, spec)
    with FlopCounterMode(display=False) as counter:
        paint_bare(0)
    del paint_bare
    free_memory()
    return float(counter.get_total_flops())


def measure_rate(trial: Trial) -> float:
    """Floating-point operations a second in one large product, in the dtype that images are painted in."""
    side, times = (8192, 20) if trial.device == "cuda" else (512, 3)
    matrix = torch.randn(side, side, device=trial.device, dtype=_dtype(trial))
    found = []
    for _ in range(times):
        started = time.perf_counter()
        _ = float((matrix @ matrix)[0, 0])  # waits for the device
        found.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(found)


def open_bare(trial: Trial, spec: ModelSpec) -> Callable[[int], object]:
    """A plain diffusers loop, everything resident: seed -> image."""
    source = trial.catalogue.locate(spec.source)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(source, dtype=_dtype(trial)).to(trial.device)
    pipeline.set_progress_bar_config(disable=True)
    return lambda seed: pipeline(
        prompt=PROMPT, width=trial.side, height=trial.side, num_inference_steps=trial.steps,
        generator=torch.Generator("cpu").manual_seed(seed),
    )  # fmt: skip


def _dtype(trial: Trial) -> torch.dtype:
    return torch.bfloat16 if trial.device == "cuda" else torch.float32


if __name__ == "__main__":
    sys.exit(main())
