"""The kinds of training that are possible with each model, and the fields that apply to them. Knows no worker."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from contracts.catalogue.families import Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.requests.training.request import KIND_FIELDS, TRAINABLE_FAMILIES
from contracts.requests.training.settings import Kind

#: The vectors of a textual inversion have values of about 0.01, and take larger steps; a ControlNet begins as a
#: copy of trained layers.
LEARNING_RATES: Mapping[Kind, float] = MappingProxyType(
    {"lora": 1e-4, "textual_inversion": 1e-3, "controlnet": 1e-5}
)


def kinds_of(model: ModelSpec) -> list[Kind]:
    """Return the kinds of trainings that can be run on a model; empty where it cannot be trained on."""
    return [kind for kind in TRAINABLE_FAMILIES if _is_trainable(model, kind)]


def unused_fields(kind: Kind, model: ModelSpec) -> frozenset[str]:
    """Return the fields of a request that mean nothing for this kind of training on this model."""
    others = [fields for other, fields in KIND_FIELDS.items() if other != kind]
    unused = frozenset[str]().union(*others)
    if model.family_spec.kind == "flow":
        unused |= {"snr_gamma"}
    if not model.family_spec.lora_text_encoders:
        unused |= {"train_text_encoder"}
    return unused


def default_resolution(model: ModelSpec) -> int:
    """Return the side of the square with whose pixels images are read, unless a request says another."""
    return min(side for name in ("width", "height") if isinstance(side := model.default(name), int))


def _is_trainable(model: ModelSpec, kind: Kind) -> bool:
    needed = {Task.TXT2IMG, Task.CONTROLNET} if kind == "controlnet" else {Task.TXT2IMG}
    is_able = needed.issubset(model.tasks) and not (model.is_quantized or model.text_encoder_quantization)
    # A training has no control images for a model that makes nothing without one, as FLUX.1 Canny.
    return is_able and model.family in TRAINABLE_FAMILIES[kind] and not model.family_spec.required_fields
