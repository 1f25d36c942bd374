"""Makes reference images act on their own jobs' rows of each cross-attention layer, with hooks that are removed.

The query is what `to_q` gave (with LoRAs, if any act on it); what is added goes into `to_out`, as in diffusers'
`IPAdapterAttnProcessor2_0` (0.42). Knows neither files nor images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from torch.nn import functional

from worker.adapters.references.image_prompts import ImagePrompt, KeyValues


@dataclass(frozen=True)
class RowSpan:
    """Rows of one job in a call of a denoiser: `count` of them, from number `first` of its own call's `whole`.

    A guided call has the rows without the prompt first, then as many with it.
    """

    count: int
    first: int = 0
    whole: int = 0

    def rows_without_prompt(self, *, is_guided: bool) -> int:
        """How many of the rows are without the prompt; they come first."""
        without = (self.whole or self.count) // 2 if is_guided else 0
        return min(max(without - self.first, 0), self.count)


#: The reference images of each range of rows, in order.
Parts = Sequence[tuple[Sequence[ImagePrompt], RowSpan]]


class _LayerHook:
    """The hooks of one cross-attention layer for one call."""

    def __init__(self, attention: Any, parts: Parts) -> None:
        self._attention, self._parts = attention, parts
        self._query: torch.Tensor | None = None

    def keep(self, layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        """Forward hook of `to_q`."""
        del layer, inputs
        self._query = output

    def add(self, layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Pre-hook of `to_out`.

        Raises:
            RuntimeError: the layer was given another number of rows than the call has.
        """
        del layer
        hidden, query, self._query = inputs[0], self._query, None
        total = sum(span.count for _, span in self._parts)
        if query is None or len(hidden) != total:
            raise RuntimeError(f"a layer was given {len(hidden)} rows in a call of {total}")
        changed, start = [], 0
        for prompts, span in self._parts:
            rows = slice(start, start + span.count)
            own = hidden[rows]
            for prompt in prompts:
                own = self._with(own, query[rows], prompt, span)
            changed.append(own)
            start += span.count
        return (changed[0] if len(changed) == 1 else torch.cat(changed), *inputs[1:])

    def _with(self, hidden: torch.Tensor, query: torch.Tensor, prompt: ImagePrompt, span: RowSpan) -> torch.Tensor:
        pairs: KeyValues = prompt.layers.get(self._attention, ())
        without = span.rows_without_prompt(is_guided=prompt.is_guided)
        heads = self._attention.heads
        split = _heads(query, heads)
        for key, value in pairs:
            own_key, own_value = (_rows(one, without, span.count - without) for one in (key, value))
            found = functional.scaled_dot_product_attention(
                split,
                _heads(own_key, heads),
                _heads(own_value, heads),
                attn_mask=None,
                dropout_p=0.0,
                is_causal=False,
            )
            added = found.transpose(1, 2).reshape(hidden.shape).to(query.dtype)
            if prompt.mask is not None:
                mask = IPAdapterMaskProcessor.downsample(prompt.mask, len(added), added.shape[1], added.shape[2])
                added = added * mask.to(added)
            hidden = hidden + prompt.scale * added
        return hidden


def _heads(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    return tensor.view(len(tensor), -1, heads, tensor.shape[-1] // heads).transpose(1, 2)


def _rows(passes: torch.Tensor, without: int, with_prompt: int) -> torch.Tensor:
    """Keys or values for rows without the prompt, then for those with it."""
    nothing, images = passes[:1], passes[-1:]
    return torch.cat([nothing.expand(without, -1, -1), images.expand(with_prompt, -1, -1)])


@contextmanager
def reference_images_act(parts: Parts) -> Iterator[int]:
    """Inside, let reference images act on their rows of every call; yields how many layers are hooked."""
    layers = dict.fromkeys(layer for prompts, _ in parts for prompt in prompts for layer in prompt.layers)
    with ExitStack() as hooks:
        for attention in layers:
            hook = _LayerHook(attention, parts)
            # LoRAs' hooks are called before this one, whenever they are registered.
            hooks.callback(attention.to_q.register_forward_hook(hook.keep).remove)
            hooks.callback(attention.to_out[0].register_forward_pre_hook(hook.add, prepend=True).remove)
        yield len(layers)
