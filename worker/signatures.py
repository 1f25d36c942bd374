"""Remembers the signatures of attention processors.

Diffusers asks for one at every attention layer of every step, only to see which arguments it takes, and working it
out costs Python as much as the layer's own bookkeeping. Changes nothing about what is computed.
"""

from __future__ import annotations

import inspect
from typing import Any


def remember_signatures(model: Any) -> None:
    """Keep, with the class of each processor of a denoiser or a ControlNet, the signature of its call."""
    for processor in getattr(model, "attn_processors", {}).values():
        call: Any = type(processor).__call__
        if not hasattr(call, "__signature__"):
            call.__signature__ = inspect.signature(call)
