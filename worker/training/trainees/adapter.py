"""The layers of a LoRA in training: peft's, put into the model's networks for a step and taken out after it.

Between two steps the model is what it was, so that jobs of other owners never meet the LoRA. Where text encoders
learn, they read the captions in each step. Knows no families' objectives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.training_utils import cast_training_params
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch.utils.checkpoint import checkpoint

from contracts.requests.training.settings import Targets, TrainingSettings
from worker.training.examples import Embeddings, Example, encoded
from worker.training.files import lora_bytes
from worker.training.trainees.trainee import Trainee

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_FEED_FORWARD = (
    "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2",
    "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2",  # Qwen-Image's
    "feed_forward.w1", "feed_forward.w2", "feed_forward.w3",  # Z-Image's
)  # fmt: skip
_LAYERS: Mapping[Targets, tuple[str, ...]] = {
    "attention": _ATTENTION,
    "attention_and_feed_forward": (*_ATTENTION, *_FEED_FORWARD),
}
#: Of CLIP, as in diffusers' scripts.
_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj")
#: Published files have it in the names of all of CLIP's layers; classes that have none take it away again.
_TEXT_PREFIX = "text_model."
_ADAPTER = "default"


@dataclass(frozen=True)
class _Place:
    """The place of a layer in its component."""

    parent: torch.nn.Module
    attribute: str
    own: torch.nn.Module
    adapted: torch.nn.Module

    def put(self, module: torch.nn.Module) -> None:
        """Have the parent call this module."""
        self.parent._modules[self.attribute] = module


class LoraAdapter(Trainee):
    """A LoRA of a denoiser and perhaps of text encoders, in float32.

    Attributes:
        parameters: what is trained, by its name in the file: `COMPONENT.LAYER.lora_A.weight` and `…lora_B.weight`.
    """

    def __init__(
        self,
        denoiser: Any,
        component: str,
        settings: TrainingSettings,
        text_encoders: Mapping[str, torch.nn.Module] | None = None,
        encode: Callable[[str], Embeddings] | None = None,
    ) -> None:
        """Make the layers, which change nothing yet: `lora_B` is 0. The model stays as it is.

        Args:
            component: the denoiser's name in the file, such as `unet`.
            text_encoders: that learn too, by their names in the file.
            encode: encodes a caption with these, past all caches; needed with `text_encoders`.

        Raises:
            ValueError: a component has none of the layers.
        """
        self._scale = settings.alpha / settings.rank
        self._denoiser, self._encode = denoiser, encode if text_encoders else None
        self._layers = {component: _LAYERS[settings.targets], **dict.fromkeys(text_encoders or {}, _TEXT)}
        self._places: list[_Place] = []
        self.parameters: dict[str, torch.nn.Parameter] = {}
        for name, module in {component: denoiser, **(text_encoders or {})}.items():
            self.parameters |= self._inject(name, module, settings)
        self._component, self._rank = component, settings.rank
        self._take_out()
        self._draw(settings)

    def _inject(self, component: str, module: Any, settings: TrainingSettings) -> dict[str, torch.nn.Parameter]:
        """Make the layers of one component; returns what is trained."""
        config = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, target_modules=list(self._layers[component])
        )
        inject_adapter_in_model(config, module, _ADAPTER)
        vars(module).pop("peft_config", None)
        cast_training_params(module, torch.float32)
        self._places += _find_places(module)
        prefix = component + "."
        if self._layers[component] is _TEXT:
            prefix += _TEXT_PREFIX
        return {
            prefix + name.removeprefix(_TEXT_PREFIX).replace(f".{_ADAPTER}.", "."): parameter
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model runs with the LoRA, and the denoiser recomputes activations in the backward pass."""
        for place in self._places:
            place.put(place.adapted)
        self._denoiser.enable_gradient_checkpointing()
        try:
            yield
        finally:
            self._denoiser.disable_gradient_checkpointing()
            self._take_out()

    def read(self, rows: Sequence[Example]) -> Sequence[Example]:
        """See `Trainee`: where text encoders learn, each different caption is encoded in each step.

        And again in the backward pass, so that the activations of one caption at a time are in memory.
        """
        if self._encode is None:
            return rows
        return encoded(rows, partial(checkpoint, self._encode, use_reentrant=False))

    def file(self, facts: Mapping[str, str]) -> bytes:
        """See `Trainee`; in diffusers' layout, with the strength in `lora_B`: readers need no alpha."""
        tensors = {
            name: parameter.detach() * (self._scale if ".lora_B." in name else 1.0)
            for name, parameter in self.parameters.items()
        }
        settings = {component: self._peft_settings(component) for component in self._layers}
        return lora_bytes(tensors, settings, facts)

    def _peft_settings(self, component: str) -> dict[str, object]:
        """Peft's settings of a component, which are in the file."""
        layers = {name.partition(".lora_")[0] for name in self.parameters if name.startswith(f"{component}.")}
        own = {name.removeprefix(f"{component}.") for name in layers}
        return {
            "peft_type": "LORA",
            "r": self._rank,
            "lora_alpha": self._rank,
            "target_modules": sorted(own if component == self._component else _TEXT),
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


def _find_places(component: torch.nn.Module) -> Iterator[_Place]:
    for name, module in component.named_modules():
        if isinstance(module, LoraLayer) and isinstance(module, torch.nn.Module):
            parent, _, attribute = name.rpartition(".")
            found: Any = module
            yield _Place(component.get_submodule(parent), attribute, found.get_base_layer(), module)
