"""Follows every tensor of a run on torch's meta device, where tensors have shapes and no memory.

Knows no models: whoever runs one says what it is given.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def count_live(module: Any, run: Callable[[], object], *, streamed: bool = False) -> int:
    """Bytes that were alive at once while it ran, beyond the weights and what it was given.

    Args:
        streamed: the weights count, too, and come layer by layer, the next one while one works.
    """
    live, layers = _Live(), _Layers(module) if streamed else None
    with torch.no_grad(), _Fused():
        if layers is not None:
            with layers.following():
                run()
        for tensor in (*module.parameters(), *module.buffers()):
            live.know(tensor.data)
        with layers.coming(live) if layers is not None else nullcontext(), live:
            run()
    return live.peak


class _Fused(TorchFunctionMode):
    """Attention without a matrix of scores, as the fused kernels compute it; the meta device has none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **named)
        query: Any
        value: Any
        query, value = (named.get(name, args[at] if len(args) > at else None) for name, at in _OPERANDS)
        return query.new_empty(*query.shape[:-1], value.shape[-1])


_OPERANDS = (("query", 0), ("value", 2))


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every storage that an operation makes until nothing refers to it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def know(self, tensor: torch.Tensor) -> None:
        """Weights were there before."""
        self._known.add(tensor.untyped_storage()._cdata)

    def add(self, count: int) -> None:
        """So many bytes came, or went."""
        self.now += count
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_iter((args, kwargs)):
            # What has not been made here was given.
            if isinstance(leaf, torch.Tensor):
                self._known.add(leaf.untyped_storage()._cdata)
        result = func(*args, **(kwargs or {}))
        for leaf in tree_iter(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def forget() -> None:
            self._known.discard(key)
            self.now -= size

        self._known.add(key)
        weakref.finalize(storage, forget)
        self.add(size)


class _Layers:
    """The single layers of a module, as `worker/homes.py` streams them."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._bytes = {
            one: sum(tensor.nbytes for tensor in own)
            for one in module.modules()
            if (own := [*one.parameters(recurse=False), *one.buffers(recurse=False)])
        }
        self._follows: dict[Any, Any] = {}
        self._here: set[Any] = set()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Inside, the order of the layers is learnt."""
        last: list[Any] = [None]

        def note(layer: Any, *_: object) -> None:
            self._follows[last[0]] = layer
            last[0] = layer

        with self._hooked(note, None):
            yield

    @contextmanager
    def coming(self, live: _Live) -> Iterator[None]:
        """Inside, a layer that works and the one after it count as alive."""

        def begin(layer: Any, *_: object) -> None:
            for one in (layer, self._follows.get(layer)):
                if one is not None and one not in self._here:
                    self._here.add(one)
                    live.add(self._bytes[one])

        def end(layer: Any, *_: object) -> None:
            self._here.discard(layer)
            live.add(-self._bytes[layer])

        with self._hooked(begin, end):
            yield

    @contextmanager
    def _hooked(self, begin: Callable[..., None], end: Callable[..., None] | None) -> Iterator[None]:
        hooks = [one.register_forward_pre_hook(begin) for one in self._bytes]
        hooks += [one.register_forward_hook(end) for one in self._bytes if end is not None]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
