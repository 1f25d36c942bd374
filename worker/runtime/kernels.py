"""How a model's arithmetic is carried out: the attention kernel, the memory format, compiled blocks.

Each may change an image in its last bits, so each is a setting of the worker and stands on the receipt. Knows
nothing of jobs, plans or adapters; whoever runs a batch says whether anything is hooked into the blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from worker.runtime.kernel_options import Attention, KernelOptions

_log = logging.getLogger(__name__)

#: Sizes and batches that a block may be compiled for; at torch's own bound, 8, it would quietly stop compiling.
_VARIANTS = 64

_ORDERS: Mapping[Attention, list[SDPBackend]] = {
    "cudnn": [
        SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH,
    ],
    "flash": [
        SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH,
    ],
    "efficient": [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "math": [SDPBackend.MATH],
}  # fmt: skip


def prefer(attention: Attention) -> AbstractContextManager[None]:
    """Inside, torch tries this attention kernel first, in all threads: it holds for a worker's whole life."""
    return nullcontext() if attention == "auto" else sdpa_kernel(_ORDERS[attention], set_priority=True)


class Kernels:
    """The kernels of one loaded model.

    Attributes:
        used: what computed the last batch, for its receipt.
    """

    def __init__(self, choice: KernelOptions, device: torch.device, model: str) -> None:
        """`model` is what the log calls it."""
        self._choice = choice
        self._last = choice.channels_last == "on" or (choice.channels_last == "auto" and device.type == "cuda")
        self._model = model
        self._denoiser: torch.nn.Module | None = None
        self._blocks: list[tuple[Any, Any]] = []
        last = "on" if self._last else "off"
        self.used: dict[str, str] = {"attention": choice.attention, "channels_last": last, "compile": "off"}

    def set_memory_format(self, modules: Mapping[str, torch.nn.Module]) -> None:
        """Lay out the weights of those that convolve; a transformer's one convolution only cuts patches."""
        for module in modules.values() if self._last else ():
            if sum(isinstance(layer, torch.nn.Conv2d) for layer in module.modules()) > 1:
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def compile(self, denoiser: torch.nn.Module, repeated: Sequence[str]) -> None:
        """Have the blocks of these classes compiled, each when it first runs."""
        if self._choice.compile == "off":
            return
        torch._dynamo.config.recompile_limit = _VARIANTS
        self._denoiser = denoiser
        options = {"mode": "reduce-overhead"} if self._choice.compile == "graphs" else {}
        for block in denoiser.modules():
            if type(block).__name__ in repeated:
                block.compile(backend=self._choice.compile_backend, **options)
                # Switched on for a batch at a time.
                self._blocks.append((block, block._compiled_call_impl))
                block._compiled_call_impl = None

    @contextmanager
    def running(self, hooked: str = "") -> Iterator[None]:
        """One batch runs inside.

        Args:
            hooked: what is hooked into the blocks, in words. They are not compiled then: torch does not look for
                hooks that come later, and would compile anew for each if it did.
        """
        compiled = self._choice.compile if not hooked else "off"
        if self._blocks and hooked:
            _log.info("%s runs uncompiled: %s", self._model, hooked)
        self.used = {**self.used, "compile": compiled if compiled == "off" else self._words(compiled)}
        with ExitStack() as undo:
            if compiled != "off":
                undo.callback(self._switch, False)
                self._switch(True)
            if compiled == "graphs" and self._denoiser is not None:
                undo.callback(self._denoiser.register_forward_pre_hook(_begin_replay).remove)
            yield

    def _words(self, compiled: str) -> str:
        return f"{compiled}, {self._choice.compile_backend}"

    def _switch(self, on: bool) -> None:
        for block, call in self._blocks:
            block._compiled_call_impl = call if on else None


def _begin_replay(*_: Any) -> None:
    """What the graphs of the last pass have left may be written over now."""
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
