"""The files of the shipped adapters: layouts, the parts that they change, and the bad ones."""

import pytest
import safetensors
from diffusers import StableDiffusionXLPipeline
from safetensors.numpy import load_file

from contracts.weights.adapters.lora_files import describe, read_lora
from models.training.judging import trials
from models.training.stages.effect import KINDS, path
from models.training.stages.lora import FOLDER
from models.training.stages.mismatches import BAD_ADAPTERS
from tests.support.trained import TRAINED_FAMILIES


def test_one_adapter_has_the_layout_of_kohya_with_an_alpha_of_its_own() -> None:
    weights = load_file(FOLDER / "shapes-sdxl-stripes.safetensors")
    alphas = [value for name, value in weights.items() if name.endswith(".alpha")]
    downs = [value for name, value in weights.items() if name.endswith(".lora_down.weight")]
    assert all(name.startswith("lora_unet_") for name in weights)
    assert len(alphas) == len(downs)
    assert {float(alpha) for alpha in alphas} == {4.0}
    assert {down.shape[0] for down in downs} == {8}


@pytest.mark.parametrize("family", TRAINED_FAMILIES)
def test_the_adapter_with_a_new_word_changes_the_text_encoders_too(family: str) -> None:
    names = load_file(FOLDER / f"shapes-{family}-crescent.safetensors")
    clips = {"text_encoder"} if family == "flux" else {"text_encoder", "text_encoder_2"}
    assert {name.split(".")[0] for name in names} == {"unet" if family == "sdxl" else "transformer"} | clips


@pytest.mark.parametrize("kind", KINDS)
def test_an_effect_of_another_kind_is_read_as_that_kind(kind: str) -> None:
    assert describe(read_lora(path(kind)), "sdxl").kinds == (kind,)


def test_the_truncated_adapter_cannot_be_read() -> None:
    with pytest.raises(safetensors.SafetensorError):
        load_file(BAD_ADAPTERS / "truncated.safetensors")


def test_the_adapter_of_a_wrong_family_does_not_fit() -> None:
    pipeline = StableDiffusionXLPipeline(**trials.open_pipeline("sdxl").components)
    with pytest.raises(Exception, match="shape"):
        pipeline.load_lora_weights(BAD_ADAPTERS / "wrong-family.safetensors")
