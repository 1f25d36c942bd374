"""What one way to place a model's components takes: in bytes, stage by stage, and in seconds.

Chooses none: `placement.py` does. The seconds are arithmetic on published figures; none was measured on the device
at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from contracts.memory.activations import NO_WORK, peak_values
from contracts.memory.components import Component, ModelComponents, Role
from contracts.memory.plan import PlacedComponent, Placement, Plan, Strategy, Workload, gib

#: Pinned host memory to the device, bytes a second: others measured 20–25 GB/s over PCIe 4 × 16.
_TRANSFER_BYTES_A_SECOND = 20e9
#: Moving groups back and forth takes longer than one copy: FLUX.1 streamed by leaves took 1.86 s a step, where
#: its 23.8 GB would cross in 1.19 s (diffusers' own benchmarks).
_STREAMING_FACTOR = 1.86 / 1.19
#: What fetching a component costs beside its bytes, so that none is moved for nothing.
_MOVE_SECONDS = 0.02
#: T5-XXL (9.5 GB in two bytes a value) read 512 tokens in 60 core-seconds; eight cores share them.
_CPU_SECONDS_A_BYTE = 60 / 8 / 9.5e9
#: Seconds that a plan must save to be worth a changed image: tiles change it slightly, 8 bits visibly, and
#: without T5 it is another image, which is the last resort.
_TILED_SECONDS, _FP8_SECONDS, _SKIPPED_SECONDS = 0.15, 3.0, 1e6
#: Bytes of a weight in 8 bits, and the share of norms and embeddings that stay as they are.
_FP8_BYTES, _FP8_KEPT = 1, 0.02
#: No batch is larger, whatever fits; sizes of batches are found to this fraction of an image.
_MAX_IMAGES, _IMAGE_FRACTION = 1024, 1 / 16
#: Values of a pixel where images are decoded one by one and by tiles: an image, and its tiles, which overlap by a
#: quarter.
_IMAGE_VALUES, _TILES_VALUES = 3, 5

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
    """One way taken with one load: bytes by stage, seconds, and the plan that says so."""

    strategy: Strategy
    model: ModelComponents
    workload: Workload
    parts: tuple[tuple[Component, PlacedComponent], ...]

    @classmethod
    def of(cls, strategy: Strategy, model: ModelComponents, workload: Workload) -> Estimate:
        """Place every component."""
        components = (*model.components, *workload.extras)
        return cls(strategy, model, workload, tuple((one, _place(one, strategy, model)) for one in components))

    def plan(self, budget_bytes: int) -> Plan:
        """What the way means for a budget."""
        shape, peak_bytes, room = self.workload.shape, self.peak_bytes, self._room(budget_bytes)
        fits = peak_bytes <= budget_bytes
        return Plan(
            model=self.model.model,
            name=self.name,
            components=tuple(placed for _, placed in self.parts),
            tile_side=self._tile_side,
            fp8=self.strategy.fp8,
            stage_bytes=self.stage_bytes(),
            activation_bytes=max(self._work(stage, shape.images) for stage in _STAGES),
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
        """Weights and activations on the device in each stage; of the load's images, or of so many."""
        count = self.workload.shape.images if images is None else images
        stays = sum(placed.device_bytes for _, placed in self.parts if placed.placement is Placement.DEVICE)
        return {stage: stays + self._kept(stage, count) + self._at_work(stage, count) for stage in _STAGES}

    @cached_property
    def peak_bytes(self) -> int:
        """Of the stage that needs most."""
        return max(self.stage_bytes().values())

    @property
    def host_bytes(self) -> int:
        """Parked or computed in host memory."""
        return sum(
            one.bytes
            for _, one in self.parts
            if one.placement in (Placement.ON_DEMAND, Placement.STREAMED, Placement.CPU)
        )

    @property
    def cost_seconds(self) -> float:
        """What the ladder is ordered by: seconds, and what a changed image is worth."""
        dropped = any(placed.placement is Placement.SKIPPED for _, placed in self.parts)
        changed = (
            self.strategy.tiled * _TILED_SECONDS + self.strategy.fp8 * _FP8_SECONDS + dropped * _SKIPPED_SECONDS
        )
        return self._extra_seconds + changed

    @property
    def _extra_seconds(self) -> float:
        """What the placements cost a request whose prompt is new; work hides some of it."""
        seconds = 0.0
        for _, placed in self.parts:
            transfer = _MOVE_SECONDS + placed.bytes / _TRANSFER_BYTES_A_SECOND
            if placed.placement is Placement.ON_DEMAND:
                seconds += transfer
            elif placed.placement is Placement.STREAMED:
                times = self.workload.steps if _STAGE_OF[placed.role] == "denoise" else 1
                seconds += transfer * _STREAMING_FACTOR * times
            elif placed.placement is Placement.CPU:
                seconds += _CPU_SECONDS_A_BYTE * placed.bytes
        return seconds

    @property
    def _tile_side(self) -> int | None:
        if not self.strategy.tiled:
            return None
        return next((one.tile_side for one, _ in self.parts if one.tile_side), None)

    def _of_stage(self, stage: str) -> list[tuple[Component, PlacedComponent]]:
        return [(one, placed) for one, placed in self.parts if _STAGE_OF[one.role] == stage]

    def _at_work(self, stage: str, images: float) -> int:
        """Bytes of the weights that come for a stage, and of its work.

        Text encoders come one after the other; all other visitors of a stage together, and one of them works.
        """
        parts = self._of_stage(stage)
        visits = {
            one.name: placed.device_bytes * (placed.placement is Placement.ON_DEMAND) for one, placed in parts
        }
        works = {one.name: self._work_of(one, placed, images, weights=True) for one, placed in parts}
        if stage == "encode":
            return max((visits[name] + works[name] for name in works), default=0)
        return sum(visits.values()) + max(works.values(), default=0)

    def _kept(self, stage: str, images: float) -> int:
        """Bytes that stand beside the work of a stage: pictures, and once prompts are encoded what comes of them.

        What ControlNets hand over stands there until the images are decoded: the pipelines do not let go of it.
        """
        shape = self.workload.shape
        values = images * shape.start_values
        if not any(extra.encodes_controls for extra in self.workload.extras):
            values += images * shape.control_values
        if stage != "encode":
            values += sum(one.held.values(shape, images) for one, _ in self.parts)
            values += self._handed_values(images)
        return int(values * self.model.value_bytes)

    def _handed_values(self, images: float) -> float:
        """What the ControlNets hand over in one step: of several, the sums."""
        shape = self.workload.shape
        return peak_values((one.handed for one, _ in self.parts), shape, images * shape.passes)

    def _work(self, stage: str, images: float) -> int:
        works = (self._work_of(one, placed, images) for one, placed in self._of_stage(stage))
        return self._kept(stage, images) + max(works, default=0)

    def _work_of(
        self, component: Component, placed: PlacedComponent, images: float, *, weights: bool = False
    ) -> int:
        """Bytes that a component takes on the device beyond its weights.

        Args:
            weights: with those that are streamed.
        """
        if placed.placement in (Placement.CPU, Placement.SKIPPED):
            return 0
        shape, size = self.workload.shape, component.value_bytes or self.model.value_bytes
        if component.role is Role.VAE:
            return int(self._vae_values(component, images) * size)
        passes = shape.passes if _STAGE_OF[component.role] == "denoise" else 1
        adapters = sum(extra.role is Role.ADAPTER for extra in self.workload.extras)
        adapted = component.adapted[adapters > 1] if adapters else ()
        moments = (*component.work, *adapted) or (NO_WORK,)
        # The dictionary behind `locals()`, which the pipelines ask for after every step, keeps what was handed
        # over in that step; of several ControlNets, each works beside the sums so far.
        twice = component.role is Role.DENOISER or (component.role is Role.CONTROLNET and shape.controls > 1)
        before = self._handed_values(images) * twice
        return max(
            int((peak_values((moment,), shape, images * passes) + before) * size)
            + (_streamed_bytes(component, placed, moment.layers) if weights else 0)
            for moment in moments
        )

    def _vae_values(self, vae: Component, images: float) -> float:
        """Decoding, or encoding the pictures of ControlNets, which guidance doubles; whole, or by tiles."""
        shape, tile_side = self.workload.shape, self._tile_side
        encodes = any(extra.encodes_controls for extra in self.workload.extras)
        pictures = images * shape.control_values if encodes else 0.0
        if tile_side is None:
            doubled = shape.passes if encodes else 0
            encoding = peak_values(vae.encoding, shape, images * doubled)
            return max(encoding + pictures, peak_values(vae.work, shape, images))
        side = min(shape.pixels, tile_side**2)
        tiles = _TILES_VALUES * shape.pixels * (shape.pixels > side)
        before = _IMAGE_VALUES * (images - 1) * shape.pixels
        image = _IMAGE_VALUES * shape.pixels
        return max(
            peak_values(vae.work, shape, 1, side) + tiles + before,
            tiles + before + 2 * image,
            2 * images * image,
            peak_values(vae.encoding, shape, 1, side) + pictures,
        )

    def _room(self, budget_bytes: int) -> float:
        """Images of this size that fit, a fraction included."""
        low, high = 0, int(_MAX_IMAGES / _IMAGE_FRACTION)
        while low < high:
            middle = (low + high + 1) // 2
            fits = max(self.stage_bytes(middle * _IMAGE_FRACTION).values()) <= budget_bytes
            low, high = (middle, high) if fits else (low, middle - 1)
        return low * _IMAGE_FRACTION

    @property
    def name(self) -> str:
        """What differs from everything resident, in the order of the work."""
        named = []
        for role, words in _WORDS.items():
            placements = {placed.placement for _, placed in self.parts if placed.role is role}
            named += [
                f"{words} {_DOES[placement]}" for placement in placements if placement is not Placement.DEVICE
            ]
        named += ["VAE tiled"] * self.strategy.tiled + ["denoiser in fp8"] * self.strategy.fp8
        return ", ".join(named) or "all resident"


def _streamed_bytes(component: Component, placed: PlacedComponent, layers: int | None) -> int:
    """Bytes of the weights that are there at one moment, where they come and go while the component works."""
    if placed.placement is not Placement.STREAMED:
        return 0
    if placed.groups == "block" or layers is None:
        return placed.device_bytes
    share = placed.bytes / component.bytes if component.bytes else 1.0
    return min(placed.device_bytes, int(layers * component.value_bytes * share))


def _place(component: Component, strategy: Strategy, model: ModelComponents) -> PlacedComponent:
    placement = strategy.placement(component.role)
    share = 1.0
    if strategy.fp8 and component.role is Role.DENOISER:
        share = min(1.0, _FP8_BYTES / model.value_bytes + _FP8_KEPT)
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


_WORDS = {Role.TEXT_ENCODER: "text encoders", Role.T5: "T5", Role.DENOISER: "denoiser", Role.VAE: "VAE"}
_DOES = {
    Placement.ON_DEMAND: "on demand",
    Placement.CPU: "on the CPU",
    Placement.STREAMED: "streamed",
    Placement.SKIPPED: "skipped",
}
