"""How a model's arithmetic is carried out: the attention kernel, the memory format, compiled blocks.

Each may change the last bits of an image, so each is a setting of the worker and stands on the receipt. Knows
nothing of jobs, plans or adapters; the caller says what rules out compiled blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from worker.runtime.kernel_options import Attention, KernelOptions

_log = logging.getLogger(__name__)

#: Shapes that one block may be compiled for; beyond torch's own limit of 8 it would run uncompiled without a word.
_MAX_VARIANTS = 64

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
    """Inside, torch tries this attention kernel first, in all threads: meant for a worker's whole life."""
    return nullcontext() if attention == "auto" else sdpa_kernel(_ORDERS[attention], set_priority=True)


def check_compiler(options: KernelOptions, device: torch.device) -> KernelOptions:
    """The options, with compilation turned off where a small function cannot be compiled and run here.

    Inductor needs a C++ compiler, on CUDA a C compiler for Triton, and a folder whose files may be executed
    (`TORCHINDUCTOR_CACHE_DIR`). Without this, the first job would find out.
    """
    if options.compile == "off":
        return options
    try:
        compiled = torch.compile(_scale_and_shift, backend=options.compile_backend)
        with torch.inference_mode():
            compiled(torch.ones(64, device=device))
    except Exception as error:  # noqa: BLE001 - any back end, with errors of its own
        cause = getattr(error, "inner_exception", error)
        failure = f"{type(cause).__name__}: {(str(cause).strip().splitlines() or [''])[0]}"[:200]
        _log.warning("models run uncompiled, %s does not work here: %s", options.compile_backend, failure)
        return replace(options, compile="off", compile_failure=failure)
    return options


def _scale_and_shift(values: torch.Tensor) -> torch.Tensor:
    return values * 2 + 1


class Kernels:
    """The kernels of one loaded model.

    Attributes:
        used: what computed the last call, for its receipt; `compile` is followed by the reason where blocks ran
            uncompiled although the options ask for it.
        compiled: the blocks that may run compiled.
    """

    def __init__(self, options: KernelOptions, model: str) -> None:
        """`model` is its name in the log."""
        self._options = options
        self._channels_last = options.channels_last == "on"
        self._model = model
        self._denoiser: torch.nn.Module | None = None
        self.compiled: tuple[torch.nn.Module, ...] = ()
        # Block, its compiled call, and the one that replays CUDA graphs.
        self._blocks: list[tuple[Any, Any, Any]] = []
        self._refused = ""
        self.used: dict[str, str] = {
            "attention": options.attention,
            "channels_last": "on" if self._channels_last else "off",
            "compile": _off(options.compile_failure),
        }

    def set_memory_format(self, modules: Mapping[str, torch.nn.Module]) -> None:
        """Store the weights of modules that convolve as the options say.

        A transformer is left as it is: its one convolution only cuts the latents into patches.
        """
        for module in modules.values() if self._channels_last else ():
            if sum(isinstance(layer, torch.nn.Conv2d) for layer in module.modules()) > 1:
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def compile(self, denoiser: torch.nn.Module, repeated: Sequence[str], *, refused: str = "") -> None:
        """Have the blocks of these classes compiled, each when it first runs.

        Args:
            refused: why this model must not be compiled; empty where it may.
        """
        if self._options.compile == "off":
            return
        if refused:
            self._refused = refused
            return
        torch._dynamo.config.recompile_limit = _MAX_VARIANTS
        self._denoiser = denoiser
        for block in denoiser.modules():
            if type(block).__name__ in repeated:
                # Both are only wrappers until they run; which one does is chosen for each call.
                variants = [self._wrap(block, {})]
                if self._options.compile == "graphs":
                    variants.append(self._wrap(block, {"mode": "reduce-overhead"}))
                self._blocks.append((block, variants[0], variants[-1]))
        self.compiled = tuple(block for block, _, _ in self._blocks)

    @contextmanager
    def running(self, *, uncompiled: str = "", no_graphs: str = "") -> Iterator[None]:
        """A call of the denoiser is made inside.

        Args:
            uncompiled: why blocks cannot be compiled now, such as hooks on them: torch does not look for hooks
                that are set later, and would compile again for each if it did. Empty where they can.
            no_graphs: why CUDA graphs cannot be replayed, such as weights that change their addresses: each call
                would record them again. Empty where they can.
        """
        wanted = self._options.compile
        if wanted == "off":
            yield
            return
        reason = uncompiled or self._refused
        if reason:
            _log.info("%s runs uncompiled: %s", self._model, reason)
            self.used = {**self.used, "compile": _off(reason)}
            yield
            return
        graphs = wanted == "graphs" and not no_graphs
        name = f"{'graphs' if graphs else 'blocks'}, {self._options.compile_backend}"
        if wanted == "graphs" and no_graphs:
            name += f"; no graphs: {no_graphs}"
        self.used = {**self.used, "compile": name}
        with ExitStack() as undo:
            undo.callback(self._switch_off)
            for block, plain, replayed in self._blocks:
                block._compiled_call_impl = replayed if graphs else plain
            if graphs and self._denoiser is not None:
                undo.callback(self._denoiser.register_forward_pre_hook(_begin_replay).remove)
            yield

    def _wrap(self, block: Any, options: dict[str, str]) -> Any:
        """`Module.compile` sets `_compiled_call_impl`, which `Module.__call__` prefers (torch 2.13).

        `test_compiled_blocks_are_switched_on_for_one_call_and_freed_with_their_model` fails when that changes.
        """
        block.compile(backend=self._options.compile_backend, **options)
        call, block._compiled_call_impl = block._compiled_call_impl, None
        return call

    def _switch_off(self) -> None:
        for block, _, _ in self._blocks:
            block._compiled_call_impl = None


def _off(reason: str) -> str:
    return f"off: {reason}" if reason else "off"


def _begin_replay(*_: Any) -> None:
    """Allow CUDA graphs to overwrite the outputs of the denoiser's last run."""
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
