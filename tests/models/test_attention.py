"""Plain attention computes what the fused kernel does, and nothing else."""

import pytest
import torch
import torch.nn.functional as functional
from torch import nn

from models.training.networks.attention import attend, keep_plain


class Attentive(nn.Module):
    """The least model that attends."""

    device = torch.device("cpu")

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Self-attention without weights."""
        return functional.scaled_dot_product_attention(states, states, states)


def test_plain_attention_is_the_fused_kernels() -> None:
    query, key, value = (torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(n)) for n in range(3))
    fused = functional.scaled_dot_product_attention(query, key, value)
    assert torch.allclose(attend(query, key, value), fused, atol=1e-6)


def test_a_model_that_is_kept_plain_never_reaches_the_fused_kernel() -> None:
    model, states = Attentive(), torch.randn(2, 4, 9, 8)
    before = model(states)
    keep_plain(model)
    with torch.profiler.profile() as profile:
        after = model(states)
    assert torch.allclose(after, before, atol=1e-6)
    assert not [event.key for event in profile.key_averages() if "scaled_dot_product" in event.key]


def test_what_plain_attention_does_not_know_is_refused() -> None:
    states = torch.randn(1, 1, 3, 4)
    with pytest.raises(ValueError, match="mask"):
        attend(states, states, states, is_causal=True)
