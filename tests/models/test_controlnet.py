"""ControlNets of the shapes models: trained by the worker's code, and written as diffusers' class."""

from pathlib import Path

import pytest
import torch

from models.training import lessons
from models.training.networks.export import FAMILIES, build_control
from models.training.stages import controlnet
from tests.support.combinations import usual_or_all


@pytest.mark.parametrize("family", usual_or_all("flux", FAMILIES))
def test_a_controlnet_is_trained_and_read_again(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (controlnet, lessons):
        monkeypatch.setattr(module, "RUNS", tmp_path)
    monkeypatch.setattr(controlnet, "_PAIRS", 2)
    settings = {**controlnet.SETTINGS[family], "steps": 1, "batch_size": 1, "warmup_steps": 0}
    monkeypatch.setattr(controlnet, "SETTINGS", {family: settings})
    controlnet.train(family, "silhouette", resume=False)
    trained = controlnet.load(family, "silhouette").state_dict()
    fresh = build_control(family, controlnet.load_denoiser(family)).state_dict()
    assert trained.keys() == fresh.keys()
    assert not all(torch.equal(trained[name], fresh[name]) for name in fresh)
