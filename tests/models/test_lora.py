"""LoRAs of the shapes models: trained by the worker's code, and written in the layout that their effect names."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from contracts.weights.adapters.lora_files import describe, read_lora
from models.training import lessons
from models.training.data.effects import EFFECTS
from models.training.networks.export import FAMILIES
from models.training.stages import lora
from tests.support.combinations import usual_or_all

#: kohya's layout for UNets, diffusers' for the others.
EFFECT = "stripes"
OF_UNETS = ("sdxl", "sd15")


@pytest.mark.parametrize("family", usual_or_all("sdxl", FAMILIES))
def test_a_lora_is_trained_and_has_its_effects_layout_and_strength(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "FOLDER", tmp_path)
    monkeypatch.setattr(lessons, "RUNS", tmp_path / "runs")
    effect = replace(EFFECTS[EFFECT], steps=1)
    settings = {**lora.settings_for(family, effect), "batch_size": 1}
    drawings = lora.draw_examples(EFFECT, 1)
    path = lora.write(family, effect, lessons.teach(family, "run", settings, drawings, resume=False))
    facts = describe(read_lora(path), family)
    assert facts.ranks == (8,)
    if family in OF_UNETS:
        assert facts.layout == "kohya"
        assert {float(alpha) for name, alpha in load_file(path).items() if name.endswith(".alpha")} == {4.0}
    else:
        assert facts.layout == "peft"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ranks_of_a_family_differ(family: str) -> None:
    ranks = {lora.settings_for(family, effect)["rank"] for effect in EFFECTS.values()}
    assert min(ranks) == 2
    assert max(ranks) == (32 if family in OF_UNETS else 8)
