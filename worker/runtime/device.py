"""The device that a worker computes on: which one, its name, its usable memory, and the dtype of a model on it.

Knows nothing of models beyond the dtype that a catalogue row names.
"""

from __future__ import annotations

import fcntl
import gc
import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

import torch

from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import DarkroomError
from contracts.memory.card import budget_of_card
from worker.runtime.host_environment import sign_of_gpu

_log = logging.getLogger(__name__)

#: CUDA's major version -> the oldest NVIDIA driver that runs it (NVIDIA's table of minor version compatibility).
_MIN_DRIVERS: Mapping[str, str] = {"12": "525", "13": "580"}
#: Memory that other processes may hold without a warning: a small desktop.
_TOLERATED_BYTES = 2**28


class DeviceUnavailable(DarkroomError):
    """The device that the settings ask for cannot be used; the message says why and what to do."""


def pick_device(requested: str) -> torch.device:
    """The device named by the settings; a CUDA device always has its index.

    Args:
        requested: `cpu`, `cuda` (the first card), `cuda:N`, or `auto`: the first card, or the CPU on a machine
            that shows no sign of one.

    Raises:
        DeviceUnavailable: for CUDA without a usable card, and for `auto` where a card was expected.
    """
    if requested == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        sign = sign_of_gpu()
        if sign is None:
            return torch.device("cpu")
        remedy = "fix it, or set DARKROOM_WORKER_DEVICE=cpu"
        raise DeviceUnavailable(f"{sign}, so a GPU was expected, but {_why_no_cuda()}; {remedy}")
    try:
        device = torch.device(requested)
    except RuntimeError as error:
        message = f"DARKROOM_WORKER_DEVICE must be auto, cpu, cuda or cuda:N, got {requested!r}"
        raise DeviceUnavailable(message) from error
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise DeviceUnavailable(f"DARKROOM_WORKER_DEVICE={requested} cannot be used: {_why_no_cuda()}")
    index, count = device.index or 0, torch.cuda.device_count()
    if index >= count:
        raise DeviceUnavailable(
            f"DARKROOM_WORKER_DEVICE={requested} does not exist: {count} CUDA devices are visible"
        )
    return torch.device("cuda", index)


def _why_no_cuda() -> str:
    version = torch.version.cuda
    if version is None:
        return f"torch {torch.__version__} was built without CUDA"
    least = _MIN_DRIVERS.get(version.split(".")[0])
    needs = "" if least is None else f" (its CUDA {version} needs NVIDIA driver {least} or newer)"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return f"torch {torch.__version__} cannot use CUDA{needs}: {str(error).splitlines()[0]}"
    return f"torch {torch.__version__} finds no CUDA device{needs}"


def select_device(device: torch.device) -> None:
    """Make this the calling thread's current CUDA device, so that nothing opens a context on another card."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def describe_device(device: torch.device) -> str:
    """The device's name for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def usable_bytes(device: torch.device) -> int:
    """Memory that plans may use.

    On CUDA, what is free once the context exists, with what torch holds already, less a small margin; on the CPU,
    half of the host's memory.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return budget_of_card(free + torch.cuda.memory_reserved(device), total)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def bytes_of_others(device: torch.device) -> int:
    """Device memory that other processes hold, roughly; 0 below what a small desktop takes, and on the CPU."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    # CUDA's context of this process is about half a GiB, and no API tells its size.
    others = total - free - torch.cuda.memory_reserved(device) - 2**29
    return others if others > _TOLERATED_BYTES else 0


def claim_card(identifier: str, *, shared: bool, folder: Path | None = None) -> IO[bytes]:
    """Claim a card for this process, for as long as the returned file stays open.

    Args:
        identifier: the card's UUID.
        shared: whether workers with a share of their own may use it, too.

    Raises:
        DeviceUnavailable: another worker has it, and one of the two was given no share.
    """
    name = f"darkroom-{hashlib.sha256(identifier.encode()).hexdigest()[:16]}.lock"
    path = (folder or Path(tempfile.gettempdir())) / name
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    file = os.fdopen(descriptor, "r+b")
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        message = (
            f"another worker uses the card {identifier}; to share it, give each worker its part of the memory "
            "with DARKROOM_WORKER_BUDGET_BYTES"
        )
        raise DeviceUnavailable(message) from error
    return file


def claim_device(device: torch.device, *, shared: bool) -> IO[bytes] | None:
    """Claim a CUDA device for this process, and warn of memory that other processes hold; None for another device.

    Raises:
        DeviceUnavailable: as `claim_card` does.
    """
    if device.type != "cuda":
        return None
    others = bytes_of_others(device)
    if others:
        _log.warning("other processes hold %.1f GiB of %s; plans leave it alone", others / 2**30, device)
    return claim_card(card_identifier(device), shared=shared)


def card_identifier(device: torch.device) -> str:
    """A name of the card that is the same in all processes."""
    return str(torch.cuda.get_device_properties(device).uuid)


@cache
def copy_stream(device: torch.device) -> Any:
    """The one side stream of a CUDA device for copies: memory freed on a stream is reused on that stream alone."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def pick_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    """The dtype that the model's row names; `auto` is bfloat16 on CUDA and float32 elsewhere."""
    if spec.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[spec.dtype]


def free_memory() -> None:
    """Collect garbage, reference cycles included, and return torch's unused device memory to the driver."""
    gc.collect()
    empty_cache()


def empty_cache() -> None:
    """Return torch's unused device memory to the driver."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
