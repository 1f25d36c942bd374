"""A model whose defaults no request could ask for is refused at the start, not with each of its requests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.errors import CatalogueError
from contracts.requests.model_defaults import read_checked_catalogue
from contracts.settings import BUILT_IN_CATALOGUE


def write(folder: Path, family: str, row: str) -> Path:
    path = folder / "catalogue.toml"
    model = f'[[models]]\nid = "one"\nfamily = "{family}"\nsource = "somebody/model"\n{row}\n'
    path.write_text(f'default_model = "one"\n{model}', encoding="utf-8")
    return path


def test_the_built_in_catalogue_has_valid_defaults() -> None:
    assert len(read_checked_catalogue(BUILT_IN_CATALOGUE).models) > 1


@pytest.mark.parametrize(
    ("family", "row"),
    [
        ("flux", "defaults = { true_cfg_scale = 30, max_sequence_length = 512, guidance_scale = 0 }"),
        ("flux", 'refuses = ["max_sequence_length", "strength"]'),
        ("sdxl", "defaults = { width = 512, height = 512, guidance_rescale = 1.0 }\nmax_pixels = 262144"),
    ],
)
def test_defaults_at_the_bounds_are_accepted(tmp_path: Path, family: str, row: str) -> None:
    read_checked_catalogue(write(tmp_path, family, row))


@pytest.mark.parametrize(
    ("family", "row", "complaint"),
    [
        (
            "flux",
            "defaults = { true_cfg_scale = 31.0 }",
            r"defaults.true_cfg_scale: .* less than or equal to 30, got",
        ),
        ("flux", "defaults = { max_sequence_length = 513 }", "defaults.max_sequence_length"),
        ("flux", 'defaults = { guidance_scale = "3" }', "defaults.guidance_scale: .* valid number"),
        ("sdxl", "defaults = { guidance_rescale = -0.1 }", "defaults.guidance_rescale"),
        ("sdxl", "defaults = { guidance_rescale = nan }", "defaults.guidance_rescale: .* finite"),
        ("sdxl", "defaults = { num_inference_steps = 201 }", "defaults.num_inference_steps"),
        ("sdxl", "defaults = { num_inference_steps = 12.0 }", "defaults.num_inference_steps: .* valid integer"),
        ("sdxl", "defaults = { width = 4096 }", "defaults.width"),
        ("sdxl", "defaults = { width = 100 }", "defaults.width must be a multiple of 8"),
        ("sdxl", "max_pixels = 262144", "defaults.width is too large|defaults.height is too large"),
        ("sdxl", 'refuses = ["guidances"]', "refuses names unknown fields: guidances"),
    ],
)
def test_a_default_that_no_request_could_ask_for_is_refused_with_its_name_and_range(
    tmp_path: Path, family: str, row: str, complaint: str
) -> None:
    with pytest.raises(CatalogueError, match=rf"models.0 \(one\): .*({complaint})"):
        read_checked_catalogue(write(tmp_path, family, row))


def _checkpoint(folder: Path, scheduler: dict[str, object], row: str = "") -> Path:
    """A catalogue whose one model is a folder with nothing but a scheduler's configuration."""
    path = folder / "catalogue.toml"
    (folder / "own" / "scheduler").mkdir(parents=True)
    (folder / "own" / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    model = f'[[models]]\nid = "one"\nfamily = "sdxl"\nsource = "own"\n{row}\n'
    path.write_text(f'default_model = "one"\n{model}', encoding="utf-8")
    return path


def test_a_models_schedulers_and_its_default_are_those_that_its_checkpoint_allows(tmp_path: Path) -> None:
    (model,) = read_checked_catalogue(_checkpoint(tmp_path, {"_class_name": "EDMEulerScheduler"})).models
    assert model.schedulers == ["edm_euler", "edm_dpmpp_2m"]
    assert model.default("scheduler") == "edm_euler"


@pytest.mark.parametrize(
    ("scheduler", "row", "complaint"),
    [
        (
            {"_class_name": "EDMEulerScheduler"},
            'defaults = { scheduler = "ddim" }',
            "'ddim' does not fit .* use edm",
        ),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "", "cannot follow .* trained for FlowMatchEuler"),
        (
            {"_class_name": "EulerDiscreteScheduler", "rescale_betas_zero_snr": True},
            'defaults = { scheduler = "heun" }',
            "'heun' does not fit .* use euler, euler_karras, euler_a, ddim",
        ),
    ],
)
def test_a_default_scheduler_that_would_drop_the_checkpoints_settings_is_refused_at_the_start(
    tmp_path: Path, scheduler: dict[str, object], row: str, complaint: str
) -> None:
    with pytest.raises(CatalogueError, match=complaint):
        read_checked_catalogue(_checkpoint(tmp_path, scheduler, row))
