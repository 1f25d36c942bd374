"""What one strategy needs for one workload: bytes on the device in each stage, bytes in host memory, seconds.

Chooses nothing: `planner.py` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from contracts.byte_sizes import gib
from contracts.memory.plan import PlacedComponent, Placement, Plan, Strategy
from contracts.memory.seconds import encode_seconds, move_seconds, stream_seconds
from contracts.memory.sizes.component import Component, ModelComponents, Role
from contracts.memory.stage_bytes import STAGE_OF, Known, StageBytes
from contracts.memory.workload import Workload

#: Seconds that a plan must save to be worth a changed image: tiles change it slightly, 8 bits visibly, and
#: without T5 it is a different image, which is the last resort.
_TILED_SECONDS, _FP8_SECONDS, _SKIPPED_SECONDS = 0.15, 3.0, 1e6
#: What compiled blocks save a request at least; less than any move of weights, so that slots are given up first.
_UNCOMPILED_SECONDS = 0.01
#: The same of CUDA graphs, which are given up before the slots.
_NO_GRAPHS_SECONDS = 0.005
#: Bytes of a weight in 8 bits, and the share of weights that stay as they are (norms, embeddings).
_FP8_BYTES, _FP8_UNCHANGED = 1, 0.02
#: Maximum of images in a call, and the fraction of an image to which the number that fits is found.
_MAX_IMAGES, _IMAGE_FRACTION = 1024, 1 / 16
#: In host memory, wholly or until they are needed.
_IN_HOST_MEMORY = (Placement.ON_DEMAND, Placement.STREAMED, Placement.CPU)


@dataclass(frozen=True, eq=False)
class Estimate:
    """Bytes and seconds of one strategy for one workload.

    Attributes:
        known: as in `StageBytes`.
        uncompiled: whether LoRAs turn compilation off, because the plan has no room for their slots.
        graphs: whether CUDA graphs of the denoiser are replayed; None: they cannot be, whatever room there is.
    """

    strategy: Strategy
    model: ModelComponents
    workload: Workload
    parts: tuple[tuple[Component, PlacedComponent], ...]
    known: Known
    uncompiled: bool = False
    graphs: bool | None = None

    @classmethod
    def of(
        cls,
        strategy: Strategy,
        model: ModelComponents,
        workload: Workload,
        cpu_value_bytes: int = 4,
        *,
        uncompiled: bool = False,
        graphs: bool | None = None,
        known: Known | None = None,
    ) -> Estimate:
        """Place every component of the model and every extra of the workload.

        Args:
            cpu_value_bytes: as in `Policy`.
            uncompiled, graphs, known: as the attributes; `known` is None where nothing is known yet.
        """
        known = {} if known is None else known
        placed = []
        for component in (*model.components, *workload.extras):
            placement = strategy.placement(component.role)
            key = (id(component), placement, strategy.fp8)
            if key not in known:
                known[key] = _place(component, placement, strategy, model, cpu_value_bytes)
            placed.append((component, known[key]))
        return cls(strategy, model, workload, tuple(placed), known, uncompiled, graphs)

    def plan(self, budget_bytes: int) -> Plan:
        """The strategy as a plan within this budget."""
        shape, peak_bytes, room = self.workload.shape, self.peak_bytes, self._images_that_fit(budget_bytes)
        fits = peak_bytes <= budget_bytes
        return Plan(
            model=self.model.model,
            name=self.name,
            components=tuple(placed for _, placed in self.parts),
            tile_side=self._stages.tile_side,
            fp8=self.strategy.fp8,
            stage_bytes=self.stage_bytes,
            activation_bytes=self._stages.activation_bytes(),
            graph_bytes=self._stages.graph_bytes(shape.images) if self.graphs else None,
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

    @cached_property
    def stage_bytes(self) -> dict[str, int]:
        """Weights and activations on the device in each stage, for the workload's images."""
        return self._stages.of_call(self.workload.shape.images)

    @property
    def peak_bytes(self) -> int:
        """Bytes of the stage that needs most."""
        return max(self.stage_bytes.values())

    @property
    def host_bytes(self) -> int:
        """Weights in host memory."""
        return sum(placed.bytes for _, placed in self.parts if placed.placement in _IN_HOST_MEMORY)

    @property
    def cost_seconds(self) -> float:
        """What candidates are ordered by: seconds, and what a changed image counts as."""
        skipped = any(placed.placement is Placement.SKIPPED for _, placed in self.parts)
        tiled, fp8 = self.strategy.tiled, self.strategy.fp8
        changed = tiled * _TILED_SECONDS + fp8 * _FP8_SECONDS + skipped * _SKIPPED_SECONDS
        given_up = self.uncompiled * _UNCOMPILED_SECONDS + (self.graphs is False) * _NO_GRAPHS_SECONDS
        return self._extra_seconds + changed + given_up

    @property
    def name(self) -> str:
        """What differs from everything resident, in the order of the stages."""
        named = []
        for role, words in _ROLE_NAMES.items():
            placements = {placed.placement for _, placed in self.parts if placed.role is role}
            named += [f"{words} {_PLACEMENT_NAMES[one]}" for one in placements if one is not Placement.DEVICE]
        named += ["VAE tiled"] * self.strategy.tiled + ["denoiser in fp8"] * self.strategy.fp8
        named += ["LoRAs uncompiled"] * self.uncompiled + ["no CUDA graphs"] * (self.graphs is False)
        return ", ".join(named) or "all resident"

    @property
    def _extra_seconds(self) -> float:
        """What the placements cost a request with a new prompt; computing may hide some of it."""
        seconds = 0.0
        for component, placed in self.parts:
            if placed.placement is Placement.ON_DEMAND:
                seconds += move_seconds(placed.bytes)
            elif placed.placement is Placement.STREAMED:
                runs = self.workload.steps if STAGE_OF[placed.role] == "denoise" else 1
                seconds += stream_seconds(placed.bytes, runs)
            elif placed.placement is Placement.CPU:
                # Weights of 8 bits are unpacked first, and take as long as those of 16.
                seconds += encode_seconds(component.bytes + component.packed_bytes)
        return seconds

    @cached_property
    def _stages(self) -> StageBytes:
        tile_sides = (component.tile_side for component, _ in self.parts if component.tile_side)
        tile_side = next(tile_sides, None) if self.strategy.tiled else None
        return StageBytes(
            self.parts, self.workload, self.model.value_bytes, tile_side, self.known, bool(self.graphs)
        )

    def _images_that_fit(self, budget_bytes: int) -> float:
        """Images of this size that fit, to a fraction of an image."""

        def needed(count: int) -> int:
            return max(self._stages.of_call(count * _IMAGE_FRACTION).values())

        low, high = 0, int(_MAX_IMAGES / _IMAGE_FRACTION)
        at_low, at_high = needed(low), needed(high)
        if at_high <= budget_bytes or at_low > budget_bytes:
            return high * _IMAGE_FRACTION if at_high <= budget_bytes else 0.0
        halves = False
        while high - low > 1:
            # Bytes grow nearly in proportion; every second look halves what is left, where they do not.
            share = 0.5 if halves else (budget_bytes - at_low) / (at_high - at_low)
            middle = min(max(low + int((high - low) * share), low + 1), high - 1)
            halves, at_middle = not halves, needed(middle)
            if at_middle <= budget_bytes:
                low, at_low = middle, at_middle
            else:
                high, at_high = middle, at_middle
        return low * _IMAGE_FRACTION


def _place(
    component: Component, placement: Placement, strategy: Strategy, model: ModelComponents, cpu_value_bytes: int
) -> PlacedComponent:
    share = 1.0
    if strategy.fp8 and component.role is Role.DENOISER:
        share = min(1.0, _FP8_BYTES / model.value_bytes + _FP8_UNCHANGED)
    elif placement is Placement.CPU:
        share = max(1.0, cpu_value_bytes / (component.value_bytes or model.value_bytes))
    packed = component.packed_bytes
    whole, group = packed + int((component.bytes - packed) * share), int(component.group_bytes * share)
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
