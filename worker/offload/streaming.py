"""Components whose weights are on the device group by group: the next is copied while the last one computes.

As diffusers' group offloading does, but with at most two groups on the device and weights that are never written
back. Knows neither plans nor models.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal

import torch

from worker.offload.copy_queue import CopyQueue
from worker.offload.offloaded_module import OffloadedModule
from worker.offload.on_demand import remove_later
from worker.offload.stored_tensors import own_tensors, stored_tensors

Groups = Literal["block", "leaf"]


class StreamedModule:
    """One module whose groups of weights come and go while it runs.

    The order in which groups are needed is learned in the first run and kept for as long as the model is loaded.
    On CUDA, copies run on the device's copy stream, and each stream waits for the other's events; the host waits
    for neither. A group's memory is freed one group later, when the copy stream has been told to wait for its
    use, so the next group takes its place.

    Attributes:
        runs_again: whether a run is usually followed by another one, as the steps of a denoiser are: its last
            group then computes while the first one of the next run is copied.
    """

    def __init__(
        self, offloaded: OffloadedModule, groups: Sequence[Sequence[torch.Tensor]], queue: CopyQueue | None
    ) -> None:
        """`queue` None: the CPU stands for a device."""
        self.runs_again = False
        self._offloaded = offloaded
        self._groups = groups
        grouped = {id(tensor) for group in groups for tensor in group}
        #: Weights of no group, which are there for the whole of a forward.
        self._others = [tensor for tensor in offloaded.tensors if id(tensor) not in grouped]
        self._next: dict[int | None, int] = {}
        self._last: int | None = None
        self._ahead: int | None = None
        self._queue = queue
        self._copied: dict[int, Any] = {}
        self._used: tuple[Any, list[torch.Tensor]] | None = None

    def begin(self) -> None:
        """The module's forward begins."""
        self._offloaded.fetch(self._others)
        self._last = None
        if self._queue is not None and self._ahead is None:
            self._fetch_ahead(self._next.get(None))

    def need(self, index: int) -> None:
        """A group computes next."""
        if self._ahead is not None and self._ahead != index:
            # Another order than the last time: drop the copy, with the event that tells of it.
            self._copied.pop(self._ahead, None)
            self._offloaded.discard(self._groups[self._ahead])
        self._ahead = None
        self._fetch(index)
        if self._queue is not None:
            event = self._copied.pop(index, None)
            if event is not None:
                self._queue.before_computing(event)
        self._next[self._last] = index
        self._last = index
        if self._queue is None:
            # A CPU that stands for a device computes at once: only here are two groups there as on CUDA.
            self._fetch_ahead(self._next.get(index))

    def done(self, index: int) -> None:
        """A group has computed, or on CUDA is queued to."""
        group = self._groups[index]
        if self._queue is None:
            self._offloaded.discard(group)
            return
        self._free_used()
        self._used = (self._queue.computed(), [tensor.data for tensor in group])
        self._offloaded.discard(group)
        if self._ahead is None:
            self._fetch_ahead(self._next.get(self._last))

    def end(self) -> None:
        """The module's forward ends."""
        if not self.runs_again or self._last is None:
            self.clear()
            return
        self._next[self._last] = self._next[None]
        if self._ahead is None:
            self._fetch_ahead(self._next[None])
        self._free_used()
        self._offloaded.discard(self._others)

    def leave(self) -> None:
        """Another stage begins: discard what waits for another run."""
        if self._ahead is not None and self.runs_again:
            self.clear()

    def clear(self) -> None:
        """Discard everything, in the middle of a run too."""
        self._ahead = None
        self._copied.clear()
        if self._queue is not None:
            self._queue.before_copying(self._queue.computed())
        self._used = None
        self._offloaded.discard()

    def _free_used(self) -> None:
        """Free the memory of the group that was used last, for copies that wait until it has been."""
        if self._used is not None and self._queue is not None:
            self._queue.before_copying(self._used[0])
        self._used = None

    def _fetch_ahead(self, index: int | None) -> None:
        if index is not None and index != self._last:
            self._fetch(index)
            self._ahead = index

    def _fetch(self, index: int) -> None:
        if self._queue is None:
            self._offloaded.fetch(self._groups[index])
        elif index not in self._copied:
            with self._queue.copying():
                self._offloaded.fetch(self._groups[index])
            self._copied[index] = self._queue.copied()


def split(module: torch.nn.Module, by: Groups) -> tuple[list[torch.nn.Module], list[list[Any]]]:
    """The submodules that are streamed one by one, and the weights of each.

    Args:
        by: `block`: the members of module lists that are direct children; `leaf`: every module with weights of its
            own, without those inside it. torch's attention is one: it reads the layer inside it without a call.
    """
    if by == "block":
        lists = [child for child in module.children() if isinstance(child, torch.nn.ModuleList)]
        members = [block for blocks in lists for block in blocks]
        groups = [stored_tensors((*block.parameters(), *block.buffers())) for block in members]
    else:
        attentions = [part for part in module.modules() if isinstance(part, torch.nn.MultiheadAttention)]
        inside = {part for attention in attentions for part in attention.modules()}.difference(attentions)
        members = [part for part in module.modules() if own_tensors(part) and part not in inside]
        groups = [_tensors_of_leaf(part) for part in members]
    return members, groups


def _tensors_of_leaf(part: torch.nn.Module) -> list[Any]:
    if isinstance(part, torch.nn.MultiheadAttention):
        return stored_tensors((*part.parameters(), *part.buffers()))
    return own_tensors(part)


def hook_streamed(
    module: torch.nn.Module, members: Sequence[torch.nn.Module], stream: StreamedModule, undo: ExitStack
) -> None:
    """Hook a module so that its weights come group by group.

    Args:
        undo: removes the hooks and discards what is left.
    """
    undo.callback(stream.clear)
    remove_later(module.register_forward_pre_hook(lambda *_: stream.begin(), prepend=True), undo)
    for index, member in enumerate(members):
        remove_later(member.register_forward_pre_hook(lambda *_, index=index: stream.need(index)), undo)
        remove_later(member.register_forward_hook(lambda *_, index=index: stream.done(index)), undo)
    remove_later(module.register_forward_hook(lambda *_: stream.end()), undo)
