"""What one strategy needs for one workload: bytes on the device in each stage, bytes in host memory, seconds.

Chooses nothing: `planner.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from contracts.memory.activations import ActivationCost, peak_values
from contracts.memory.components import Component, ModelComponents, Role
from contracts.memory.plan import PlacedComponent, Placement, Plan, Strategy, Workload, gib
from contracts.memory.seconds import encode_seconds, move_seconds, stream_seconds

#: Seconds that a plan must save to be worth a changed image: tiles change it slightly, 8 bits visibly, and
#: without T5 it is a different image, which is the last resort.
_TILED_SECONDS, _FP8_SECONDS, _SKIPPED_SECONDS = 0.15, 3.0, 1e6
#: Bytes of a weight in 8 bits, and the share of weights that stay as they are (norms, embeddings).
_FP8_BYTES, _FP8_UNCHANGED = 1, 0.02
#: Maximum of images in a call, and the fraction of an image to which the number that fits is found.
_MAX_IMAGES, _IMAGE_FRACTION = 1024, 1 / 16
#: Values of a pixel while images are decoded one by one in tiles: a finished image; its tiles, which overlap by a
#: quarter.
_IMAGE_VALUES, _TILES_VALUES = 3, 5
#: In host memory, wholly or until they are needed.
_IN_HOST_MEMORY = (Placement.ON_DEMAND, Placement.STREAMED, Placement.CPU)

_STAGES = ("encode", "denoise", "decode")
_STAGE_OF: Mapping[Role, str] = MappingProxyType(
    {
        Role.TEXT_ENCODER: "encode",
        Role.T5: "encode",
        Role.DENOISER: "denoise",
        Role.CONTROLNET: "denoise",
        Role.ADAPTER: "denoise",
        Role.VAE: "decode",
    }
)


@dataclass(frozen=True, eq=False)
class Estimate:
    """Bytes and seconds of one strategy for one workload."""

    strategy: Strategy
    model: ModelComponents
    workload: Workload
    parts: tuple[tuple[Component, PlacedComponent], ...]

    @classmethod
    def of(
        cls, strategy: Strategy, model: ModelComponents, workload: Workload, cpu_value_bytes: int = 4
    ) -> Estimate:
        """Place every component of the model and every extra of the workload.

        Args:
            cpu_value_bytes: as in `Policy`.
        """
        components = (*model.components, *workload.extras)
        placed = tuple(
            (component, _place(component, strategy, model, cpu_value_bytes)) for component in components
        )
        return cls(strategy, model, workload, placed)

    def plan(self, budget_bytes: int) -> Plan:
        """The strategy as a plan within this budget."""
        shape, peak_bytes, room = self.workload.shape, self.peak_bytes, self._images_that_fit(budget_bytes)
        fits = peak_bytes <= budget_bytes
        return Plan(
            model=self.model.model,
            name=self.name,
            components=tuple(placed for _, placed in self.parts),
            tile_side=self._tile_side,
            fp8=self.strategy.fp8,
            stage_bytes=self.stage_bytes(),
            activation_bytes=max(self._activation_bytes(stage) for stage in _STAGES),
            peak_bytes=peak_bytes,
            host_bytes=self.host_bytes,
            budget_bytes=budget_bytes,
            fits=fits,
            images=shape.images,
            batch_images=max(int(room), shape.images) if fits else min(int(room), shape.images - 1),
            batch_pixels=int(room * shape.pixels),
            extra_seconds=round(self._extra_seconds, 2),
            reason=f"needs {gib(peak_bytes)} of {gib(budget_bytes)}",
        )

    def stage_bytes(self, images: float | None = None) -> dict[str, int]:
        """Weights and activations on the device in each stage.

        Args:
            images: in the call; None: the workload's.
        """
        count = self.workload.shape.images if images is None else images
        resident = sum(placed.device_bytes for _, placed in self.parts if placed.placement is Placement.DEVICE)
        return {
            stage: resident + self._kept_bytes(stage, count) + self._peak_bytes(stage, count) for stage in _STAGES
        }

    @cached_property
    def peak_bytes(self) -> int:
        """Bytes of the stage that needs most."""
        return max(self.stage_bytes().values())

    @property
    def host_bytes(self) -> int:
        """Weights in host memory."""
        return sum(placed.bytes for _, placed in self.parts if placed.placement in _IN_HOST_MEMORY)

    @property
    def cost_seconds(self) -> float:
        """What candidates are ordered by: seconds, and what a changed image counts as."""
        skipped = any(placed.placement is Placement.SKIPPED for _, placed in self.parts)
        tiled, fp8 = self.strategy.tiled, self.strategy.fp8
        return self._extra_seconds + tiled * _TILED_SECONDS + fp8 * _FP8_SECONDS + skipped * _SKIPPED_SECONDS

    @property
    def name(self) -> str:
        """What differs from everything resident, in the order of the stages."""
        named = []
        for role, words in _ROLE_NAMES.items():
            placements = {placed.placement for _, placed in self.parts if placed.role is role}
            named += [f"{words} {_PLACEMENT_NAMES[one]}" for one in placements if one is not Placement.DEVICE]
        named += ["VAE tiled"] * self.strategy.tiled + ["denoiser in fp8"] * self.strategy.fp8
        return ", ".join(named) or "all resident"

    @property
    def _extra_seconds(self) -> float:
        """What the placements cost a request with a new prompt; computing may hide some of it."""
        seconds = 0.0
        for component, placed in self.parts:
            if placed.placement is Placement.ON_DEMAND:
                seconds += move_seconds(placed.bytes)
            elif placed.placement is Placement.STREAMED:
                runs = self.workload.steps if _STAGE_OF[placed.role] == "denoise" else 1
                seconds += stream_seconds(placed.bytes, runs)
            elif placed.placement is Placement.CPU:
                seconds += encode_seconds(component.bytes)
        return seconds

    @property
    def _tile_side(self) -> int | None:
        if not self.strategy.tiled:
            return None
        return next((component.tile_side for component, _ in self.parts if component.tile_side), None)

    def _of_stage(self, stage: str) -> list[tuple[Component, PlacedComponent]]:
        return [(component, placed) for component, placed in self.parts if _STAGE_OF[component.role] == stage]

    def _peak_bytes(self, stage: str, images: float) -> int:
        """Weights that come for a stage, and the activations of the component at work.

        Text encoders come one after the other; other components on demand come together, and one of them works.
        """
        weights, activations = [], []
        for component, placed in self._of_stage(stage):
            weights.append(placed.device_bytes if placed.placement is Placement.ON_DEMAND else 0)
            activations.append(self._component_bytes(component, placed, images, streamed=True))
        if stage == "encode":
            return max(map(sum, zip(weights, activations, strict=True)), default=0)
        return sum(weights) + max(activations, default=0)

    def _kept_bytes(self, stage: str, images: float) -> int:
        """Tensors that stay throughout a stage: input images; once prompts are encoded, embeddings and latents.

        ControlNet residuals stay until the images are decoded: the pipelines keep a reference to them.
        """
        shape = self.workload.shape
        values = images * shape.start_values
        if not self._encodes_controls:
            values += images * shape.control_values
        if stage != "encode":
            values += sum(component.activations.retained.values(shape, images) for component, _ in self.parts)
            values += self._residual_values(images)
        return int(values * self.model.value_bytes)

    @property
    def _encodes_controls(self) -> bool:
        return any(extra.activations.encodes_controls for extra in self.workload.extras)

    def _residual_values(self, images: float) -> float:
        """Residuals of one step; those of several ControlNets are added up, so the largest counts."""
        shape = self.workload.shape
        costs = (component.activations.residuals for component, _ in self.parts)
        return peak_values(costs, shape, images * shape.passes)

    def _activation_bytes(self, stage: str) -> int:
        """Bytes beyond all weights, for the workload's images."""
        images = self.workload.shape.images
        peaks = (self._component_bytes(component, placed, images) for component, placed in self._of_stage(stage))
        return self._kept_bytes(stage, images) + max(peaks, default=0)

    def _component_bytes(
        self, component: Component, placed: PlacedComponent, images: float, *, streamed: bool = False
    ) -> int:
        """Bytes that a component needs on the device while it works, beyond weights that are there anyway.

        Args:
            streamed: include weights that are streamed.
        """
        if placed.placement in (Placement.CPU, Placement.SKIPPED):
            return 0
        shape, value_bytes = self.workload.shape, component.value_bytes or self.model.value_bytes
        if component.role is Role.VAE:
            return int(self._vae_values(component, images) * value_bytes)
        passes = shape.passes if _STAGE_OF[component.role] == "denoise" else 1
        # Of several ControlNets, each works beside the sums so far.
        is_one_of_several = component.role is Role.CONTROLNET and shape.controls > 1
        before = self._residual_values(images) * is_one_of_several
        return max(
            int((cost.values(shape, images * passes, shape.pixels) + before) * value_bytes)
            + (_streamed_bytes(component, placed, cost.layers) if streamed else 0)
            for cost in self._costs(component)
        )

    def _costs(self, component: Component) -> tuple[ActivationCost, ...]:
        """A component's peaks, with those of the adapters that act on it."""
        activations = component.activations
        adapters = sum(extra.role is Role.ADAPTER for extra in self.workload.extras)
        costs = activations.peaks
        if adapters:
            costs += activations.one_adapter
        if adapters > 1:
            costs += activations.more_adapters
        return costs or (ActivationCost(),)

    def _vae_values(self, vae: Component, images: float) -> float:
        """Decoding, or encoding ControlNet images, once a pass; all images at once, or one by one in tiles."""
        shape, tile_side, activations = self.workload.shape, self._tile_side, vae.activations
        controls = images * shape.control_values if self._encodes_controls else 0.0
        if tile_side is None:
            rows = images * shape.passes if self._encodes_controls else 0
            encoding = peak_values(activations.encoding, shape, rows)
            return max(encoding + controls, peak_values(activations.peaks, shape, images))
        tile = min(shape.pixels, tile_side**2)
        image = _IMAGE_VALUES * shape.pixels
        tiles = _TILES_VALUES * shape.pixels * (shape.pixels > tile)
        finished = (images - 1) * image
        return max(
            peak_values(activations.peaks, shape, 1, tile) + tiles + finished,
            tiles + finished + 2 * image,
            # `VaeImageProcessor.denormalize`: all images beside two intermediate results.
            3 * images * image,
            peak_values(activations.encoding, shape, 1, tile) + controls,
        )

    def _images_that_fit(self, budget_bytes: int) -> float:
        """Images of this size that fit, to a fraction of an image."""
        low, high = 0, int(_MAX_IMAGES / _IMAGE_FRACTION)
        while low < high:
            middle = (low + high + 1) // 2
            fits = max(self.stage_bytes(middle * _IMAGE_FRACTION).values()) <= budget_bytes
            low, high = (middle, high) if fits else (low, middle - 1)
        return low * _IMAGE_FRACTION


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


def _place(
    component: Component, strategy: Strategy, model: ModelComponents, cpu_value_bytes: int
) -> PlacedComponent:
    placement = strategy.placement(component.role)
    share = 1.0
    if strategy.fp8 and component.role is Role.DENOISER:
        share = min(1.0, _FP8_BYTES / model.value_bytes + _FP8_UNCHANGED)
    elif placement is Placement.CPU:
        share = max(1.0, cpu_value_bytes / (component.value_bytes or model.value_bytes))
    whole, group = int(component.bytes * share), int(component.group_bytes * share)
    on_device = {Placement.DEVICE: whole, Placement.ON_DEMAND: whole, Placement.STREAMED: group}
    return PlacedComponent(
        name=component.name,
        role=component.role,
        placement=placement,
        bytes=0 if placement is Placement.SKIPPED else whole,
        device_bytes=on_device.get(placement, 0),
        groups=component.groups if placement is Placement.STREAMED else None,
        origin=component.origin,
    )


_ROLE_NAMES = {Role.TEXT_ENCODER: "text encoders", Role.T5: "T5", Role.DENOISER: "denoiser", Role.VAE: "VAE"}
_PLACEMENT_NAMES = {
    Placement.ON_DEMAND: "on demand",
    Placement.CPU: "on the CPU",
    Placement.STREAMED: "streamed",
    Placement.SKIPPED: "skipped",
}
