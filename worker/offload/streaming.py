"""Components whose weights are on the device group by group: the next is copied while the last one computes.

As diffusers' group offloading does, but with at most two groups on the device and weights that are never written
back. Knows neither plans nor models.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal

import torch

from worker.offload.offloaded_module import OffloadedModule
from worker.offload.on_demand import remove_later
from worker.runtime.device import copy_stream

Groups = Literal["block", "leaf"]


class StreamedModule:
    """One module whose groups of weights come and go while it runs.

    The order in which groups are needed is learned in the first run and kept. On CUDA, copies run on the device's
    copy stream; the compute stream waits for them by events. The host waits only for the group before the one that
    computes, so that the device always has a group queued and never holds more than two.
    """

    def __init__(self, offloaded: OffloadedModule, groups: Sequence[Sequence[torch.Tensor]]) -> None:
        self._offloaded = offloaded
        self._groups = groups
        grouped = {id(tensor) for group in groups for tensor in group}
        #: Weights of no group, which are there for the whole of a forward.
        self._others = [tensor for tensor in offloaded.tensors if id(tensor) not in grouped]
        self._next: dict[int | None, int] = {}
        self._last: int | None = None
        self._ahead: int | None = None
        device = offloaded.computes_on
        self._copies: Any = copy_stream(device) if device.type == "cuda" else None
        self._copied: dict[int, Any] = {}
        self._used: deque[tuple[Any, list[torch.Tensor]]] = deque()

    def begin(self) -> None:
        """The module's forward begins."""
        self._offloaded.fetch(self._others)
        self._last = None
        if self._copies is not None:
            self._fetch_ahead(self._next.get(None))

    def need(self, index: int) -> None:
        """A group computes next."""
        if self._ahead is not None and self._ahead != index:
            # Another order than the last time: drop the copy, with the event that tells of it.
            self._copied.pop(self._ahead, None)
            self._offloaded.discard(self._groups[self._ahead])
        self._ahead = None
        self._fetch(index)
        if self._copies is not None:
            event = self._copied.pop(index, None)
            if event is not None:
                torch.cuda.current_stream(self._offloaded.computes_on).wait_event(event)
        self._next[self._last] = index
        self._last = index
        if self._copies is None:
            # A CPU that stands for a device computes at once: only here are two groups there as on CUDA.
            self._fetch_ahead(self._next.get(index))

    def done(self, index: int) -> None:
        """A group has computed, or on CUDA is queued to."""
        group = self._groups[index]
        if self._copies is not None:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._offloaded.computes_on))
            # Copies were allocated on the copy stream, which may reuse them once the compute stream is past them.
            self._used.append((event, [tensor.data for tensor in group]))
            self._offloaded.discard(group)
            self._wait(1)
            self._fetch_ahead(self._next.get(index))
        else:
            self._offloaded.discard(group)

    def end(self) -> None:
        """Discard everything."""
        self._ahead = None
        self._copied.clear()
        self._wait(0)
        self._offloaded.discard()

    def _wait(self, remaining: int) -> None:
        while len(self._used) > remaining:
            event, _ = self._used.popleft()
            event.synchronize()

    def _fetch_ahead(self, index: int | None) -> None:
        if index is not None and index != self._last:
            self._fetch(index)
            self._ahead = index

    def _fetch(self, index: int) -> None:
        if self._copies is None:
            self._offloaded.fetch(self._groups[index])
        elif index not in self._copied:
            with torch.cuda.stream(self._copies):
                self._offloaded.fetch(self._groups[index])
                self._copied[index] = torch.cuda.Event()  # type: ignore[no-untyped-call]
                self._copied[index].record(self._copies)


def split(module: torch.nn.Module, by: Groups) -> tuple[list[torch.nn.Module], list[list[Any]]]:
    """The submodules that are streamed one by one, and the weights of each.

    Args:
        by: `block`: the members of module lists that are direct children; `leaf`: every module with weights of its
            own, without those inside it.
    """
    if by == "block":
        lists = [child for child in module.children() if isinstance(child, torch.nn.ModuleList)]
        members = [block for blocks in lists for block in blocks]
        groups = [list(dict.fromkeys((*block.parameters(), *block.buffers()))) for block in members]
    else:
        members = [part for part in module.modules() if _own_tensors(part)]
        groups = [list(dict.fromkeys(_own_tensors(part))) for part in members]
    return members, groups


def hook_streamed(
    module: torch.nn.Module, members: Sequence[torch.nn.Module], stream: StreamedModule, undo: ExitStack
) -> None:
    """Hook a module so that its weights come group by group.

    Args:
        undo: removes the hooks and discards what is left.
    """
    undo.callback(stream.end)
    remove_later(module.register_forward_pre_hook(lambda *_: stream.begin(), prepend=True), undo)
    for index, member in enumerate(members):
        remove_later(member.register_forward_pre_hook(lambda *_, index=index: stream.need(index)), undo)
        remove_later(member.register_forward_hook(lambda *_, index=index: stream.done(index)), undo)
    remove_later(module.register_forward_hook(lambda *_: stream.end()), undo)


def _own_tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]
