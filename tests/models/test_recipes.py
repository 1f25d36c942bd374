"""The recipes say the same as the families' own pipelines: what is trained is what will be run."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from models.training.networks.export import FAMILIES, Tokenizers, assemble, fresh_parts, make_tokenizers
from models.training.recipes import Conditions, load_recipe, pad_to

CAPTIONS = ["a red circle on a blue background", "a small striped star at the top left"]
T5_TOKENS = 32


@pytest.fixture(scope="module")
def words() -> Tokenizers:
    return make_tokenizers()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def parts(family: str, words: Tokenizers) -> dict[str, Any]:
    torch.manual_seed(0)
    return {name: model.eval() for name, model in fresh_parts(family, words).items()}


@pytest.fixture(scope="module")
def conditions(family: str, parts: dict[str, Any], words: Tokenizers) -> Conditions:
    with torch.no_grad():
        return load_recipe(family).encode(parts, words, CAPTIONS)


def ask_pipeline(family: str, pipeline: Any) -> tuple[Tensor, Tensor]:
    if family == "sdxl":
        hidden, _, pooled, _ = pipeline.encode_prompt(CAPTIONS, do_classifier_free_guidance=False)
        return hidden, pooled
    if family == "sd15":
        hidden, _ = pipeline.encode_prompt(CAPTIONS, "cpu", 1, do_classifier_free_guidance=False)
        return hidden, hidden.new_zeros(len(CAPTIONS), 0)
    if family == "sd3":
        hidden, _, pooled, _ = pipeline.encode_prompt(
            CAPTIONS, None, None, do_classifier_free_guidance=False, max_sequence_length=T5_TOKENS
        )
        return hidden, pooled
    hidden, pooled, _ = pipeline.encode_prompt(CAPTIONS, None, max_sequence_length=T5_TOKENS)
    return hidden, pooled


def denoiser_of(parts: dict[str, Any]) -> Any:
    return parts.get("unet", parts.get("transformer"))


def draw_noise(family: str) -> Tensor:
    return torch.randn(len(CAPTIONS), load_recipe(family).latent_channels, 8, 8)


def test_captions_are_encoded_as_the_pipeline_encodes_them(
    family: str, parts: dict[str, Any], words: Tokenizers, conditions: Conditions
) -> None:
    hidden, pooled = ask_pipeline(family, assemble(family, parts, words))
    assert torch.allclose(conditions.hidden, hidden, atol=1e-5)
    assert torch.allclose(conditions.pooled, pooled, atol=1e-5)


def test_an_image_without_noise_is_the_image(family: str) -> None:
    recipe, clean = load_recipe(family), draw_noise(family)
    noisy, _ = recipe.mix(clean, torch.randn_like(clean), torch.zeros(len(clean)))
    assert torch.allclose(noisy, clean, atol=0.2)  # SDXL's schedule starts a little above zero


def test_the_denoiser_answers_in_the_shape_of_the_latents(
    family: str, parts: dict[str, Any], conditions: Conditions
) -> None:
    recipe, rng = load_recipe(family), random.Random(0)
    noisy = draw_noise(family)
    varied = recipe.vary(conditions, rng)
    with torch.no_grad():
        extra = recipe.extras(len(noisy), rng)
        answer = recipe.predict(denoiser_of(parts), noisy, torch.rand(len(noisy)), varied, **extra)
    assert answer.shape == noisy.shape
    assert answer.isfinite().all()


def test_states_are_cut_or_padded_with_their_last() -> None:
    hidden = torch.randn(2, 5, 3)
    assert torch.equal(pad_to(hidden, 3), hidden[:, :3])
    assert torch.equal(pad_to(hidden, 7)[:, :5], hidden)
    assert torch.equal(pad_to(hidden, 7)[:, 6], hidden[:, 4])
