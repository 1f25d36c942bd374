"""Plain attention for training on a CPU, where the fused kernel's backward pass takes half of every step.

At a hundred tokens of width 32 nothing is won by never writing the weights down. Knows no family.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as functional
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class PlainAttention(TorchFunctionMode):
    """Within it, scaled dot-product attention is two matrix products and a softmax."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Everything but attention goes its usual way."""
        if func is functional.scaled_dot_product_attention:
            return attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **_: Any,
) -> Tensor:
    """What the fused kernel computes, for the unmasked attention of our transformers."""
    if attn_mask is not None or dropout_p or is_causal:
        raise ValueError("plain attention knows no mask, no order and no dropout")
    weights = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    mixed: Tensor = weights.softmax(-1).to(value.dtype) @ value
    return mixed


def keep_plain(model: Any) -> None:
    """The model's calls use plain attention from now on, unless it is on a GPU. Changes no weight.

    Its blocks' calls do so by themselves: gradient checkpointing calls them again in the backward pass.
    """
    lists = [part for part in model.children() if isinstance(part, nn.ModuleList)]
    for module in (model, *(block for part in lists for block in part)):
        module.forward = _plain(module.forward, model)


def _plain(forward: Callable[..., Any], model: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if model.device.type != "cpu":
            return forward(*args, **kwargs)
        with PlainAttention():
            return forward(*args, **kwargs)

    return call
