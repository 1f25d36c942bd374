"""Bytes on the device in each stage of a request: its weights, what the component at work needs, what is kept.

Knows where every component is placed, and chooses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from contracts.memory.activations import ActivationCost, Retained, peak_values
from contracts.memory.plan import PlacedComponent, Placement
from contracts.memory.sizes.component import Component, Role
from contracts.memory.workload import Workload

#: Values of a pixel of an image that is decoded in tiles, which overlap by a quarter.
_TILES_VALUES = 5
_STAGES = ("encode", "denoise", "decode")
STAGE_OF: Mapping[Role, str] = MappingProxyType(
    {
        Role.TEXT_ENCODER: "encode",
        Role.T5: "encode",
        Role.DENOISER: "denoise",
        Role.CONTROLNET: "denoise",
        Role.ADAPTER: "denoise",
        Role.LORA_SLOTS: "denoise",
        Role.PREVIEW_VAE: "denoise",
        Role.IMAGE_ENCODER: "encode",
        Role.VAE: "decode",
    }
)


#: What a result depends on -> the result. Objects are named by their `id`; the estimates that share the results
#: refer to the objects, too.
Known = dict[tuple[object, ...], Any]


@dataclass(frozen=True, eq=False)
class StageBytes:
    """Bytes of one workload's stages.

    Attributes:
        parts: every component of the model and of the workload, and where it is placed.
        value_bytes: of one value of the model's weights and activations.
        tile_side: of the VAE's tiles, in pixels; None: images are decoded whole, and all at once.
        known: results that all strategies for this model and workload share.
        replays: whether CUDA graphs of the denoiser keep what it needs while it works, in all stages.
    """

    parts: tuple[tuple[Component, PlacedComponent], ...]
    workload: Workload
    value_bytes: int
    tile_side: int | None
    known: Known
    replays: bool = False

    def of_call(self, images: float) -> dict[str, int]:
        """Weights and activations on the device in each stage of a call of so many images."""
        throughout = self._resident_bytes + self.graph_bytes(images)
        return {
            stage: throughout + self._kept_bytes(stage, images) + self._peak_bytes(stage, images)
            for stage in _STAGES
        }

    def graph_bytes(self, images: float) -> int:
        """What CUDA graphs of the denoiser keep: its activations."""
        denoisers = [part for part in self.parts if part[0].role is Role.DENOISER] if self.replays else []
        return max(
            (self._component_bytes(component, placed, images) for component, placed in denoisers), default=0
        )

    def activation_bytes(self) -> int:
        """Bytes beyond all weights in the stage that needs most, for the workload's images."""
        images = self.workload.shape.images
        working = max(self._kept_bytes(stage, images) + self._working_bytes(stage, images) for stage in _STAGES)
        return working + self.graph_bytes(images)

    @cached_property
    def _resident_bytes(self) -> int:
        return sum(placed.device_bytes for _, placed in self.parts if placed.placement is Placement.DEVICE)

    @cached_property
    def _parts_of(self) -> Mapping[str, Sequence[tuple[Component, PlacedComponent]]]:
        """Stage -> what works in it. Kept, as what follows is: a plan asks for one workload some 20 times."""
        parts = [part for part in self.parts if part[0].role is not Role.DENOISER or not self.replays]
        return {stage: [part for part in parts if STAGE_OF[part[0].role] == stage] for stage in _STAGES}

    def _peak_bytes(self, stage: str, images: float) -> int:
        """Weights that come for a stage, and the activations of the component at work.

        Text encoders come one after the other; other components on demand come together, and one of them works.
        """
        weights, activations = [], []
        for component, placed in self._parts_of[stage]:
            weights.append(placed.device_bytes if placed.placement is Placement.ON_DEMAND else 0)
            activations.append(self._component_bytes(component, placed, images, streamed=True))
        if stage == "encode":
            return max(map(sum, zip(weights, activations, strict=True)), default=0)
        return sum(weights) + max(activations, default=0)

    def _kept_bytes(self, stage: str, images: float) -> int:
        """Tensors that stay throughout a stage: input images; once prompts are encoded, embeddings and latents.

        ControlNet residuals stay until the images are decoded: the pipelines keep a reference to them. Where
        components are placed changes nothing of this.
        """
        key = ("kept", stage == "encode", images)
        if key not in self.known:
            self.known[key] = self._count_kept(stage, images)
        kept: int = self.known[key]
        return kept

    def _count_kept(self, stage: str, images: float) -> int:
        shape = self.workload.shape
        values = images * shape.start_values + shape.channels * shape.reference_pixels
        if not self._encodes_controls:
            values += images * shape.control_values
        if stage != "encode":
            has_vae = any(component.role is Role.VAE for component, _ in self.parts)
            # Without one, input images and masks have no latents beside them.
            in_latents = shape if has_vae else replace(shape, started=False, masked=False)
            values += sum(retained.values(in_latents, images) for retained in self._retained)
            values += self._residual_values(images)
        return int(values * self.value_bytes)

    @cached_property
    def _retained(self) -> Sequence[Retained]:
        every = (component.activations.retained for component, _ in self.parts)
        return [retained for retained in every if retained != Retained()]

    @cached_property
    def _encodes_controls(self) -> bool:
        return any(extra.activations.encodes_controls for extra in self.workload.extras)

    def _residual_values(self, images: float) -> float:
        """Residuals of one step; those of several ControlNets are added up, so the largest counts."""
        shape = self.workload.shape
        return peak_values(self._residuals, shape, images * shape.passes)

    @cached_property
    def _residuals(self) -> Sequence[ActivationCost]:
        every = (component.activations.residuals for component, _ in self.parts)
        return [residuals for residuals in every if residuals != ActivationCost()]

    def _working_bytes(self, stage: str, images: float) -> int:
        """What the component that needs most takes beside its weights."""
        parts = self._parts_of[stage]
        return max((self._component_bytes(component, placed, images) for component, placed in parts), default=0)

    def _component_bytes(
        self, component: Component, placed: PlacedComponent, images: float, *, streamed: bool = False
    ) -> int:
        """Bytes that a component needs on the device while it works, beyond weights that are there anyway.

        Args:
            streamed: include weights that are streamed.
        """
        if placed.placement in (Placement.CPU, Placement.SKIPPED):
            return 0
        key = (id(component), id(placed), self.tile_side, images, streamed)
        if key not in self.known:
            self.known[key] = self._count_working(component, placed, images, streamed)
        needed: int = self.known[key]
        return needed

    def _count_working(self, component: Component, placed: PlacedComponent, images: float, streamed: bool) -> int:
        shape, value_bytes = self.workload.shape, component.value_bytes or self.value_bytes
        if component.role is Role.VAE:
            return int(self._vae_values(component, images) * value_bytes)
        if component.role is Role.PREVIEW_VAE:  # all images at once, between two steps
            return int(peak_values(component.activations.peaks, shape, images) * value_bytes)
        passes = shape.passes if STAGE_OF[component.role] == "denoise" else 1
        # Of several ControlNets, each works beside the sums so far.
        is_one_of_several = component.role is Role.CONTROLNET and shape.controls > 1
        before = self._residual_values(images) * is_one_of_several
        pixels = shape.sequence_pixels if component.role is Role.DENOISER else shape.pixels
        if STAGE_OF[component.role] == "encode":
            shape = shape.read_by_encoder
        return (
            max(
                int((cost.values(shape, images * passes, pixels) + before) * value_bytes)
                + (_streamed_bytes(component, placed, cost.layers) if streamed else 0)
                for cost in self._costs(component)
            )
            + component.unpacking_bytes
        )

    def _costs(self, component: Component) -> tuple[ActivationCost, ...]:
        """A component's peaks, with those of the adapters that act on it.

        An adapter makes a layer's result beside the one without it, which layers that are quantized do, too.
        """
        activations = component.activations
        adapters = sum(extra.role is Role.ADAPTER for extra in self.workload.extras)
        costs = activations.peaks
        if adapters or component.copies_output:
            costs += activations.one_adapter
        if adapters > 1:
            costs += activations.more_adapters
        return costs or (ActivationCost(),)

    def _vae_values(self, vae: Component, images: float) -> float:
        """Decoding, or encoding ControlNet images or references; all images at once, or in tiles."""
        shape, tile_side, activations = self.workload.shape, self.tile_side, vae.activations
        controls = images * shape.control_values if self._encodes_controls else 0.0
        references = shape.reference_pixels  # a reference is encoded once for all images
        if tile_side is None:
            rows = images * shape.control_rows if self._encodes_controls else 0
            encoding = peak_values(activations.encoding, shape, rows)
            return max(
                encoding + controls,
                peak_values(activations.encoding, shape, bool(references), references),
                peak_values(activations.peaks, shape, images * shape.decoded),
            )
        decoded = images * shape.decoded
        tile = min(shape.pixels, tile_side**2)
        image = shape.channels * shape.pixels
        tiles = _TILES_VALUES * shape.pixels * (shape.pixels > tile)
        finished = (decoded - 1) * image
        return max(
            peak_values(activations.peaks, shape, 1, tile) + tiles + finished,
            tiles + finished + 2 * image,
            # `VaeImageProcessor.denormalize`: all images beside two intermediate results.
            3 * decoded * image,
            peak_values(activations.encoding, shape, 1, tile) + controls,
            peak_values(activations.encoding, shape, bool(references), min(references, tile_side**2)),
        )


def _streamed_bytes(component: Component, placed: PlacedComponent, layers: int | None) -> int:
    """Bytes of streamed weights on the device at one step of the component's run.

    Args:
        layers: values of the layers at work at this step; None: unknown, so the maximum counts.
    """
    if placed.placement is not Placement.STREAMED:
        return 0
    if placed.groups == "block" or layers is None:
        return placed.device_bytes
    share = placed.bytes / component.bytes if component.bytes else 1.0
    return min(placed.device_bytes, int(layers * component.value_bytes * share))
