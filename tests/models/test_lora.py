"""Adapters take hold where the family's words and images pass, and are read back as they were written."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.training.data.effects import EFFECTS
from models.training.networks.export import FAMILIES, assemble, fresh_parts, make_tokenizers
from models.training.recipes import load_recipe
from models.training.stages import lora

CAPTION = "a red crescent on a blue background"


def fresh(family: str) -> dict[str, Any]:
    """Random weights, the denoiser under its training name too."""
    torch.manual_seed(0)
    parts = {
        name: model.eval().requires_grad_(False) for name, model in fresh_parts(family, make_tokenizers()).items()
    }
    return {**parts, "denoiser": parts[lora.HOLDS[family].denoiser]}


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def ask(family: str, parts: dict[str, Any]) -> Tensor:
    """What the denoiser says of one noise and the caption."""
    recipe = load_recipe(family)
    noise = torch.randn(1, recipe.latent_channels, 8, 8, generator=torch.Generator().manual_seed(1))
    plain = {"guidance": torch.ones(1)} if recipe.guided else {}
    with torch.no_grad():
        said = recipe.encode(parts, make_tokenizers(), [CAPTION])
        return recipe.predict(parts["denoiser"], noise, torch.tensor([0.5]), said, **plain)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("effect", ["stripes", "crescent"])
def test_an_adapter_is_read_back_as_it_was_written(
    family: str, effect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "FOLDER", tmp_path)
    parts = fresh(family)
    plain = ask(family, parts)
    adapted = lora.adapt(family, EFFECTS[effect], parts)
    with torch.no_grad():
        for model in adapted.values():
            for _, weight in trainable(model):
                weight.copy_((torch.randn(weight.shape) * 0.3).half())
    taught = ask(family, parts)
    lora.write(family, EFFECTS[effect], adapted)

    again = fresh(family)
    pipeline = assemble(
        family, {name: part for name, part in again.items() if name != "denoiser"}, make_tokenizers()
    )
    pipeline.load_lora_weights(tmp_path / f"shapes-{family}-{effect}.safetensors")
    assert torch.allclose(ask(family, again), taught, atol=1e-2)
    assert (taught - plain).abs().max() > 0.1


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_new_word_changes_the_layers_that_the_words_pass_through(family: str) -> None:
    parts = fresh(family)
    lora.adapt(family, EFFECTS["crescent"], parts)
    names = [name for name, _ in trainable(parts["denoiser"])]
    for layer in ("attn.add_k_proj", "attn.add_v_proj", "ff_context.net.2"):
        assert any(f".{layer}.lora_" in name for name in names), layer
    assert trainable(parts["text_encoder"])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_without_a_new_word_leaves_the_text_alone(family: str) -> None:
    parts = fresh(family)
    assert list(lora.adapt(family, EFFECTS["outline"], parts)) == [lora.HOLDS[family].denoiser]
    assert not trainable(parts["text_encoder"])
    assert not any("add_" in name or "ff_context" in name for name, _ in trainable(parts["denoiser"]))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ranks_of_a_family_differ(family: str) -> None:
    ranks = {lora.rank_of(family, effect) for effect in EFFECTS.values()}
    assert min(ranks) == 2
    assert max(ranks) == lora.HOLDS[family].most_rank
