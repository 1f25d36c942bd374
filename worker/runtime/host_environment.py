"""What a worker sets for its process before torch is imported, and what tells of a GPU. Imports no torch."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, MutableMapping
from functools import partial
from pathlib import Path

from contracts.processes.priority import give_way

#: Of a worker whose device is the CPU: one step keeps a core busy for as long as a hundred calls of the API take.
CPU_NICENESS = 5
#: Logger -> part of what it says each time that torchao is imported, which diffusers does where it is installed.
_SAID_ON_IMPORT = {
    "torchao": "Failed to load ",  # kernels of some cards, which the quantizations here do without
    "torch.utils._pytree": "register_constant() on Enum subclasses",
    "diffusers.quantizers.torchao.torchao_quantizer": "Unable to import `torchao` Tensor objects",  # older ones
}


def set_library_options(device: str, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what the libraries read when they are loaded; what the operator has set stays. Silences known messages.

    Args:
        device: as in the settings.
    """
    # Where the CPU is the device, images must not depend on the MKL kernels that a machine would choose. Beside
    # a GPU it only runs T5, and the GPU's own kernels differ between cards anyway: `AUTO` gives the same bits on
    # the same machine, with all of its vector instructions.
    is_cpu = generates_on_cpu(device, environment)
    environment.setdefault("MKL_CBWR", "AVX2,STRICT" if is_cpu else "AUTO")
    # Without it, sizes that change from job to job leave holes in the device's memory.
    if "PYTORCH_CUDA_ALLOC_CONF" not in environment:
        environment.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    for name, part in _SAID_ON_IMPORT.items():
        logging.getLogger(name).addFilter(partial(_lacks, part))


def _lacks(part: str, record: logging.LogRecord) -> bool:
    return part not in record.getMessage()


def let_others_go_first(device: str, environment: Mapping[str, str] = os.environ) -> None:
    """Lower this process's priority where the CPU is its device, so that the API and Redis answer meanwhile.

    A worker that feeds a GPU keeps its priority: the GPU would wait for it.
    """
    if generates_on_cpu(device, environment):
        give_way(CPU_NICENESS)


def generates_on_cpu(device: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this setting of the device surely means the CPU, as far as can be known without torch."""
    return device.startswith("cpu") or (device == "auto" and sign_of_gpu(environment=environment) is None)


def sign_of_gpu(devices: Path = Path("/dev"), environment: Mapping[str, str] = os.environ) -> str | None:
    """What says that this process was meant to have an NVIDIA GPU; None where nothing does."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return f"CUDA_VISIBLE_DEVICES is {visible!r}" if visible.strip() not in ("", "-1") else None
    nodes = sorted(devices.glob("nvidia[0-9]*"))
    return f"{nodes[0]} exists" if nodes else None
