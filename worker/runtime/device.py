"""The device that a worker computes on: which one, its name, its memory, and the dtype of a model on it.

Knows nothing of models beyond the dtype that a catalogue row names.
"""

from __future__ import annotations

import gc
import os

import torch

from contracts.catalogue.catalogue import ModelSpec


def pick_device(wanted: str) -> torch.device:
    """The device that the settings name; `auto` is CUDA where there is one."""
    if wanted != "auto":
        return torch.device(wanted)
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def describe_device(device: torch.device) -> str:
    """The device's name for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def device_bytes(device: torch.device) -> int:
    """Memory that a plan may count on: nine tenths of the device's, or half of the host's."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1] * 0.9)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def pick_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    """The dtype that the model's row names; `auto` is bfloat16 on CUDA and float32 elsewhere."""
    if spec.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[spec.dtype]


def free_memory() -> None:
    """Give back what nothing refers to any more, rings of objects too."""
    gc.collect()
    empty_cache()


def empty_cache() -> None:
    """Give back what torch keeps of the device for itself."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
