"""Carries a memory plan out: moves a model's components where the plan has them, and hooks them while they run.

What a plan is stands in `contracts/memory/plan.py`; which one is taken, `worker/pool/plan_selector.py` decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from threading import RLock
from typing import Any

import torch

from contracts.memory.plan import Placement, Plan
from worker.offload.copy_queue import queue_of
from worker.offload.offloaded_module import OffloadedModule
from worker.offload.on_demand import OnDemandSlot, hook_stage, remove_later
from worker.offload.streaming import Groups, StreamedModule, hook_streamed, split
from worker.runtime import slices
from worker.runtime.memory_tracker import MemoryTracker

#: The stage whose components run once a step, and may be streamed.
_DENOISE = "denoise"


class ComponentPlacement:
    """The components of one model, each where the plan has it.

    Attributes:
        plan: the one that was applied last; None while the model is in host memory, or after a move that failed.
    """

    def __init__(
        self,
        modules: Mapping[str, torch.nn.Module],
        device: torch.device,
        memory_tracker: MemoryTracker,
        lock: RLock,
    ) -> None:
        """`modules` have just been loaded into host memory; `lock` is held while one of them moves."""
        self.plan: Plan | None = None
        self._device = device
        self._memory_tracker = memory_tracker
        self._lock = lock
        self._slot = OnDemandSlot()
        self._components = {name: OffloadedModule(module, device) for name, module in modules.items()}
        # Kept, with the order of groups that they have learned.
        self._streams: dict[tuple[str, str], tuple[StreamedModule, list[torch.nn.Module]]] = {}

    @property
    def resident_bytes(self) -> int:
        """Weights that stay on the device."""
        return sum(component.resident_bytes for component in self._components.values())

    @property
    def resident_names(self) -> frozenset[str]:
        """Components whose weights stay on the device."""
        return frozenset(
            name for name, component in self._components.items() if component.placement is Placement.DEVICE
        )

    @property
    def bytes(self) -> int:
        """All weights."""
        return sum(component.bytes for component in self._components.values())

    @property
    def host_bytes(self) -> int:
        """Weights in host memory, with the copies kept there of weights on the device."""
        return sum(component.host_bytes for component in self._components.values())

    @property
    def device_bytes(self) -> dict[str, int]:
        """Component -> bytes that are on the device at this moment."""
        return {name: component.device_bytes for name, component in self._components.items()}

    @property
    def moved_bytes(self) -> dict[str, int]:
        """`device`, `host` -> weights that were moved there to stay, since the model was loaded."""
        moved = [component.moved_bytes for component in self._components.values()]
        return {place: sum(counts[place] for counts in moved) for place in ("device", "host")}

    @property
    def names(self) -> list[str]:
        """The components that are loaded."""
        return list(self._components)

    def add(self, name: str, module: torch.nn.Module) -> None:
        """Add a component that has just been loaded into host memory; it moves with the next `apply`."""
        # A new dictionary: the heartbeat's thread may be reading the old one.
        self._components = {**self._components, name: OffloadedModule(module, self._device)}

    def remove(self, name: str) -> None:
        """Forget a component that no job in flight uses; its memory is free once nothing else refers to it."""
        self._components = {other: component for other, component in self._components.items() if other != name}
        self._streams = {key: stream for key, stream in self._streams.items() if key[0] != name}

    def locations(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """Component -> its device, or `cpu`, `on_demand`, `streamed`, `skipped`."""
        components = self._components
        return {
            name: self._location(components[name].placement) for name in (components if names is None else names)
        }

    def apply(self, plan: Plan, spare_bytes: int = 0) -> None:
        """Move every component to its placement.

        Args:
            spare_bytes: device memory beyond the plan's peak. Components on the device that the plan does not
                name, such as ControlNets of other jobs, stay as far as they fit into it; others go to host memory.
        """
        self.plan = None
        placements = self._placements(plan, spare_bytes)
        placed = all(component.placement is placements[name] for name, component in self._components.items())
        with nullcontext() if placed else slices.holding(self._lock):
            # Components that leave the device make room for those that come.
            for name, component in sorted(
                self._components.items(), key=lambda item: placements[item[0]] is Placement.DEVICE
            ):
                component.move(placements[name])
        self.plan = plan

    @property
    def spare_bytes(self) -> int:
        """Weights on the device that the last plan does not name."""
        return sum(component.bytes for component in self._spare())

    def release_spare(self) -> None:
        """Move components that the last plan does not name to host memory."""
        with self._lock:
            for component in self._spare():
                component.move(Placement.SKIPPED)

    def release_host_copies(self) -> None:
        """Give the host copies of weights on the device back: to leave it again would then take a copy."""
        with self._lock:
            for component in self._components.values():
                component.release_host_copy()

    def move_to_host(self) -> None:
        """Move all components to host memory."""
        self.plan = None
        with self._lock:
            for component in self._components.values():
                component.move(Placement.SKIPPED)

    def placement_of(self, name: str) -> Placement | None:
        """Where a component is; None where that is unknown."""
        return self._components[name].placement if name in self._components else Placement.SKIPPED

    def arrivals(self, name: str) -> int:
        """How often a component was moved to the device to stay there."""
        return self._components[name].arrivals if name in self._components else 0

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Inside, weights on demand come for their stage and streamed ones group by group; afterwards none is
        left.

        Hooks run in the order in which they were set: those of adapters must be set before, or they would find the
        weights of their layers gone.
        """
        with ExitStack() as undo:
            undo.callback(self._slot.clear)
            streams = self._prepare_streams()
            for stage, group in self._stages().items():
                leave = [] if stage == _DENOISE else [stream.leave for stream, _ in streams.values()]
                hook_stage(list(group.values()), self._slot, undo, leave)
            for name, component in self._components.items():
                if name in streams:
                    stream, members = streams[name]
                    hook_streamed(component.module, members, stream, undo)
                elif component.placement is Placement.CPU:
                    module = component.module
                    remove_later(module.register_forward_pre_hook(lambda *_: self._memory_tracker.pause()), undo)
                    remove_later(module.register_forward_hook(lambda *_: self._memory_tracker.resume()), undo)
            if self.plan is not None and self.plan.tile_side is not None:
                for name, component in self._components.items():
                    if is_vae(name):
                        _tile(component.module, self.plan.tile_side, undo)
            yield

    def end_stage(self) -> None:
        """Discard the weights that were on demand for the stage that has just ended."""
        self._slot.clear()

    def _spare(self) -> list[OffloadedModule]:
        named = () if self.plan is None else self.plan.placements
        components = self._components.items() if self.plan is not None else ()
        return [
            component
            for name, component in components
            if name not in named and component.placement is Placement.DEVICE
        ]

    def _placements(self, plan: Plan, spare_bytes: int) -> dict[str, Placement]:
        placements = {name: plan.placements.get(name, Placement.SKIPPED) for name in self._components}
        for name, component in self._components.items():
            stays = component.placement is Placement.DEVICE and component.bytes <= spare_bytes
            if name not in plan.placements and stays:
                placements[name] = Placement.DEVICE
                spare_bytes -= component.bytes
        return placements

    def _stages(self) -> dict[str, dict[str, OffloadedModule]]:
        """Components that are on the device together: each text encoder alone, all that denoise, the VAE."""
        stages: dict[str, dict[str, OffloadedModule]] = {}
        for name, component in self._components.items():
            stage = name if name.startswith("text_encoder") or is_vae(name) else _DENOISE
            stages.setdefault(stage, {})[name] = component
        return stages

    def _prepare_streams(self) -> dict[str, tuple[StreamedModule, list[torch.nn.Module]]]:
        """Those of the streamed components, by name.

        A denoiser alone keeps its first group for its next run; beside a streamed ControlNet that would be one
        group more than planned.
        """
        streams = {
            name: self._stream(name, component)
            for name, component in self._components.items()
            if component.placement is Placement.STREAMED
        }
        denoising = [streams[name][0] for name in self._stages().get(_DENOISE, ()) if name in streams]
        for stream in denoising:
            stream.runs_again = len(denoising) == 1
        return streams

    def _stream(self, name: str, component: OffloadedModule) -> tuple[StreamedModule, list[torch.nn.Module]]:
        parts = () if self.plan is None else self.plan.components
        by: Groups = next((part.groups or "leaf" for part in parts if part.name == name), "leaf")
        if (name, by) not in self._streams:
            members, groups = split(component.module, by)
            self._streams[name, by] = (StreamedModule(component, groups, queue_of(self._device)), members)
        return self._streams[name, by]

    def _location(self, placement: Placement | None) -> str:
        if placement is Placement.DEVICE:
            return str(self._device)
        return "unknown" if placement is None else str(placement)


def is_vae(name: str) -> bool:
    """Whether a component is a VAE: the model's own, or one of the catalogue in its place."""
    return name == "vae" or name.startswith("vae:")


def _tile(vae: Any, side: int, undo: ExitStack) -> None:
    """Have the VAE work image by image in tiles of `side` pixels."""
    names = [name for name in (*_TILING, "use_tiling", "use_slicing") if hasattr(vae, name)]
    undo.callback(_set, vae, {name: getattr(vae, name) for name in names})
    if hasattr(vae, "tile_sample_min_height"):
        latent = side // vae.spatial_compression_ratio
        sizes = {"min": side, "stride": latent * 3 // 4 * vae.spatial_compression_ratio}
        tiles = {
            f"tile_sample_{kind}_{axis}": size for kind, size in sizes.items() for axis in ("height", "width")
        }
        if hasattr(vae, "tile_latent_min_height"):
            tiles |= {"tile_latent_min_height": latent, "tile_latent_min_width": latent}
    else:
        scale = 2 ** (len(vae.config.block_out_channels) - 1)
        tiles = {"tile_sample_min_size": side, "tile_latent_min_size": side // scale}
    _set(vae, {**tiles, "use_tiling": True, "use_slicing": True})


#: Sizes of tiles, of the VAEs of images and of those of videos.
_TILING = (
    "tile_sample_min_size", "tile_latent_min_size", "tile_sample_min_height", "tile_sample_min_width",
    "tile_sample_stride_height", "tile_sample_stride_width", "tile_latent_min_height", "tile_latent_min_width",
)  # fmt: skip


def _set(module: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(module, name, value)
