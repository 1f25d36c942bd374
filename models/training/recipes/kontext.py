"""FLUX.1 Kontext: FLUX, and the latents of a reference behind the noise in the sequence.

They have the same places; what tells them from the noise is the first number of their ids, which is 1. Guidance
does little: training shows every strength, and asks for the same.
"""

import random
from typing import Any

import torch
from torch import Tensor

from models.training.recipes import Conditions, pad_to
from models.training.recipes.flux import FluxRecipe, pack

_LEAST_GUIDANCE, _MOST_GUIDANCE = 1.0, 5.0
#: What is added to the places of a reference.
_REFERENCE = (1.0, 0.0, 0.0)
#: T5 tokens -> how many batches have them. No instruction is longer than the least; the pipeline pads further.
_TOKENS = {20: 0.76, 32: 0.16, 64: 0.07, 160: 0.01}


class KontextRecipe(FluxRecipe):
    """See `Recipe`; `predict` also takes a reference."""

    def vary(self, conditions: Conditions, rng: random.Random) -> Conditions:
        """Changes T5's padding, for the whole batch: fewer tokens are faster."""
        length = rng.choices(tuple(_TOKENS), tuple(_TOKENS.values()))[0]
        return Conditions(pad_to(conditions.hidden, length), conditions.pooled)

    def extras(self, count: int, rng: random.Random) -> dict[str, Tensor]:
        """Any guidance."""
        return {"guidance": torch.tensor([rng.uniform(_LEAST_GUIDANCE, _MOST_GUIDANCE) for _ in range(count)])}

    def arrange(self, noisy: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Behind the noisy tokens those of the reference, which `extra` holds."""
        tokens, places = pack(noisy)
        seen, there = pack(extra.pop("reference"))
        return torch.cat([tokens, seen], 1), torch.cat([places, there + there.new_tensor(_REFERENCE)])


RECIPE = KontextRecipe()
