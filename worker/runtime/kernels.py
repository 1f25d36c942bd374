"""How a model's arithmetic is carried out: the attention kernel, the memory format, compiled blocks or denoisers.

Each may change the last bits of an image, so each is a setting of the worker and stands on the receipt. Knows
nothing of jobs, plans or adapters; the caller says what rules out compiled blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import _get_current_dispatch_mode

from worker.runtime.cuda_graphs import GraphPool, WholeGraphs, kind_of
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

    def __init__(self, options: KernelOptions, model: str, graph_pool: GraphPool) -> None:
        """`model` is its name in the log; `graph_pool` is told of what its graphs keep."""
        self._options = options
        self._graph_pool = graph_pool
        self._channels_last = options.channels_last == "on"
        self._model = model
        self._denoiser: Any = torch.nn.Identity()
        self._whole: WholeGraphs | None = None
        self._not_whole = ""
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

    def compile(
        self, denoiser: torch.nn.Module, repeated: Sequence[str], *, refused: str = "", not_whole: str = ""
    ) -> None:
        """Have the blocks of these classes compiled, each when it first runs, or the whole denoiser.

        Args:
            refused: why this model must not be compiled; empty where it may.
            not_whole: why only its blocks may be, where the options ask for the whole; empty where all of it may.
        """
        if self._options.compile == "off":
            return
        if refused:
            self._refused = refused
            return
        torch._dynamo.config.recompile_limit = _MAX_VARIANTS
        self._denoiser, self._not_whole = denoiser, not_whole
        for block in denoiser.modules():
            if type(block).__name__ in repeated:
                # Both are only wrappers until they run; which one does is chosen for each call.
                variants = [self._wrap(block)]
                if self._options.replays:
                    variants.append(self._wrap(block, mode="reduce-overhead"))
                self._blocks.append((block, variants[0], variants[-1]))
        self.compiled = tuple(block for block, _, _ in self._blocks)
        if self._options.compile == "whole_graphs" and not not_whole:
            # Without its hooks, which bring inputs to the device, and would be compiled apart.
            self._whole = WholeGraphs(
                torch.compile(
                    denoiser.forward,
                    backend=self._options.compile_backend,
                    mode="reduce-overhead",
                    dynamic=False,
                    fullgraph=True,
                )
            )

    @contextmanager
    def running(
        self,
        *,
        uncompiled: str = "",
        no_graphs: str = "",
        not_whole: str = "",
        variant: Hashable = None,
        graph_bytes: int = 0,
    ) -> Iterator[None]:
        """A call of the denoiser is made inside.

        Args:
            uncompiled: why blocks cannot be compiled now, such as hooks on them: torch does not look for hooks
                that are set later, and would compile again for each if it did. Empty where they can.
            no_graphs: why CUDA graphs cannot be replayed, such as weights that change their addresses: each call
                would record them again. Empty where they can.
            not_whole: why the denoiser cannot be replayed whole, such as hooks outside of its blocks.
            variant: what compiled code depends on beside the call's arguments.
            graph_bytes: what the call's activations take, which graphs keep.
        """
        if self._options.compile == "off":
            yield
            return
        reason = uncompiled or self._refused
        if not reason and _get_current_dispatch_mode() is not None:
            reason = "the CPU's memory is counted"  # torch (2.13) compiles nothing beside such a mode
        if reason:
            _log.info("%s runs uncompiled: %s", self._model, reason)
            self.used = {**self.used, "compile": _off(reason)}
            yield
            return
        if self._options.replays and not no_graphs:
            self._graph_pool.note(self, graph_bytes)
            # Graphs may overwrite the results of the denoiser's last run.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            if self._whole is None or no_graphs or not_whole:
                self._switch_on(no_graphs, not_whole or self._not_whole)
            else:
                self._denoiser.forward = partial(self._forward_whole, variant)
            yield
        finally:
            self._switch_off()

    def _forward_whole(self, variant: Hashable, *args: Any, **kwargs: Any) -> Any:
        """Take the place of the denoiser's `forward`: replayed whole, or its blocks where this call cannot be."""
        if self._whole is None:
            raise RuntimeError(f"{self._model} is not compiled whole")
        kind = kind_of(args, kwargs, variant)
        if not self._whole.refuse(kind):
            self.used = {**self.used, "compile": f"whole graph, {self._options.compile_backend}"}
            result = self._whole.call(kind, args, kwargs)
            if result is not None:
                return result
        self._switch_on("", self._whole.refuse(kind))
        return type(self._denoiser).forward(self._denoiser, *args, **kwargs)

    def _switch_on(self, no_graphs: str, not_whole: str) -> None:
        """Call blocks compiled, and say in the receipt why graphs that were asked for are not replayed."""
        graphs = self._options.replays and not no_graphs
        name = f"{'graphs' if graphs else 'blocks'}, {self._options.compile_backend}"
        if self._options.replays and no_graphs:
            name += f"; no graphs: {no_graphs}"
        elif not_whole and self._options.compile == "whole_graphs":
            name += f"; not whole: {not_whole}"
        self.used = {**self.used, "compile": name}
        for block, plain, replayed in self._blocks:
            block._compiled_call_impl = replayed if graphs else plain

    def _wrap(self, module: Any, **options: Any) -> Any:
        """`Module.compile` sets `_compiled_call_impl`, which `Module.__call__` prefers (torch 2.13).

        `test_compiled_blocks_are_switched_on_for_one_call_and_freed_with_their_model` fails when that changes.
        """
        module.compile(backend=self._options.compile_backend, **options)
        call, module._compiled_call_impl = module._compiled_call_impl, None
        return call

    def _switch_off(self) -> None:
        vars(self._denoiser).pop("forward", None)
        for block, _, _ in self._blocks:
            block._compiled_call_impl = None


def _off(reason: str) -> str:
    return f"off: {reason}" if reason else "off"
