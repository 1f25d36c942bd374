"""One component of a model, an adapter or a ControlNet as the planner sees it: its role, size and activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from contracts.errors import CatalogueError
from contracts.memory.activation_tables import class_of, find_activations
from contracts.memory.activations import UNKNOWN, Activations
from contracts.weights.counts.parameter_counts import ParameterCount

#: What a size was read from: the files on this machine; their headers on the hub; the published architecture of a
#: checkpoint that is still on a hub; or, for an unknown ControlNet on a hub, the largest one of its family.
Origin = Literal["files", "hub", "architecture", "assumed"]
#: ControlNets that are not whole without their denoiser.
_SHARING = frozenset({"ZImageControlNetModel"})
#: Half of what the published VAEs were trained on: tiles of the full size would save nothing there.
_TILE_SIDE = 512


class Role(StrEnum):
    """Purpose of a component, which decides in which stage it is needed."""

    TEXT_ENCODER = "text_encoder"
    T5 = "t5"
    DENOISER = "denoiser"
    VAE = "vae"
    PREVIEW_VAE = "preview_vae"
    CONTROLNET = "controlnet"
    ADAPTER = "adapter"
    LORA_SLOTS = "lora_slots"
    IMAGE_ENCODER = "image_encoder"


@dataclass(frozen=True)
class Component:
    """One set of weights, with bytes in the dtype it is computed in.

    Attributes:
        group_bytes: on the device at one time while it is streamed: the group at work and the next one.
        groups: what it is streamed by: `block`, the members of its module lists, or `leaf`, its single layers.
        value_bytes: of one value, weights and activations alike; 0: the model's.
        tile_side: pixels of a tile, for a VAE.
        origin: what the bytes were read from.
        shares_layers: for a ControlNet, whether it runs layers of the denoiser, which cannot be streamed then.
        prompt_tokens: for an image encoder, those by which it makes the prompt's embedding longer.
        packed_bytes: of its weights that are packed, which no other dtype changes.
        unpacking_bytes: what its largest layer takes while it computes, where its weights are packed; else 0.
        copies_output: whether its layers have their results in memory twice for a moment, as adapters have.
        linear_widths: of a denoiser, inputs and outputs of all its linear layers; 0 where they are not known.
    """

    name: str
    role: Role
    bytes: int
    group_bytes: int = 0
    groups: Literal["block", "leaf"] = "leaf"
    value_bytes: int = 0
    activations: Activations = UNKNOWN
    tile_side: int | None = None
    origin: Origin = "files"
    shares_layers: bool = False
    prompt_tokens: int = 0
    packed_bytes: int = 0
    unpacking_bytes: int = 0
    copies_output: bool = False
    linear_widths: int = 0

    @property
    def is_packed(self) -> bool:
        """Whether its weights are quantized, and unpacked layer by layer."""
        return self.unpacking_bytes > 0


@dataclass(frozen=True)
class ModelComponents:
    """A model as the planner sees it. Workers send it as JSON in their reports.

    Attributes:
        model: its id.
        value_bytes: of one value in the dtype it is computed in.
        t5_optional: whether the family works without T5.
        origin: what the sizes were read from.
    """

    model: str
    components: tuple[Component, ...]
    value_bytes: int
    t5_optional: bool = False
    origin: Literal["files", "hub", "architecture"] = "files"


def size_component(
    name: str, role: Role, count: ParameterCount, value_bytes: int, config: Mapping[str, Any] | None = None
) -> Component:
    """A component of this size; it is streamed by blocks where that saves two thirds of its bytes.

    Raises:
        CatalogueError: the configuration lacks what its class always has.
    """
    config = {} if config is None else config
    packed = count.packed
    size = count.values * value_bytes + packed.bytes
    by_block = (count.loose_values + 2 * count.block_values) * value_bytes
    by_block += packed.loose_bytes + 2 * packed.block_bytes
    groups: Literal["block", "leaf"] = "block" if by_block <= size // 3 else "leaf"
    by_leaf = 2 * max(count.leaf_values * value_bytes, packed.leaf_bytes)
    try:
        activations = find_activations(config)
    except (KeyError, TypeError, IndexError) as error:
        raise CatalogueError(f"the configuration of {name} lacks {error}") from error
    return Component(
        name=name,
        role=role,
        bytes=size,
        group_bytes=min(by_block if groups == "block" else by_leaf, size),
        groups=groups,
        value_bytes=value_bytes,
        activations=activations,
        tile_side=_tile_side(config) if role is Role.VAE else None,
        shares_layers=class_of(config) in _SHARING,
        packed_bytes=packed.bytes,
        # Unpacked values may be in 16 bits first, and beside that in the dtype of the model.
        unpacking_bytes=max(packed.unpacking_bytes, packed.layer_values * (packed.copy_bytes + value_bytes)),
        copies_output=packed.copies_output,
        linear_widths=sum((count.linear.rows.total, count.linear.columns.total)) if role is Role.DENOISER else 0,
    )


def _tile_side(config: Mapping[str, Any]) -> int:
    trained = config.get("sample_size")
    return min(trained, _TILE_SIDE) if isinstance(trained, int) else _TILE_SIDE


def role_of(name: str, config: Mapping[str, Any]) -> Role:
    """A component's role, from its name in the pipeline and its own configuration."""
    if config.get("model_type") in ("t5", "mt5"):
        return Role.T5
    if name.startswith("text_encoder"):
        return Role.TEXT_ENCODER
    return Role.VAE if name == "vae" else Role.DENOISER
