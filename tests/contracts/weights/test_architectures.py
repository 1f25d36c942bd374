"""Published architectures: the files agree with the models."""

from __future__ import annotations

import pytest

from bench.architectures import compare_bytes
from contracts.weights.architectures import Architecture, find_architecture, read_architectures


@pytest.mark.parametrize("architecture", read_architectures(), ids=lambda architecture: architecture.id)
def test_models_built_on_the_meta_device_have_the_published_bytes(architecture: Architecture) -> None:
    rows, agrees = compare_bytes(architecture)
    assert agrees, rows


def test_a_checkpoint_is_known_by_its_hub_id_or_by_the_only_architecture_of_its_family() -> None:
    def found(family: str, source: str) -> str | None:
        architecture = find_architecture(family, source)
        return None if architecture is None else architecture.id

    assert found("sd3", "stabilityai/stable-diffusion-3.5-large") == "sd3.5-large"
    assert found("sd3", "stabilityai/stable-diffusion-3-medium-diffusers") == "sd3-medium"
    assert found("sdxl", "somebody/a-fine-tune") == "sdxl"
    assert found("flux", "black-forest-labs/FLUX.1-schnell") == "flux.1-dev"
    assert found("sd3", "somebody/a-fine-tune") is None
