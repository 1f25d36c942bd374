"""Remembers what diffusers finds out about a model anew in every call, though it never changes.

At every attention layer of every step it asks for the signature of the processor, to see which arguments that has;
in every call, for the dtype of the model, by a walk through all its layers. Beside a small model's step both are
dear. Changes nothing about what is computed.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch


def cache_introspection(model: torch.nn.Module, *, signatures: bool = True) -> None:
    """Have a denoiser, a ControlNet or a VAE that is wholly loaded answer such questions from memory.

    Its dtype, and that in which it computes where layers are stored in another, must not change any more.

    Args:
        signatures: False for a model whose blocks are compiled: torch asks for them once, while it compiles, and
            would break each block's graph at a processor that has been told its own.
    """
    for processor in getattr(model, "attn_processors", {}).values() if signatures else ():
        # A method's signature is made anew each time; a function may carry its own.
        call: Any = partial(type(processor).__call__, processor)
        call.__signature__ = inspect.signature(processor.__call__)
        processor.__call__ = call
    dtype, kind = model.dtype, type(model)
    known = {"dtype": property(lambda _: dtype), "__module__": kind.__module__, "__doc__": kind.__doc__}
    model.__class__ = type(kind.__name__, (kind,), known)
