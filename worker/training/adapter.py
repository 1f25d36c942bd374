"""The layers of a LoRA in training: peft's, put into the denoiser for a step and taken out after it.

Between two steps the denoiser is what it was, so that jobs of other owners never meet the LoRA. Knows no families'
objectives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.training_utils import cast_training_params
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer

from contracts.requests.training.settings import Targets, TrainingSettings
from worker.training.files import lora_bytes
from worker.training.trainee import Trainee

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
_LAYERS: Mapping[Targets, tuple[str, ...]] = {
    "attention": _ATTENTION,
    "attention_and_feed_forward": (*_ATTENTION, *_FEED_FORWARD),
}
_ADAPTER = "default"


@dataclass(frozen=True)
class _Place:
    """Where a layer is in the denoiser."""

    parent: torch.nn.Module
    attribute: str
    own: torch.nn.Module
    adapted: torch.nn.Module

    def put(self, module: torch.nn.Module) -> None:
        """Have the parent call this module."""
        self.parent._modules[self.attribute] = module


class LoraAdapter(Trainee):
    """A LoRA of a denoiser, in float32.

    Attributes:
        parameters: what is trained, by its name in the file: `LAYER.lora_A.weight`, `LAYER.lora_B.weight`.
    """

    def __init__(self, denoiser: Any, component: str, settings: TrainingSettings) -> None:
        """Make the layers, which change nothing yet: `lora_B` is 0. The denoiser stays as it is.

        Args:
            component: the denoiser's name in the file, such as `unet`.

        Raises:
            ValueError: the denoiser has none of the layers.
        """
        self._component = component
        self._scale = settings.alpha / settings.rank
        self._config = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, target_modules=list(_LAYERS[settings.targets])
        )
        self._denoiser = denoiser
        inject_adapter_in_model(self._config, denoiser, _ADAPTER)
        vars(denoiser).pop("peft_config", None)
        cast_training_params(denoiser, torch.float32)
        self._places = list(_find_places(denoiser))
        self.parameters: dict[str, torch.nn.Parameter] = {
            name.replace(f".{_ADAPTER}.", "."): parameter
            for name, parameter in denoiser.named_parameters()
            if parameter.requires_grad
        }
        self._take_out()
        self._draw(settings)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the denoiser runs with the LoRA, and recomputes activations in the backward pass."""
        for place in self._places:
            place.put(place.adapted)
        self._denoiser.enable_gradient_checkpointing()
        try:
            yield
        finally:
            self._denoiser.disable_gradient_checkpointing()
            self._take_out()

    def file(self, facts: Mapping[str, str]) -> bytes:
        """See `Trainee`; in diffusers' layout, with the strength in `lora_B`: readers need no alpha."""
        tensors = {
            name: parameter.detach() * (self._scale if ".lora_B." in name else 1.0)
            for name, parameter in self.parameters.items()
        }
        return lora_bytes(tensors, self._component, self._peft_settings, facts)

    @property
    def _peft_settings(self) -> dict[str, object]:
        """Peft's settings of the file."""
        return {
            "peft_type": "LORA",
            "r": self._config.r,
            "lora_alpha": self._config.r,
            "target_modules": sorted({name.partition(".lora_")[0] for name in self.parameters}),
        }

    def _take_out(self) -> None:
        for place in self._places:
            place.put(place.own)

    def _draw(self, settings: TrainingSettings) -> None:
        """Start as peft does with `gaussian`, from the training's own seed."""
        generator = torch.Generator().manual_seed(settings.seed)
        with torch.no_grad():
            for name, parameter in sorted(self.parameters.items()):
                if ".lora_A." in name:
                    drawn = torch.randn(parameter.shape, generator=generator) / settings.rank
                    parameter.copy_(drawn)
                else:
                    parameter.zero_()


def _find_places(denoiser: torch.nn.Module) -> Iterator[_Place]:
    for name, module in denoiser.named_modules():
        if isinstance(module, LoraLayer) and isinstance(module, torch.nn.Module):
            parent, _, attribute = name.rpartition(".")
            found: Any = module
            yield _Place(denoiser.get_submodule(parent), attribute, found.get_base_layer(), module)
