"""Networks that run by themselves, read from safetensors through spandrel. Knows no jobs and no memory plans.

spandrel is imported with the first network. It imports three names of torchvision, for two architectures that it
does not run here; where torchvision is not installed, stand-ins take their place: one that does not match
torch's build would keep transformers from being imported at all.
"""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file

from contracts.errors import CatalogueError

#: Prefixes of a layer's number: `model.` of this module and of its generator, or `generator.`.
_LAMA_PREFIX = re.compile(r"^((generator|model)\.)*")
_NAMES = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def load_network(file: Path, device: torch.device, architectures: tuple[str, ...]) -> torch.nn.Module:
    """Load a network in float32, for inference.

    Args:
        architectures: those that the file may hold, by spandrel's names.

    Raises:
        CatalogueError: it holds another one, or spandrel is not installed.
    """
    require_spandrel()
    weights = load_file(file)
    if architectures == ("LaMa",):
        return _ready(_load_lama(weights), device)
    spandrel = _import("spandrel")
    try:
        descriptor: Any = spandrel.ModelLoader().load_from_state_dict(weights)
    except spandrel.UnsupportedModelError as error:
        raise CatalogueError(f"{file.name} holds no network that is known") from error
    if descriptor.architecture.id not in architectures:
        known = " or ".join(architectures)
        raise CatalogueError(f"{file.name} holds a {descriptor.architecture.id}, and {known} is needed")
    return _ready(descriptor.model, device)


class LaMa(torch.nn.Module):
    """LaMa (Suvorov et al., arXiv 2109.07161) of any size: its generator, and the image outside the mask."""

    def __init__(self, generator: torch.nn.Module) -> None:
        super().__init__()
        self.model = generator

    @property
    def parts(self) -> list[torch.nn.Sequential]:
        """The generator's layers in their order, about a convolution in each part: one may pause between them."""
        parts: list[list[torch.nn.Module]] = []
        for layer in cast("torch.nn.Sequential", self.model.model):  # `children` would leave out repeated ones
            if not parts or any(weight.ndim > 1 for weight in layer.parameters()):
                parts.append([])
            parts[-1].append(layer)
        return [torch.nn.Sequential(*layers) for layers in parts]

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Fill an image (batch, 3, height, width) of 0…1 where its mask (batch, 1, height, width) is 1."""
        made: torch.Tensor = self.model(image * (1 - mask), mask)
        return mask * made + (1 - mask) * image


def build_lama(features: int, blocks: int) -> LaMa:
    """A LaMa with random weights; the published one has 64 features and 18 blocks."""
    module = _import("spandrel.architectures.LaMa.__arch.LaMa")
    return LaMa(module.FFCResNetGenerator(4, 3, ngf=features, n_blocks=blocks))


def _load_lama(weights: dict[str, torch.Tensor]) -> LaMa:
    weights = {_LAMA_PREFIX.sub("", name): value for name, value in weights.items()}
    blocks = {name.split(".")[0] for name in weights if ".conv1.ffc." in name or ".conv1.bn_l." in name}
    network = build_lama(weights["1.ffc.convl2l.weight"].shape[0], len(blocks))
    network.model.load_state_dict({f"model.{name}": value for name, value in weights.items()})
    return network


def _ready(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    return network.float().to(device).eval().requires_grad_(requires_grad=False)


def _import(name: str) -> Any:
    with _torchvision_stand_ins():
        importlib.import_module("spandrel")
        return importlib.import_module(name)


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
