"""Networks that run by themselves, read from safetensors through spandrel. Knows no jobs and no memory plans.

spandrel is imported with the first network. It imports three names of torchvision, for two architectures that it
does not run here; where torchvision is not installed, stand-ins take their place: one that does not match
torch's build would keep transformers from being imported at all.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from contracts.errors import CatalogueError

_NAMES = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def load_network(file: Path, device: torch.device, architectures: tuple[str, ...]) -> torch.nn.Module:
    """Load a network in float32, for inference.

    Args:
        architectures: those that the file may hold, by spandrel's names.

    Raises:
        CatalogueError: it holds another one, or spandrel is not installed.
    """
    require_spandrel()
    with _torchvision_stand_ins():
        spandrel = importlib.import_module("spandrel")
    weights = load_file(file)
    try:
        descriptor: Any = spandrel.ModelLoader().load_from_state_dict(weights)
    except spandrel.UnsupportedModelError as error:
        raise CatalogueError(f"{file.name} holds no network that is known") from error
    if descriptor.architecture.id not in architectures:
        known = " or ".join(architectures)
        raise CatalogueError(f"{file.name} holds a {descriptor.architecture.id}, and {known} is needed")
    network: torch.nn.Module = descriptor.model
    return network.float().to(device).eval().requires_grad_(requires_grad=False)


def require_spandrel() -> None:
    """Check that this worker can load networks.

    Raises:
        CatalogueError: spandrel is not installed.
    """
    if find_spec("spandrel") is None:
        raise CatalogueError("it needs the package spandrel, which this worker does not have")


@contextmanager
def _torchvision_stand_ins() -> Iterator[None]:
    """In the block, modules in the place of those of torchvision that spandrel imports and does not use here."""
    if find_spec("torchvision") is not None:
        yield
        return
    package, transforms, functional = (types.ModuleType(name) for name in _NAMES)
    for name, value in (
        ("InterpolationMode", Enum("InterpolationMode", ["NEAREST", "BILINEAR"])),
        ("rotate", None),
        ("normalize", None),
    ):
        setattr(functional, name, value)
    package.__dict__["transforms"], transforms.__dict__["functional"] = transforms, functional
    sys.modules.update(zip(_NAMES, (package, transforms, functional), strict=True))
    try:
        yield
    finally:
        for name in _NAMES:  # others look for torchvision, and must not find these
            sys.modules.pop(name, None)
