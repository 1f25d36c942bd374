"""Applies a memory plan: moves a model's components, and has them come and go while a batch runs.

What a plan is and which one is used is decided in `contracts/memory/planner.py` and `worker/pool/plans.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from contracts.memory.plan import Placement, Plan
from worker.offload.components import OffloadedModule, OnDemandSlot, StreamedModule
from worker.runtime.memory_tracker import MemoryTracker


class ComponentPlacement:
    """The components of one model, each placed where the plan has it.

    Attributes:
        plan: the one that was taken last; None while the model is parked, or in doubt.
    """

    def __init__(
        self,
        modules: Mapping[str, torch.nn.Module],
        device: torch.device,
        memory_tracker: MemoryTracker,
        turn: AbstractContextManager[Any],
    ) -> None:
        """`modules` have just been loaded, into host memory; `turn` is held while one of them moves."""
        self.plan: Plan | None = None
        self._device = device
        self._meter = memory_tracker
        self._turn = turn
        self._turns = OnDemandSlot()
        self._housed = {name: OffloadedModule(module, device) for name, module in modules.items()}

    @property
    def resident_bytes(self) -> int:
        """Weights that are on the device between batches."""
        return sum(housed.resident_bytes for housed in self._housed.values())

    @property
    def bytes(self) -> int:
        """All weights."""
        return sum(housed.bytes for housed in self._housed.values())

    @property
    def host_bytes(self) -> int:
        """Weights that are in host memory."""
        return sum(housed.bytes - housed.resident_bytes for housed in self._housed.values())

    @property
    def device_bytes(self) -> dict[str, int]:
        """Component -> bytes that are on the device at this moment."""
        return {name: housed.device_bytes for name, housed in self._housed.items()}

    @property
    def names(self) -> list[str]:
        """The components that are loaded."""
        return list(self._housed)

    def add(self, name: str, module: torch.nn.Module) -> None:
        """One more component, just loaded into host memory; it moves with the next `apply`."""
        # A new dictionary: the heartbeat's thread may be reading the old one.
        self._housed = {**self._housed, name: OffloadedModule(module, self._device)}

    def locations(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """Component -> its device, or `cpu`, `on_demand`, `streamed`, `skipped`."""
        housed = self._housed
        return {name: self._word(housed[name].placement) for name in (housed if names is None else names)}

    def apply(self, plan: Plan) -> None:
        """Move every component to its placement; those that the plan does not name are parked."""
        self.plan = None
        placements = {name: plan.placements.get(name, Placement.SKIPPED) for name in self._housed}
        placed = all(housed.placement is placements[name] for name, housed in self._housed.items())
        with nullcontext() if placed else self._turn:
            # Who leaves the device makes the room for who comes.
            for name, housed in sorted(
                self._housed.items(), key=lambda item: placements[item[0]] is Placement.DEVICE
            ):
                housed.move(placements[name])
        self.plan = plan

    def move_to_host(self) -> None:
        """All into host memory."""
        self.plan = None
        with self._turn:
            for housed in self._housed.values():
                housed.move(Placement.SKIPPED)

    def placement_of(self, name: str) -> Placement | None:
        """Where a component lives; None where that is unknown."""
        return self._housed[name].placement if name in self._housed else Placement.SKIPPED

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Inside, what visits comes for its stage, what is streamed comes group by group; nothing stays behind.

        Hooks run in the order in which they were set: adapters must act already, or they would find the weights
        of their layers gone.
        """
        with ExitStack() as undo:
            undo.callback(self._turns.end)
            for group in self._groups():
                self._announce(group, undo)
            for housed in self._housed.values():
                if housed.placement is Placement.STREAMED:
                    _stream(housed, self._streamed_by(housed), undo)
                elif housed.placement is Placement.CPU:
                    _hold(housed.module.register_forward_pre_hook(lambda *_: self._meter.pause()), undo)
                    _hold(housed.module.register_forward_hook(lambda *_: self._meter.resume()), undo)
            if self.plan is not None and self.plan.tile_side is not None:
                _tile(self._housed["vae"].module, self.plan.tile_side, undo)
            yield

    def end_stage(self) -> None:
        """Visitors of the stage that has just ended leave now, not when the next ones come."""
        self._turns.end()

    def _groups(self) -> list[list[OffloadedModule]]:
        """Who is on the device together: each text encoder by itself, what denoises, the VAE."""
        stages: dict[str, list[OffloadedModule]] = {}
        for name, housed in self._housed.items():
            stage = name if name.startswith("text_encoder") or name == "vae" else "denoise"
            stages.setdefault(stage, []).append(housed)
        return list(stages.values())

    def _announce(self, group: list[OffloadedModule], undo: ExitStack) -> None:
        """Whichever of the group runs first brings its visitors in, and sends those of another stage away."""
        visitors = [housed for housed in group if housed.placement is Placement.ON_DEMAND]
        for housed in group:
            if housed.placement not in (None, Placement.SKIPPED):
                for module, dtype in _entrances(housed.module):
                    hook = partial(_enter, self._turns, visitors, housed.computes_on, dtype)
                    _hold(module.register_forward_pre_hook(hook, with_kwargs=True), undo)

    def _streamed_by(self, housed: OffloadedModule) -> str:
        name = next(name for name, one in self._housed.items() if one is housed)
        parts = () if self.plan is None else self.plan.components
        return next((part.groups or "leaf" for part in parts if part.name == name), "leaf")

    def _word(self, placement: Placement | None) -> str:
        if placement is Placement.DEVICE:
            return str(self._device)
        return "unknown" if placement is None else str(placement)


def _enter(
    turns: OnDemandSlot,
    visitors: Sequence[OffloadedModule],
    device: torch.device,
    dtype: torch.dtype | None,
    module: Any,
    args: Any,
    kwargs: Any,
) -> tuple[Any, Any]:
    del module
    turns.take(visitors)
    return _moved(args, device, dtype), _moved(kwargs, device, dtype)


def _moved(given: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """Arguments with their tensors on a device; torch's own walk through a tree is dear at every step."""
    if isinstance(given, torch.Tensor):
        return given.to(device, dtype)
    if type(given) is dict:
        return {name: _moved(value, device, dtype) for name, value in given.items()}
    if type(given) in (list, tuple):
        return type(given)(_moved(value, device, dtype) for value in given)
    return given


def _entrances(module: Any) -> list[tuple[torch.nn.Module, torch.dtype | None]]:
    """The modules whose call means that this one runs, with the dtype that they want, where that is their own.

    `encode` and `decode` of a VAE go past its forward, and its dtype may be another than the pipeline's.
    """
    if hasattr(module, "decode"):
        dtype = module.dtype  # found by a walk through all layers
        return [(child, dtype) for child in module.children()]
    return [(module, None)]


def _stream(housed: OffloadedModule, by: str, undo: ExitStack) -> None:
    """Hook a module so that its weights come group by group; the rest comes for the whole of its forward."""
    module = housed.module
    members = _blocks(module) if by == "block" else [one for one in module.modules() if _own(one)]
    groups = [list(dict.fromkeys(_all(one) if by == "block" else _own(one))) for one in members]
    grouped = {id(tensor) for group in groups for tensor in group}
    loose = [tensor for tensor in housed.tensors if id(tensor) not in grouped]
    stream = StreamedModule(housed, groups)

    def begin(*_: Any) -> None:
        housed.fetch(loose)
        stream.begin()

    _hold(module.register_forward_pre_hook(begin, prepend=True), undo)
    for index, member in enumerate(members):
        _hold(member.register_forward_pre_hook(lambda *_, index=index: stream.need(index)), undo)
        _hold(member.register_forward_hook(lambda *_, index=index: stream.done(index)), undo)
    _hold(module.register_forward_hook(lambda *_: stream.end()), undo)
    undo.callback(stream.end)


def _blocks(module: torch.nn.Module) -> list[torch.nn.Module]:
    """The members of the module lists that are the module's direct children."""
    return [block for child in module.children() if isinstance(child, torch.nn.ModuleList) for block in child]


def _all(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _own(module: torch.nn.Module) -> list[torch.Tensor]:
    """Tensors of the module itself, not of those inside it."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _tile(vae: Any, side: int, undo: ExitStack) -> None:
    """Have the VAE work image by image in tiles of `side` pixels."""
    before = (vae.tile_sample_min_size, vae.tile_latent_min_size, vae.use_tiling, vae.use_slicing)
    undo.callback(_set_tiling, vae, *before)
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    _set_tiling(vae, side, side // scale, True, True)


def _set_tiling(vae: Any, sample: int, latent: int, tiling: bool, slicing: bool) -> None:
    vae.tile_sample_min_size, vae.tile_latent_min_size = sample, latent
    vae.use_tiling, vae.use_slicing = tiling, slicing


def _hold(hook: RemovableHandle, undo: ExitStack) -> None:
    undo.callback(hook.remove)
