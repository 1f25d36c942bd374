"""Follows every tensor of a run on torch's meta device, where tensors have shapes and no memory.

A run makes the same tensors in the same order whatever its size, so how many values are alive after each step is
found as a function of pixels, tokens and images from a few runs. Knows no models: the caller says what to run.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from contracts.memory.activations import ActivationCost, WorkloadShape, peak_values

#: The runs that a function is found from, one more than it has terms. More than one image, because torch leaves
#: out copies for a single one; small, because the shipped SD3's table of positions ends at 256 pixels.
SHAPES = tuple(
    WorkloadShape(width, 128, images, guided=False, text_tokens=tokens)
    for width, images, tokens in (
        *product((128, 192), (2, 3), (128,)), *product((128,), (2, 3), (256,)), (128, 2, 512), (192, 3, 384),
    )
)  # fmt: skip
#: The same of a module that works on its images one by one, so that its steps are the same for one number of them.
LISTED_SHAPES = tuple(
    WorkloadShape(width, 128, 2, guided=False, text_tokens=tokens)
    for width, tokens in ((128, 128), (192, 128), (128, 256), (192, 384), (128, 512), (256, 256))
)
#: Classes that work on squares only.
_SQUARE = frozenset({"DiTTransformer2DModel"})
#: Where the peaks are looked for.
_IMAGES, _SIDES, _TOKENS = (1, 2, 4, 8), (64, 128, 256, 512, 1024, 1536, 2048), (64, 128, 256, 512)
#: What cuDNN's workspace takes of a convolution's input and output together: its fast kernels want the channels
#: last, so it copies both. That is exactly what was measured (docs/gpu.md): the decoder of SDXL's VAE took 1,216
#: values a pixel on an H100 (cuDNN 9.19) at three sizes, where 704 are alive at its last upsampling convolution,
#: from 256 channels to 256.
WORKSPACE_SHARE = 1.0
#: Costs that are kept give at least this share of every peak.
_SHARE = 0.998

Steps = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def shapes_of(class_name: str, *, listed: bool) -> tuple[WorkloadShape, ...]:
    """Return the shapes of a class's runs: `SHAPES`, or `LISTED_SHAPES`, as squares where it needs them."""
    shapes = LISTED_SHAPES if listed else SHAPES
    return tuple(replace(one, height=one.width) for one in shapes) if class_name in _SQUARE else shapes


class Follower:
    """Follower of the tensors of a module while it runs."""

    def __init__(self, module: Any, value_bytes: int) -> None:
        """`value_bytes`: of one value of the module's dtype; wider values count as several."""
        self._module = module
        self._value_bytes = value_bytes
        self._layers = _Layers(module)

    def follow(self, run: Callable[[], object]) -> tuple[Steps, Steps]:
        """Steps of a run, and the same with a further step for each convolution, with cuDNN's workspace for it.

        Steps are rows of values alive beyond weights and inputs, and values of the layer at work and the next one.
        A step makes a tensor or begins a layer. The last one is the end, where only the result is alive.
        """
        live = _Live(self._value_bytes)
        with torch.no_grad(), _Fused():
            self._layers.learn(run)
            for tensor in (*self._module.parameters(), *self._module.buffers()):
                live.know(tensor.data)
            with self._layers.streaming(live), live:
                result = run()
                live.note()
        del result
        steps = np.array(live.steps)
        return steps[steps[:, 2] == 0, :2], np.column_stack([steps[:, 0] + steps[:, 2], steps[:, 1]])


def find_peaks(
    runs: Sequence[Steps], known: Sequence[ActivationCost] = (), shapes: Sequence[WorkloadShape] = SHAPES
) -> tuple[list[ActivationCost], ActivationCost]:
    """The fewest costs whose maximum is the peak, with streamed weights or without; and what is left at the end.

    Args:
        runs: what was followed for each of the shapes.
        known: costs that were found before.
        shapes: if all have one number of images, all that is alive counts for each image; else pairs of tokens
            count once a call.

    Raises:
        ValueError: the steps of the runs differ, or are not linear in pixels, tokens, squared tokens and images.
    """
    if len({run.shape for run in runs}) != 1:
        raise ValueError(f"the runs differ in their numbers of steps: {sorted({len(run) for run in runs})}")
    values, weights = np.stack([run[:, 0] for run in runs]), runs[0][:, 1]
    terms = np.array([[*_terms(shape), 1, shape.pixels, shape.text_tokens] for shape in shapes])
    if len({shape.images for shape in shapes}) == 1:
        terms[:, 5:] = terms[:, 3:4] = 0
    else:
        terms[:, 4] = 0
    scale = np.maximum(terms.max(axis=0), 1)
    factors = np.linalg.lstsq(terms / scale, values, rcond=None)[0] / scale[:, None]
    if np.abs(terms @ factors - values).max() > 1e-6 * values.max():
        raise ValueError("the values alive are not linear in pixels, tokens, squared tokens and images")
    # What is there once a call (tables of positions) is small: it counts for each image.
    steps = factors[:5] + np.vstack([factors[5:], np.zeros_like(weights), np.zeros_like(weights)])
    grid = [
        WorkloadShape(side, side, images, guided=False, text_tokens=tokens)
        for side, images, tokens in product(_SIDES, _IMAGES, _TOKENS)
    ]
    resident = np.array([_terms(shape) for shape in grid]) @ steps[:, :-1]
    found = np.vstack([resident, resident + weights[:-1]])
    covered = np.array([peak_values(known, shape, shape.images) for shape in grid] * 2)
    with_weights = [
        max((cost.values(shape, shape.images, shape.pixels) + (cost.layers or 0) for cost in known), default=0.0)
        for shape in grid
    ]
    covered[len(grid) :] = with_weights
    least = _SHARE * found.max(axis=1)
    chosen = []
    while (missing := covered < least).any():
        best = int((found[missing] >= least[missing, None]).sum(axis=0).argmax())
        chosen.append(best)
        covered = np.maximum(covered, found[:, best])
    return [_cost(steps[:, step], weights[step]) for step in chosen], _cost(steps[:, -1], 0.0)


def _terms(shape: WorkloadShape) -> list[float]:
    """What a cost's factors are multiplied by, but for those once a call."""
    images, pixels, tokens = shape.images, shape.pixels, shape.text_tokens
    return [images, images * pixels, images * tokens, tokens**2, images * tokens**2]


def _cost(factors: Any, weights: float) -> ActivationCost:
    fixed, pixel, token, squared, pairs = (0.0 if abs(one) < 1e-3 else float(f"{one:.6g}") for one in factors)
    return ActivationCost(pixel, token, squared, pairs, fixed, int(weights))


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
    """Every storage that an operation makes, from then until nothing refers to it.

    Attributes:
        steps: (values alive, values of weights at work, values of a workspace) after each step.
    """

    def __init__(self, value_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._value_bytes = value_bytes
        self.steps: list[tuple[float, float, float]] = []
        self.weights = 0.0
        self._values = 0.0
        self._known: set[int] = set()

    def know(self, tensor: torch.Tensor) -> None:
        """Do not count this tensor: it was there before. Another may be made at its address once it is gone."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            weakref.finalize(storage, self._known.discard, key)

    def note(self) -> None:
        """Record a step."""
        self.steps.append((self._values, self.weights, 0.0))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_iter((args, kwargs)):
            # What was not made here is an input.
            if isinstance(leaf, torch.Tensor):
                self.know(leaf)
        result = func(*args, **(kwargs or {}))
        for leaf in tree_iter(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf)
        if func is torch.ops.aten.convolution.default:
            workspace = WORKSPACE_SHARE * (args[0].nbytes + result.nbytes) / self._value_bytes
            self.steps.append((self._values, self.weights, workspace))
        return result

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, values = storage._cdata, storage.nbytes() / self._value_bytes
        if key in self._known:
            return

        def forget() -> None:
            self._known.discard(key)
            self._values -= values

        self._known.add(key)
        weakref.finalize(storage, forget)
        self._values += values
        self.note()


class _Layers:
    """The single layers of a module, which are streamed one by one, the next one while one works."""

    def __init__(self, module: Any) -> None:
        self._values = {
            layer: sum(tensor.numel() for tensor in own)
            for layer in module.modules()
            if (own := [*layer.parameters(recurse=False), *layer.buffers(recurse=False)])
        }
        self._follows: dict[Any, Any] = {}
        self._here: set[Any] = set()

    def learn(self, run: Callable[[], object]) -> None:
        """Learn the order of the layers from a first run."""
        if self._follows:
            return
        last: list[Any] = [None]

        def note(layer: Any, *_: object) -> None:
            self._follows[last[0]] = layer
            last[0] = layer

        with self._hooked(note, None):
            run()

    @contextmanager
    def streaming(self, live: _Live) -> Iterator[None]:
        """Inside, a layer that works and the one after it are on the device."""

        def begin(layer: Any, *_: object) -> None:
            for one in (layer, self._follows.get(layer)):
                if one is not None and one not in self._here:
                    self._here.add(one)
                    live.weights += self._values[one]
            live.note()

        def end(layer: Any, *_: object) -> None:
            self._here.discard(layer)
            live.weights -= self._values[layer]

        with self._hooked(begin, end):
            yield

    @contextmanager
    def _hooked(self, begin: Callable[..., None], end: Callable[..., None] | None) -> Iterator[None]:
        hooks = [layer.register_forward_pre_hook(begin) for layer in self._values]
        hooks += [layer.register_forward_hook(end) for layer in self._values if end is not None]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
