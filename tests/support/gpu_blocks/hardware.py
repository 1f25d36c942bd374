"""The card itself, host memory and copies, a device that fails, and T5's arithmetic on the CPU."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.support.gpu_blocks.setup import GIB, Setup, gib, seconds_of
from worker.offload.host_buffer import HostBuffer
from worker.offload.upload import uploader_of
from worker.runtime.device import usable_bytes

#: The program of the block `failing_device`.
FAILING = """
import torch
from worker.runtime.out_of_memory import DeviceFailed, raise_if_device_failed
device, values = torch.device("cuda:0"), torch.zeros(1, device="cuda:0")
try:
    values[torch.tensor([9], device=device)].sum().item()
except Exception as error:
    try:
        raise_if_device_failed(error, device)
    except DeviceFailed as failed:
        print(type(error).__name__, "->", failed)
"""


def environment(setup: Setup) -> Iterator[dict[str, Any]]:
    """The card, the versions, and what plans may use."""
    properties = torch.cuda.get_device_properties(setup.device)
    free, total = torch.cuda.mem_get_info(setup.device)
    cudnn: Any = torch.backends.cudnn
    yield {
        "card": properties.name, "torch": torch.__version__, "cudnn": cudnn.version(),
        "cudnn_benchmark": cudnn.benchmark,
        "total_gib": gib(total), "free_gib": gib(free), "budget_gib": gib(usable_bytes(setup.device)),
    }  # fmt: skip


def host_memory(setup: Setup) -> Iterator[dict[str, Any]]:
    """What a page-locked buffer takes, how fast it is copied, and whether it is given back."""
    tensors = _host_tensors(setup)
    size, before = sum(tensor.nbytes for tensor in tensors) / GIB, _resident_set_gib()
    buffers: list[HostBuffer] = []
    seconds = seconds_of(setup.device, lambda: buffers.append(HostBuffer(tensors, setup.device)))
    grown, buffer = _resident_set_gib() - before, buffers.pop()
    pinned = buffer.is_pinned and buffer.tensors[0].is_pinned()
    rate = _rate(setup, partial(_copy, buffer.tensors, setup.device), size)
    del buffer
    gc.collect()
    yield {
        "asked_gib": size, "taken_gib": grown, "left_gib": _resident_set_gib() - before, "seconds": seconds,
        "pinned": pinned, "gib_a_second": rate,
    }  # fmt: skip


def uploads(setup: Setup) -> Iterator[dict[str, Any]]:
    """Weights from pageable memory to the device: CUDA's own way, and through two page-locked buffers."""
    tensors, uploader = _host_tensors(setup), uploader_of(setup.device)
    size = sum(tensor.nbytes for tensor in tensors) / GIB
    yield {"through": "pageable", "gib_a_second": _rate(setup, partial(_copy, tensors, setup.device), size)}
    if uploader is not None:
        rate = _rate(setup, partial(uploader.upload, tensors), size)
        equal = all(map(torch.equal, (one.cpu() for one in uploader.upload(tensors)), tensors))
        yield {"through": "two buffers", "gib_a_second": rate, "equal": equal}


def failing_device(setup: Setup) -> Iterator[dict[str, Any]]:
    """Whether an illegal access is recognised as a failed device, in a process of its own."""
    del setup
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=60, check=False)
    told = done.stdout.strip().splitlines() or ["nothing", *done.stderr.strip().splitlines()]
    yield {"told": told[-1]}


def t5_arithmetic(setup: Setup) -> Iterator[dict[str, Any]]:
    """Seconds of one of T5-XXL's products on the CPU in float32 by MKL's mode, and whether its bits repeat."""
    width, inner, runs = (4096, 10240, 10) if setup.device.type == "cuda" else (128, 256, 2)
    code = (
        "import json, time, torch\n"
        f"values, weights = torch.ones(512, {width}).uniform_(), torch.ones({width}, {inner}).uniform_()\n"
        "first = values @ weights; started = time.monotonic()\n"
        f"equal = all(torch.equal(values @ weights, first) for _ in range({runs}))\n"
        f"print(json.dumps({{'seconds': (time.monotonic() - started) / {runs}, 'repeats': equal}}))\n"
    )
    for mode in ("AVX2,STRICT", "AUTO") if setup.device.type == "cuda" else ("AUTO",):
        environment = {**os.environ, "MKL_CBWR": mode}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=environment
        )
        yield {"mkl_cbwr": mode, **json.loads(done.stdout)}


def _host_tensors(setup: Setup) -> list[torch.Tensor]:
    count = 40 if setup.device.type == "cuda" else 1
    return [torch.ones(1280, 12800, dtype=torch.bfloat16) for _ in range(count)]


def _copy(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    return [tensor.to(device, non_blocking=True, copy=True) for tensor in tensors]


def _rate(setup: Setup, copy: partial[Any], size_gib: float) -> float:
    """GiB a second of the second copy; the first one allocates."""
    copy()
    return round(size_gib / seconds_of(setup.device, copy), 1)


def _resident_set_gib() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 2**20
