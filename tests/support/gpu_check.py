"""Checks a CUDA card in under four minutes: `make gpu-check`, or `python -m tests.support.gpu_check`.

Each block prints one JSON line as soon as it ends and fails alone, so that a run that is cut off still tells
something. SDXL with random weights (7 GB on disk) stands for a model of real size. What the figures were on a card
that has been met stands in docs/gpu.md. Without a CUDA device, or with `--tiny`, the shapes model stands in on the
CPU: the blocks that need no device run, and their figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.full_size import GIB, add_lora, write_catalogue, write_checkpoint
from bench.trials import Trial, busy_seconds, make, opened, step_seconds
from contracts.catalogue.catalogue import ModelSpec, read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.architectures import read_architectures
from worker.offload.host_buffer import HostBuffer
from worker.pool.pool import Pool
from worker.runtime.device import pick_device, usable_bytes
from worker.runtime.kernel_options import Compile, KernelOptions
from worker.runtime.warnings import silence_known_warnings

_STEPS = 8


@dataclass(frozen=True)
class Setup:
    """What the blocks share; `deadline` is in seconds of `time.monotonic`."""

    trial: Trial
    device: torch.device
    folder: Path
    deadline: float

    @property
    def spec(self) -> ModelSpec:
        """The model that is run."""
        return self.trial.catalogue.models[0]


def main() -> int:
    """Run all blocks; returns the exit status: 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the checkpoint is written; default: a temporary folder")
    parser.add_argument("--seconds", type=float, default=230, help="no block begins after this long")
    parser.add_argument("--only", nargs="+", help="names of blocks")
    parser.add_argument("--tiny", action="store_true", help="the shapes model on the CPU")
    arguments = parser.parse_args()
    silence_known_warnings()
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    tiny = arguments.tiny or not torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        deadline = time.monotonic() + arguments.seconds
        setup = prepare(arguments.folder or Path(folder), deadline, tiny=tiny)
        names = arguments.only or [name for name in BLOCKS if not tiny or name in ON_ANY_DEVICE]
        failed = [name for name in names if not run(name, setup)]
        return 1 if failed else 0


def prepare(folder: Path, deadline: float, *, tiny: bool) -> Setup:
    """The model, on the first card; written where it is not there yet."""
    if tiny:
        catalogue = read_catalogue(BUILT_IN_CATALOGUE)
        catalogue = catalogue.model_copy(update={"models": (catalogue.model("shapes-sdxl"),)})
        return Setup(Trial(catalogue, "cpu", [], [], 64, 4, (), 1), torch.device("cpu"), folder, deadline)
    started = time.monotonic()
    device = pick_device("cuda")
    architecture = next(one for one in read_architectures() if one.id == "sdxl")
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(architecture, folder / "sdxl", "cuda", torch.bfloat16)
    catalogue = read_catalogue(write_catalogue({"sdxl": architecture}, folder))
    trial = Trial(catalogue, "cuda", [], [], 1024, _STEPS, (), 1)
    show("checkpoint", seconds=time.monotonic() - started)
    return Setup(trial, device, folder, deadline)


def run(name: str, setup: Setup) -> bool:
    """Run one block and show what it returns; False where it failed."""
    if time.monotonic() > setup.deadline:
        show(name, skipped="no time is left")
        return True
    try:
        for figures in BLOCKS[name](setup):
            show(name, **figures)
    except Exception as error:  # noqa: BLE001 - the other blocks go on
        show(name, error=f"{type(error).__name__}: {error}"[:300])
        return False
    finally:
        gc.collect()
        torch._dynamo.reset()
        if setup.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    return True


def show(name: str, **figures: object) -> None:
    """Print one line of JSON."""
    print(json.dumps({"block": name, **figures}, default=str), flush=True)


def environment(setup: Setup) -> Iterator[dict[str, Any]]:
    """The card, the versions, and what plans may use."""
    properties = torch.cuda.get_device_properties(setup.device)
    free, total = torch.cuda.mem_get_info(setup.device)
    yield {
        "card": properties.name, "torch": torch.__version__, "cudnn": _cudnn_version(),
        "total_gib": _gib(total), "free_gib": _gib(free), "budget_gib": _gib(usable_bytes(setup.device)),
    }  # fmt: skip


def host_memory(setup: Setup) -> Iterator[dict[str, Any]]:
    """What a page-locked buffer takes, how fast it is copied, and whether it is given back."""
    count = 30 if setup.device.type == "cuda" else 1
    tensors = [torch.ones(1280, 12800, dtype=torch.bfloat16) for _ in range(count)]
    size, before = sum(tensor.nbytes for tensor in tensors) / GIB, _resident_set_gib()
    started = time.monotonic()
    buffer = HostBuffer(tensors, setup.device)
    seconds, grown = time.monotonic() - started, _resident_set_gib() - before
    rates = {}
    for name, sources in (("pinned", buffer.tensors), ("pageable", tensors)):
        copy = partial(_copy, sources, setup.device)
        _seconds(setup.device, copy)  # the first copy allocates
        rates[f"{name}_gib_a_second"] = round(size / _seconds(setup.device, copy), 1)
    is_pinned = buffer.is_pinned and buffer.tensors[0].is_pinned()
    del buffer, sources, copy
    gc.collect()
    yield {
        "asked_gib": size, "taken_gib": grown, "left_gib": _resident_set_gib() - before, "seconds": seconds,
        "pinned": is_pinned, **rates,
    }  # fmt: skip


def cold_load(setup: Setup) -> Iterator[dict[str, Any]]:
    """Seconds to hash a model's files, and to load and place it with its files at hand."""
    with opened(setup.trial) as pool:
        started = time.monotonic()
        pool.prepare(setup.spec.id)
        hashed = time.monotonic()
        pool.model(setup.spec.id)
        _synchronize(setup.device)
        yield {"prepare_seconds": hashed - started, "load_seconds": time.monotonic() - hashed}


def steps(setup: Setup) -> Iterator[dict[str, Any]]:
    """A step, a decode and the peak beside its plan, with and without channels-last weights."""
    for channels_last in ("off", "on"):
        with opened(setup.trial, kernels=KernelOptions(channels_last=channels_last)) as pool:
            yield {"channels_last": channels_last, **_images(setup, pool, 4)[-1]}


def vae(setup: Setup) -> Iterator[dict[str, Any]]:
    """Activations of a decode beside the values that plans count (bench.architectures)."""
    from diffusers import AutoencoderKL

    decoder = AutoencoderKL.from_pretrained(setup.folder / "sdxl" / "vae", dtype=torch.bfloat16).to(setup.device)
    for side in (1024, 1536, 2048):
        latents = torch.randn(1, 4, side // 8, side // 8, device=setup.device, dtype=torch.bfloat16)
        with torch.inference_mode():
            decoder.decode(latents)
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            seconds = _seconds(setup.device, partial(decoder.decode, latents))
        taken = torch.cuda.max_memory_allocated() - before
        counted = (3 * 256 + 3) * side * side * 2
        of_counted = round(taken / counted, 3)
        yield {"side": side, "seconds": seconds, "gib": _gib(taken), "of_counted": of_counted}


def budgets(setup: Setup) -> Iterator[dict[str, Any]]:
    """Peaks and seconds under emulated cards, and whether reserved memory grows over images."""
    for size in (4, 6, 8, 12):
        with opened(setup.trial, budget_bytes=size * GIB) as pool:
            rows, reserved = [], []
            for seed in range(4):
                rows += _images(setup, pool, 1, seed)
                reserved.append(_gib(torch.cuda.memory_reserved()))
            retries = pool.memory_tracker.retries
            yield {"budget_gib": size, **rows[-1], "reserved_gib": reserved, "retries": retries}


def unnamed_components(setup: Setup) -> Iterator[dict[str, Any]]:
    """Whether switching between the default plan and a smaller one moves weights only once to the host."""
    with opened(setup.trial, budget_bytes=7 * GIB) as pool:
        model = pool.model(setup.spec.id)
        for _ in range(2):
            _images(setup, pool, 1)
        yield {"moved_gib": {place: _gib(size) for place, size in model.placement.moved_bytes.items()}}


def failing_device(setup: Setup) -> Iterator[dict[str, Any]]:
    """Whether an illegal access is recognised as a failed device, in a process of its own."""
    del setup
    code = (
        "import torch; from worker.runtime.out_of_memory import DeviceFailed, raise_if_device_failed\n"
        "device, values = torch.device('cuda:0'), torch.zeros(1, device='cuda:0')\n"
        "try:\n    values[torch.tensor([9], device=device)].sum().item()\n"
        "except Exception as error:\n"
        "    try: raise_if_device_failed(error, device)\n"
        "    except DeviceFailed as failed: print(type(error).__name__, '->', failed)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    yield {"told": (done.stdout.strip().splitlines() or ["nothing"])[-1]}


def lora(setup: Setup) -> Iterator[dict[str, Any]]:
    """Seconds to load a LoRA of rank 16 and to switch to it again, and of a step with it and without."""
    with opened(setup.trial, add_lora(setup.trial.catalogue, setup.spec, setup.folder)) as pool:
        for name in ("warm-up", "none", "first load", "off", "switched to"):
            adapter = "bench" if name in ("first load", "switched to") else None
            receipt = make(setup.trial, pool, setup.spec, 1, lora=adapter).receipt
            seconds = receipt.timings.get("load_adapters")
            yield {"lora": name, "step_seconds": step_seconds(receipt), "load_seconds": seconds}


def compiled(setup: Setup) -> Iterator[dict[str, Any]]:
    """Seconds an image and what the receipt says, compiled, resident and with the denoiser on demand."""
    ways: tuple[tuple[Compile, int | None], ...] = (("blocks", None), ("graphs", None), ("graphs", 6 * GIB))
    for how, budget in ways:
        with opened(setup.trial, budget_bytes=budget, kernels=KernelOptions(compile=how)) as pool:
            rows = _images(setup, pool, 4)
            yield {**rows[-1], "busy_seconds": [row["busy_seconds"] for row in rows]}


def profile(setup: Setup) -> Iterator[dict[str, Any]]:
    """Kernels and synchronisations of one image, and how far streamed copies overlap with computation.

    The last block: a process is slower once it has been profiled.
    """
    import warnings

    with opened(setup.trial) as pool:
        make(setup.trial, pool, setup.spec, 0)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            make(setup.trial, pool, setup.spec, 1)
            torch.cuda.set_sync_debug_mode("default")
        places = [f"{Path(one.filename).name}:{one.lineno}" for one in seen if "synchroniz" in str(one.message)]
        events = _device_events(lambda: make(setup.trial, pool, setup.spec, 2))
        seconds = sum(end - start for start, end, _ in events) / 1e6
        counts = {"synchronisations": len(places), "kernels": len(events)}
        yield {**counts, "at": sorted(places), "device_seconds": seconds}
    with opened(setup.trial, budget_bytes=int(3.9 * GIB)) as pool:
        make(setup.trial, pool, setup.spec, 0)
        receipt = make(setup.trial, pool, setup.spec, 1).receipt
        events = _device_events(lambda: make(setup.trial, pool, setup.spec, 2))
        copies = [(start, end) for start, end, name in events if "HtoD" in name]
        kernels = [(start, end) for start, end, name in events if "HtoD" not in name]
        yield {
            "plan": receipt.memory and receipt.memory.plan, "step_seconds": step_seconds(receipt),
            "copy_seconds": sum(end - start for start, end in copies) / 1e6,
            "kernel_seconds": sum(end - start for start, end in kernels) / 1e6,
            "overlap_seconds": _overlap(copies, kernels) / 1e6,
        }  # fmt: skip


def _images(setup: Setup, pool: Pool, count: int, first_seed: int = 0) -> list[dict[str, Any]]:
    rows = []
    for seed in range(first_seed, first_seed + count):
        receipt = make(setup.trial, pool, setup.spec, seed).receipt
        row: dict[str, Any] = {
            "step_seconds": step_seconds(receipt), "decode_seconds": receipt.timings["decode"],
            "busy_seconds": busy_seconds(receipt), "compile": receipt.kernels["compile"],
        }  # fmt: skip
        memory = receipt.memory
        if memory is not None and memory.peak_bytes is not None:
            row |= {"plan": memory.plan, "planned_gib": _gib(memory.planned_bytes)}
            row["peak_gib"] = _gib(memory.peak_bytes)
            row["peak_of_plan"] = round(memory.peak_bytes / memory.planned_bytes, 3)
        rows.append(row)
    return rows


def _device_events(work: Callable[[], object]) -> list[tuple[float, float, str]]:
    """Begin, end (microseconds) and name of what ran on the device, in order."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        work()
    events = [event for event in profiler.events() or () if str(event.device_type).endswith("CUDA")]
    return sorted((event.time_range.start, event.time_range.end, event.name) for event in events)


def _overlap(first: list[tuple[float, float]], second: list[tuple[float, float]]) -> float:
    """Length of what two sorted lists of intervals have in common; intervals of one list do not overlap."""
    total, index = 0.0, 0
    for start, end in first:
        while index < len(second) and second[index][1] <= start:
            index += 1
        at = index
        while at < len(second) and second[at][0] < end:
            total += min(end, second[at][1]) - max(start, second[at][0])
            at += 1
    return total


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    """Of a call, with the work that it leaves on the device."""
    _synchronize(device)
    started = time.monotonic()
    work()
    _synchronize(device)
    return time.monotonic() - started


def _copy(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    return [tensor.to(device, non_blocking=True, copy=True) for tensor in tensors]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _resident_set_gib() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 2**20


def _cudnn_version() -> Any:
    backend: Any = torch.backends.cudnn
    return backend.version()


def _gib(size_bytes: int) -> float:
    return round(size_bytes / GIB, 2)


#: In the order in which they are worth most.
_ORDER = (
    environment, host_memory, failing_device, cold_load, steps, budgets, unnamed_components, vae, lora, compiled,
    profile,
)  # fmt: skip
BLOCKS: dict[str, Callable[[Setup], Iterator[dict[str, Any]]]] = {block.__name__: block for block in _ORDER}
ON_ANY_DEVICE = ("host_memory", "cold_load", "steps", "lora")

if __name__ == "__main__":
    sys.exit(main())
