"""Floating-point operations of the calls that a job makes, by the table of `contracts.weights.counts.flops`.

Knows neither jobs nor energy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch

from contracts.weights.counts.flops import CallFlops, find_flops, flops_of

#: Told the operations of a call; None: they were not counted.
NoteFlops = Callable[[float | None], object]


class FlopTable:
    """The operations of modules' calls; remembers, for all tables, which row each module has."""

    _rows: ClassVar[WeakKeyDictionary[torch.nn.Module, Mapping[str, CallFlops]]] = WeakKeyDictionary()

    def of(self, module: torch.nn.Module, entry: str, arguments: Mapping[str, Any]) -> float | None:
        """Return the operations of a call, adapters on its layers aside; None for a module that was not counted.

        Args:
            arguments: by name, in the order of the signature.
        """
        if module not in self._rows:
            parameters = sum(parameter.numel() for parameter in module.parameters())
            self._rows[module] = find_flops(type(module).__name__, parameters)
        return flops_of(self._rows[module], entry, arguments)

    @contextmanager
    def noting_encoders(self, pipeline: Any, note: NoteFlops) -> Iterator[None]:
        """Inside, `note` is told of each call of a pipeline's text encoders."""
        names = [name for name in pipeline.components if name.startswith("text_encoder")]
        with ExitStack() as hooks:
            for encoder in [getattr(pipeline, name) for name in names if getattr(pipeline, name) is not None]:
                hook = encoder.register_forward_pre_hook(partial(self._note_call, note), with_kwargs=True)
                hooks.callback(hook.remove)
            yield

    def _note_call(self, note: NoteFlops, module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        ids = args[0] if args else options["input_ids"]
        note(self.of(module, "__call__", {"input_ids": ids, **options}))
