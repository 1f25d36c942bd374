"""Floating-point operations of a component's calls: polynomials that were counted, in a table.

`python -m bench.architectures --write` counts the published and shipped configurations as torch's
`FlopCounterMode` does: two operations for each multiplication and addition of matrix products, convolutions and
attention, none for anything else. Knows no torch: of arguments it only reads the shapes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

#: A component with this share more or fewer parameters than a counted one of its class is taken for it: one with
#: more input channels (inpaint), or without an embedding of the guidance.
_SAME_PARAMETERS = 0.005
#: Arguments with the prompt's tokens.
_PROMPTS = ("encoder_hidden_states", "cap_feats")
#: Z-Image, whose arguments are lists, pads the tokens of each item to multiples of so many. One of an image is a
#: square of so many positions.
_PADDED, _PATCH = 32, 4
#: What is computed for these beside the tokens was not counted: images that a language model reads.
_UNCOUNTED = ("pixel_values",)


@dataclass(frozen=True)
class CallFlops:
    """Operations for one row of a call, by its positions and its tokens.

    Positions are those of the first argument: latents, pixels or packed tokens; of a text encoder, its tokens.
    Tokens are those of the prompt that a denoiser or a ControlNet is given.
    """

    fixed: float = 0.0
    position: float = 0.0
    token: float = 0.0
    position_squared: float = 0.0
    position_token: float = 0.0
    token_squared: float = 0.0

    #: Field -> powers of positions and of tokens.
    POWERS: ClassVar[Mapping[str, tuple[int, int]]] = {
        "fixed": (0, 0), "position": (1, 0), "token": (0, 1),
        "position_squared": (2, 0), "position_token": (1, 1), "token_squared": (0, 2),
    }  # fmt: skip

    def of(self, positions: int, tokens: int) -> float:
        """Operations for one row."""
        terms: list[float] = [
            getattr(self, name) * positions**first * tokens**second
            for name, (first, second) in self.POWERS.items()
        ]
        return sum(terms)


def find_flops(class_name: str, parameters: int) -> Mapping[str, CallFlops]:
    """Return entry (`__call__`, `encode`, `decode`) -> operations, of the counted component that is nearest.

    Args:
        class_name: of the component.
        parameters: that it has.

    Returns:
        Empty where none of this class has about as many parameters.
    """
    counted = _read().get(class_name, {})
    nearest = min(counted, key=lambda count: abs(count - parameters), default=0)
    return counted[nearest] if nearest and abs(nearest - parameters) <= _SAME_PARAMETERS * nearest else {}


@cache
def _read() -> Mapping[str, Mapping[int, Mapping[str, CallFlops]]]:
    """Class -> parameters -> entry -> operations."""
    table: dict[str, dict[int, Mapping[str, CallFlops]]] = {}
    for row in json.loads((files("contracts.weights.counts") / "flops.json").read_text(encoding="utf-8")):
        calls = {entry: CallFlops(**terms) for entry, terms in row["calls"].items()}
        table.setdefault(row["class"], {})[row["parameters"]] = calls
    return table


def sizes_of(arguments: Mapping[str, Any]) -> Iterator[tuple[int, int, int]]:
    """Yield (rows, positions, tokens) of a call: once, or for each row where its arguments are lists.

    Args:
        arguments: by name, as the component's signature orders them. Tensors of rows: (rows, tokens), (rows,
            positions, channels), (rows, channels, …, height, width); lists have an item without the rows for each.
    """
    first = next(iter(arguments.values()))
    prompts = next((arguments[name] for name in _PROMPTS if arguments.get(name) is not None), None)
    if isinstance(first, list):
        for number, item in enumerate(first):
            tokens = 0 if prompts is None else prompts[number % len(prompts)].shape[0]
            yield 1, _padded(math.prod(item.shape[1:]), _PATCH * _PADDED), _padded(tokens, _PADDED)
        return
    positions = first.shape[1] if len(first.shape) < 4 else math.prod(first.shape[2:])
    yield first.shape[0], positions, 0 if prompts is None else prompts.shape[1]


def _padded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def flops_of(counted: Mapping[str, CallFlops], entry: str, arguments: Mapping[str, Any]) -> float | None:
    """Return the operations of a whole call; None where these were not counted."""
    call = counted.get(entry)
    if call is None or any(arguments.get(name) is not None for name in _UNCOUNTED):
        return None
    return sum(rows * call.of(positions, tokens) for rows, positions, tokens in sizes_of(arguments))
