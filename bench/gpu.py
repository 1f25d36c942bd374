"""Full-size architectures with random weights on a GPU: `python -m bench.gpu [--models sdxl flux.1-dev …]`.

For each model, in one run: a bare diffusers loop, our exact settings, fast, and both compiled, beside the time
that the device would need for the arithmetic alone; the plan at emulated budgets with its predicted and its
measured peak; batches of 1, 2, 4 and 8; an adapter of rank 16, new and switched to; a new and a repeated prompt
with T5 on the CPU; all other images have a new one, too. The checkpoints are written once, below `--folder`.
Without a CUDA device, or with `--tiny`, the shapes models stand in: the bench runs, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from bench.bare import Bare, measure_bare, measure_rate
from bench.component_calls import build
from bench.full_size import write_catalogue, write_checkpoint
from bench.random_lora import write_lora
from bench.report import options, report
from bench.table import print_table
from bench.trials import PROMPT, JobFailed, Trial, busy_seconds, make, opened, parameters, step_seconds
from contracts.catalogue.catalogue import Catalogue, LoraSpec, ModelSpec, read_catalogue
from contracts.memory.plan import Policy
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.architectures import read_architectures
from worker.families import get_family
from worker.runtime.device import free_memory
from worker.runtime.kernel_options import KernelOptions
from worker.runtime.warnings import silence_known_warnings

GIB = 2**30
#: What the short form measures beside the bare loop.
_SHORT: dict[str, dict[str, Any]] = {
    "exact": {},
    "exact, with a LoRA of rank 16": {"lora": "bench"},
    "fast": {"speed": "fast"},
}


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--models", nargs="+", default=["sdxl", "sd3.5-large", "flux.1-dev"], help="architectures")
    parser.add_argument("--folder", type=Path, default=Path("data/full-size"), help="where the checkpoints lie")
    parser.add_argument("--budgets", nargs="+", type=float, default=[8, 12, 16, 24, 48], help="GiB")
    parser.add_argument("--steps", type=int, help="none named: 30 for SDXL, 28 for the others")
    parser.add_argument("--short", action="store_true", help="bare, exact, with a LoRA, and fast; nothing else")
    parser.add_argument("--tiny", action="store_true", help="the shapes models on the CPU")
    arguments = parser.parse_args()
    silence_known_warnings()
    if arguments.tiny or not torch.cuda.is_available():
        print("no CUDA device is used: tiny models on the CPU; these figures mean nothing", file=sys.stderr)
        run(tiny())
        return 0
    with report("gpu"):
        print(f"{torch.cuda.get_device_name()}\n")
        trial = full_size(arguments)
        run_short(trial) if arguments.short else run(trial)
    return 0


def run_short(trial: Trial) -> None:
    """One table a model: the bare loop, ours exact, with a LoRA, and fast."""
    for spec in trial.catalogue.models:
        bare = open_bare(trial, spec)
        if bare is None:
            print(f"{spec.id}: not measured, the device does not hold the whole model")
            continue
        steps = parameters(trial, spec).num_inference_steps
        rows: list[list[object]] = [
            ["bare diffusers, eager", f"{bare.seconds:.3f}", "1.00", _gib(bare.peak_bytes)]
        ]
        with tempfile.TemporaryDirectory() as folder, opened(trial, _with_lora(trial, spec, Path(folder))) as pool:
            for name, options in _SHORT.items():
                receipts = [make(trial, pool, spec, seed, **options).receipt for seed in range(trial.runs + 1)]
                seconds = statistics.median(busy_seconds(receipt) for receipt in receipts[1:])
                peak_bytes = receipts[-1].memory.peak_bytes if receipts[-1].memory else None
                rows.append([name, f"{seconds:.3f}", f"{seconds / bare.seconds:.2f}", _gib(peak_bytes)])
        print(f"\n## {spec.id}, {trial.side} × {trial.side}, {steps} steps\n")
        print_table(["settings", "s an image", "÷ bare", "peak GiB"], rows)


def tiny() -> Trial:
    """Seconds on any machine."""
    torch.set_num_threads(1)
    budgets = [GIB // 56, GIB // 32]
    kernels = [KernelOptions(), KernelOptions(compile="blocks", compile_backend="aot_eager")]
    return Trial(
        read_catalogue(BUILT_IN_CATALOGUE), "cpu", budgets, kernels, side=64, steps=8, batches=(1, 2), runs=1
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
    plain = [KernelOptions(), KernelOptions(channels_last="off")]
    kernels = [*plain, KernelOptions(compile="blocks"), KernelOptions(compile="graphs")]
    return Trial(catalogue, "cuda", budgets, kernels, 1024, arguments.steps, (1, 2, 4, 8), arguments.runs)


def run(trial: Trial) -> None:
    """All tables of all models."""
    for spec in trial.catalogue.models:
        job = parameters(trial, spec)
        print(f"\n## {spec.id}, {trial.side} × {trial.side}, {job.num_inference_steps} steps\n")
        bare = open_bare(trial, spec)
        if bare is None:
            print("not measured: the device does not hold the whole model, as a bare loop needs it")
            continue
        least_seconds = bare.operations / measure_rate(trial.device, trial.dtype)
        print(f"all products of an image, at the rate of one large product: {least_seconds:.3f} s\n")
        columns = ["settings", "denoiser runs", "s an image", "÷ bare", "÷ products", "channels last", "peak GiB"]
        print_table(columns, speed_rows(trial, spec, bare, least_seconds))
        print()
        columns = ["budget, GiB", "plan", "planned GiB", "peak GiB", "peak ÷ planned", "s an image ÷ bare"]
        print_table(columns, [budget_row(trial, spec, budget, bare) for budget in trial.budgets])
        print()
        columns = ["images in a call", "images a second", "÷ bare", "peak GiB"]
        print_table(columns, batch_rows(trial, spec, bare))
        print()
        print_table(["adapter of rank 16", "s", "÷ a step"], adapter_rows(trial, spec))
        if get_family(spec.family).t5:
            print()
            print_table(["T5 on the CPU", "s an image", "s to encode", "÷ a step"], prompt_rows(trial, spec))


def speed_rows(trial: Trial, spec: ModelSpec, bare: Bare, least_seconds: float) -> list[list[object]]:
    """Everything on the device: the bare loop, our exact settings, fast, and both compiled."""

    def row(name: str, runs: int, seconds: float, channels_last: str, peak_bytes: int | None) -> list[object]:
        ratios = (f"{seconds / bare.seconds:.2f}", f"{seconds / least_seconds:.2f}")
        return [name, runs, f"{seconds:.3f}", *ratios, channels_last, _gib(peak_bytes)]

    steps = parameters(trial, spec).num_inference_steps
    rows = [row("bare diffusers, eager", steps, bare.seconds, "off", bare.peak_bytes)]
    for choice in trial.kernels:
        with opened(trial, kernels=choice) as pool:
            for speed in ("exact", "fast"):
                receipts = [make(trial, pool, spec, seed, speed=speed).receipt for seed in range(trial.runs + 1)]
                last = receipts[-1]
                seconds = statistics.median(busy_seconds(receipt) for receipt in receipts[1:])
                name = f"{speed}, compiled: {last.kernels['compile']}"
                peak_bytes = last.memory.peak_bytes if last.memory else None
                runs = steps - last.predicted_calls
                rows.append(row(name, runs, seconds, last.kernels["channels_last"], peak_bytes))
    return rows


def budget_row(trial: Trial, spec: ModelSpec, budget_bytes: int, bare: Bare) -> list[object]:
    """What the planner said of a budget, and what came of it."""
    with opened(trial, budget_bytes=budget_bytes) as pool:
        try:
            receipts = [make(trial, pool, spec, seed).receipt for seed in range(trial.runs + 1)][1:]
        except JobFailed as error:
            return [f"{budget_bytes / GIB:.2f}", str(error), *["–"] * 4]
    memory = receipts[-1].memory
    if memory is None or memory.peak_bytes is None:
        raise SystemExit(f"{spec.id}: the receipt says nothing of memory")
    seconds = statistics.median(busy_seconds(receipt) for receipt in receipts)
    peak, planned = memory.peak_bytes, memory.planned_bytes
    return [
        f"{budget_bytes / GIB:.2f}", memory.plan, _gib(planned), _gib(peak), f"{peak / planned:.2f}",
        f"{seconds / bare.seconds:.2f}",
    ]  # fmt: skip


def batch_rows(trial: Trial, spec: ModelSpec, bare: Bare) -> list[list[object]]:
    """Images a second, of calls that paint several."""
    rows: list[list[object]] = []
    with opened(trial) as pool:
        for images in trial.batches:
            receipts = [make(trial, pool, spec, seed, images).receipt for seed in range(trial.runs + 1)]
            seconds = statistics.median(busy_seconds(receipt) for receipt in receipts[1:])
            peak_bytes = receipts[-1].memory.peak_bytes if receipts[-1].memory else None
            rate = images / seconds
            rows.append([images, f"{rate:.3f}", f"{rate * bare.seconds:.2f}", _gib(peak_bytes)])
    return rows


def _with_lora(trial: Trial, spec: ModelSpec, folder: Path) -> Catalogue:
    """The trial's catalogue with a random LoRA of rank 16 for the model's denoiser, `bench`, in a folder."""
    part, source = get_family(spec.family).denoiser, trial.catalogue.locate(spec.source)
    config = json.loads((Path(source) / part / "config.json").read_text(encoding="utf-8"))
    file = folder / "bench.safetensors"
    write_lora(build(config), part, file, rank=16, seed=0, deviation=0.01)
    row = LoraSpec(id="bench", family=spec.family, source=str(file))
    return trial.catalogue.model_copy(update={"loras": (row,)})


def adapter_rows(trial: Trial, spec: ModelSpec) -> list[list[object]]:
    """What an adapter's first load and a switch to it take, and what it adds to a step."""
    with tempfile.TemporaryDirectory() as folder, opened(trial, _with_lora(trial, spec, Path(folder))) as pool:
        plain, first, _, again = (
            make(trial, pool, spec, seed, lora=lora).receipt
            for seed, lora in ((0, None), (0, "bench"), (1, None), (1, "bench"))
        )
    step = step_seconds(plain)
    loads = [("first load", first), ("switch, once loaded", again)]
    rows: list[list[object]] = [
        [name, f"{one.timings['load_adapters']:.4f}", f"{one.timings['load_adapters'] / step:.2f}"]
        for name, one in loads
    ]
    return [*rows, ["a step with it", f"{step_seconds(again):.4f}", f"{step_seconds(again) / step:.2f}"]]


def prompt_rows(trial: Trial, spec: ModelSpec) -> list[list[object]]:
    """A new prompt costs T5's time on the CPU, a repeated one nothing."""
    rows: list[list[object]] = []
    with opened(trial, policy=Policy(t5="cpu")) as pool:
        make(trial, pool, spec, 0, prompt="something else first")
        for name in ("a new prompt", "the same again"):
            receipt = make(trial, pool, spec, 0).receipt
            encode = receipt.timings["encode_prompt"]
            figures = (f"{busy_seconds(receipt):.3f}", f"{encode:.3f}", f"{encode / step_seconds(receipt):.2f}")
            rows.append([name, *figures])
    return rows


def open_bare(trial: Trial, spec: ModelSpec) -> Bare | None:
    """The bare loop's figures; None where the device is too small for it."""
    job, source = parameters(trial, spec), trial.catalogue.locate(spec.source)
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
