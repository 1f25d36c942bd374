"""CUDA graphs of whole denoisers, and the device memory that recorded graphs keep.

torch's CUDA graph trees (2.13) record and replay: they copy each call's inputs to addresses of their own, and
their results lie in a pool that the next replay overwrites. All graphs of a device have one pool. Knows no plans
and no jobs; has never met a device: CPU tests count what would be recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakSet

import torch
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.utils import _pytree as pytree

from worker.runtime.out_of_memory import is_out_of_memory

_log = logging.getLogger(__name__)

#: Kinds of calls that one whole denoiser is compiled and recorded for; each takes seconds to minutes to compile.
_MAX_KINDS = 8


class WholeGraphs:
    """One model's denoiser, compiled without a break and replayed as one graph for each kind of call.

    Attributes:
        refused: why it cannot be; empty as far as is known.
    """

    def __init__(self, compiled: Callable[..., Any]) -> None:
        """`compiled` is the denoiser's call by `torch.compile`, for static shapes and the whole graph."""
        self.refused = ""
        self._compiled = compiled
        self._kinds: set[Hashable] = set()

    def refuse(self, kind: Hashable) -> str:
        """Why calls of this kind (`kind_of`) cannot be replayed; empty where they can, and may be recorded."""
        if not self.refused and kind not in self._kinds and len(self._kinds) >= _MAX_KINDS:
            return f"{_MAX_KINDS} kinds of calls are recorded"
        return self.refused

    def call(self, kind: Hashable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call that is not refused; its result is the caller's to keep.

        Returns:
            None where this call found out that the denoiser cannot be compiled whole, and nothing was computed.

        Raises:
            Exception: of the denoiser; where memory ran out, further calls are refused.
        """
        self._kinds.add(kind)
        try:
            result = self._compiled(*args, **kwargs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            cause = getattr(error, "inner_exception", error)
            self.refused = f"{type(cause).__name__}: {(str(cause).strip().splitlines() or [''])[0]}"[:200]
            _log.warning("the whole denoiser cannot be compiled, its blocks are: %s", self.refused)
            return None
        except Exception as error:
            if is_out_of_memory(error):
                self.refused = "memory ran out"
            raise
        # The next replay overwrites what lies in the graphs' pool, and jobs keep results from step to step.
        return pytree.tree_map_only(torch.Tensor, torch.clone, result)


def kind_of(args: object, kwargs: object, variant: Hashable) -> Hashable:
    """What torch compiles for apart: layout of the tensors, values of all else, and a variant of the caller's."""
    leaves, structure = pytree.tree_flatten((args, kwargs))
    return variant, str(structure), tuple(map(_describe, leaves))


def _describe(leaf: object) -> Hashable:
    if isinstance(leaf, torch.Tensor):
        return tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device, leaf.is_inference()
    return leaf if isinstance(leaf, Hashable) else id(leaf)


class GraphPool:
    """Account of the device memory that recorded graphs keep, as far as it was planned.

    torch gives none of it back before the last function with graphs is gone. A graph may use what other graphs use
    at other times, so that the largest counts, and not their sum.
    """

    def __init__(self) -> None:
        """Start without recorded graphs."""
        self._bytes = 0
        self._owners: WeakSet[object] = WeakSet()

    @property
    def bytes(self) -> int:
        """That are kept."""
        if not self._owners:
            self._bytes = 0
        return self._bytes

    def beside(self, *planned: int | None) -> int:
        """Bytes that are kept beyond those that these plans count."""
        return max(0, self.bytes - max((size or 0 for size in planned), default=0))

    def note(self, owner: object, size_bytes: int) -> None:
        """Graphs that live as long as their owner are replayed, and need so much for their activations."""
        self._owners.add(owner)
        self._bytes = max(self._bytes, size_bytes)

    def release(self) -> None:
        """Give it back. All that was compiled in this process is compiled again when it is called."""
        _log.warning("graphs keep %d bytes that are needed: all of them are dropped", self.bytes)
        torch.compiler.reset()
        self._owners.clear()
