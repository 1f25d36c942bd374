"""Caches what diffusers asks of a model in every call although it never changes.

diffusers 0.42 reads the signature of the attention processor at every attention layer of every step, to see which
arguments it takes (`models/attention_processor.py`, `Attention.forward`), and finds a model's dtype in every call
by walking through all its layers (`models/modeling_utils.py`, `get_parameter_dtype`). Both cost more than the
arithmetic of a small model. Changes nothing about what is computed.
`tests/worker/runtime/test_diffusers_caching.py` fails when diffusers asks in another way.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch


def cache_introspection(model: torch.nn.Module, *, signatures: bool = True) -> None:
    """Make a fully loaded denoiser, ControlNet or VAE answer these questions from memory.

    `__call__` of each attention processor is replaced by a `partial` that carries its signature, and the model's
    `__class__` by a subclass of the same name whose `dtype` is a constant. The dtype, and the one in which layers
    compute that are stored in another, must not change afterwards.

    Args:
        signatures: False for a model whose blocks are compiled: torch.compile reads them once, while it compiles,
            and a processor with a signature of its own would break each block's graph.
    """
    # Asked of each layer: `attn_processors` of diffusers' ControlNets for HunyuanDiT (0.42) is full of None.
    layers: list[Any] = (
        [layer for layer in model.modules() if hasattr(layer, "get_processor")] if signatures else []
    )
    for processor in (layer.get_processor() for layer in layers):
        # `inspect` builds a method's signature each time; a function may carry its own.
        call: Any = partial(type(processor).__call__, processor)
        call.__signature__ = inspect.signature(processor.__call__)
        processor.__call__ = call
    dtype, kind = model.dtype, type(model)
    known = {"dtype": property(lambda _: dtype), "__module__": kind.__module__, "__doc__": kind.__doc__}
    model.__class__ = type(kind.__name__, (kind,), known)
