"""Seconds: loading, steps, LoRAs, compiled blocks, synchronisations, and copies beside computation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters

from bench.cold_load import measure as measure_load
from bench.full_size import add_lora
from bench.trials import make, opened
from tests.support.gpu_blocks.setup import Setup, gib, images, step_seconds, synchronize, twins
from worker.runtime.kernel_options import Compile, KernelOptions

#: Only the denoiser's groups and what decodes fit.
_STREAMED_GIB = 3.9


def cold_load(setup: Setup) -> Iterator[dict[str, Any]]:
    """Seconds to hash a model's files, and to load and place it with its files at hand."""
    with opened(setup.trial) as pool:
        started = time.monotonic()
        pool.prepare(setup.spec.id)
        hashed = time.monotonic()
        pool.model(setup.spec.id)
        synchronize(setup.device)
        yield {"prepare_seconds": hashed - started, "load_seconds": time.monotonic() - hashed}


def cold_beside(setup: Setup) -> Iterator[dict[str, Any]]:
    """A load with nothing beside it, and one beside a job of a warm model, whose steps it should not hold up."""
    trial = replace(setup.trial, catalogue=twins(setup))
    warm, cold = trial.catalogue.models
    for beside in (None, warm):
        load = measure_load(trial, cold, beside)
        yield {
            "beside": "nothing" if beside is None else "a job", "load_seconds": load.seconds,
            "slices": len(load.slices), "longest_slice_seconds": max(load.slices), "steps": load.steps,
            "step_seconds": load.step, "longest_gap_seconds": max(load.gaps),
        }  # fmt: skip


def steps(setup: Setup) -> Iterator[dict[str, Any]]:
    """A step, a decode and the peak beside its plan, with and without channels-last weights."""
    for channels_last in ("off", "on"):
        with opened(setup.trial, kernels=KernelOptions(channels_last=channels_last)) as pool:
            yield {"channels_last": channels_last, **images(setup, pool, setup.repeats)[-1]}


def lora(setup: Setup) -> Iterator[dict[str, Any]]:
    """Seconds to load a LoRA of rank 16 and to switch to it again, and of a step with it and without."""
    with opened(setup.trial, add_lora(setup.trial.catalogue, setup.spec, setup.folder)) as pool:
        for name in ("warm-up", "none", "first load", "off", "switched to"):
            adapter = "bench" if name in ("first load", "switched to") else None
            receipt = make(setup.trial, pool, setup.spec, 1, lora=adapter).receipt
            seconds = receipt.timings.get("load_adapters")
            yield {"lora": name, "step_seconds": step_seconds(receipt), "load_seconds": seconds}


def compiled(setup: Setup) -> Iterator[dict[str, Any]]:
    """Blocks, and graphs of them: what the receipt says and what is recorded, resident and on demand."""
    if setup.device.type != "cuda":
        yield _compiled(setup, "blocks", "eager")
        return
    yield _compiled(setup, "blocks")
    yield _compiled(setup, "graphs")
    yield _compiled(setup, "graphs", budget_bytes=setup.bytes(6))


def whole_graphs(setup: Setup) -> Iterator[dict[str, Any]]:
    """The whole denoiser compiled and replayed as one graph, beside an uncompiled one.

    The model counts as one of few steps here.
    """
    few = setup.spec.model_copy(update={"defaults": {**setup.spec.defaults, "num_inference_steps": 4}})
    catalogue = setup.trial.catalogue.model_copy(update={"models": (few,)})
    setup = replace(setup, trial=replace(setup.trial, catalogue=catalogue))
    yield _compiled(setup, "off")
    yield _compiled(setup, "whole_graphs", "inductor" if setup.device.type == "cuda" else "eager")


def _compiled(
    setup: Setup, how: Compile, backend: str = "inductor", budget_bytes: int | None = None
) -> dict[str, Any]:
    """The last of some images; what graphs keep by the plan, and what the allocator holds, weights included.

    `graphs_skipped` counts those that torch gave up: for a tensor on the CPU, say.
    """
    counters.clear()
    kernels = KernelOptions(compile=how, compile_backend=backend)
    with opened(setup.trial, budget_bytes=budget_bytes, kernels=kernels) as pool:
        rows = images(setup, pool, setup.repeats)
        is_cuda, recorded = setup.device.type == "cuda", counters["inductor"]
        return {
            **rows[-1], "busy_seconds": [row["busy_seconds"] for row in rows],
            "compiled_graphs": counters["stats"]["unique_graphs"],
            "copied_inputs": recorded["cudagraph_recorded_non_static_inputs"],
            "graphs_skipped": recorded["cudagraph_skips"],
            "graph_gib": gib(pool.plan_selector.default_plan(setup.spec.id).graph_bytes or 0),
            "reserved_gib": gib(torch.cuda.memory_reserved(setup.device)) if is_cuda else None,
        }  # fmt: skip


def streaming(setup: Setup) -> Iterator[dict[str, Any]]:
    """Seconds of a step whose denoiser is streamed, beside one whose denoiser is resident."""
    for budget in (None, setup.bytes(_STREAMED_GIB)):
        with opened(setup.trial, budget_bytes=budget) as pool:
            yield {"budget": "none" if budget is None else "streamed", **images(setup, pool, setup.repeats)[-1]}


def profile(setup: Setup) -> Iterator[dict[str, Any]]:
    """Kernels and synchronisations of one image, and how far streamed copies overlap with computation.

    The last block: a process is slower once it has been profiled.
    """
    with opened(setup.trial) as pool:
        make(setup.trial, pool, setup.spec, 0)
        places = _synchronisations(lambda: make(setup.trial, pool, setup.spec, 1))
        events = _device_events(lambda: make(setup.trial, pool, setup.spec, 2))
        seconds = sum(end - start for start, end, _ in events) / 1e6
        counts = {"plan": "all resident", "synchronisations": len(places), "kernels": len(events)}
        yield {**counts, "at": places, "device_seconds": seconds}
    with opened(setup.trial, budget_bytes=setup.bytes(_STREAMED_GIB)) as pool:
        make(setup.trial, pool, setup.spec, 0)
        places = _synchronisations(lambda: make(setup.trial, pool, setup.spec, 1))
        receipt = make(setup.trial, pool, setup.spec, 1).receipt
        events = _device_events(lambda: make(setup.trial, pool, setup.spec, 2))
        copies = [(start, end) for start, end, name in events if "HtoD" in name]
        kernels = [(start, end) for start, end, name in events if "HtoD" not in name]
        yield {
            "plan": receipt.memory and receipt.memory.plan, "step_seconds": step_seconds(receipt),
            "synchronisations": len(places), "at": places,
            "copy_seconds": sum(end - start for start, end in copies) / 1e6,
            "kernel_seconds": sum(end - start for start, end in kernels) / 1e6,
            "overlap_seconds": overlap(copies, kernels) / 1e6,
        }  # fmt: skip


def _synchronisations(work: Callable[[], object]) -> list[str]:
    """Where the host waited for the device, as `file:line`, sorted."""
    import warnings

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        work()
        torch.cuda.set_sync_debug_mode("default")
    return sorted(f"{Path(one.filename).name}:{one.lineno}" for one in seen if "synchroniz" in str(one.message))


def _device_events(work: Callable[[], object]) -> list[tuple[float, float, str]]:
    """Begin, end (microseconds) and name of what ran on the device, in order."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        work()
    events = [event for event in profiler.events() or () if str(event.device_type).endswith("CUDA")]
    return sorted((event.time_range.start, event.time_range.end, event.name) for event in events)


def overlap(first: list[tuple[float, float]], second: list[tuple[float, float]]) -> float:
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
