"""VAEs of the catalogue: which suit a model, by their configurations, and what is refused at the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from contracts.catalogue.catalogue import Catalogue, VaeSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.requests.checks.vaes import vae_ids
from contracts.weights.row_files import check_row_files
from contracts.weights.vae_files import WEIGHTS, check_vae_row, latent_space, with_vaes

KL: dict[str, Any] = {
    "_class_name": "AutoencoderKL", "latent_channels": 4, "scaling_factor": 0.13025, "shift_factor": None,
    "block_out_channels": [1, 1, 1, 1],
}  # fmt: skip
TINY: dict[str, Any] = {"_class_name": "AutoencoderTiny", "latent_channels": 4, "scaling_factor": 1.0}


def write(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"a": np.zeros(1, np.float32)}, folder / WEIGHTS)


def catalogue(root: Path, *vaes: str, **named: str) -> Catalogue:
    """A model whose row names VAEs (`vae`, `preview_vae`), and rows of VAEs."""
    rows = tuple(VaeSpec(id=id, family="sdxl", source=id) for id in vaes)
    models = (ModelSpec(id="xl", family="sdxl", source="xl", **named),)
    return Catalogue(root=root, default_model="xl", models=models, vaes=rows)


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        (KL, None),
        (TINY, None),
        ({**KL, "scaling_factor": 0.18215}, "scaling_factor is 0.18215, and the model's is 0.13025"),
        ({**KL, "shift_factor": 0.1}, "shift_factor is 0.1, and the model's is 0"),
        ({**KL, "latent_channels": 16}, "channels is 16, and the model's is 4"),
        ({**KL, "block_out_channels": [1, 1, 1]}, "stride is 4, and the model's is 8"),
        ({**TINY, "latent_channels": 16}, "channels is 16, and the model's is 4"),
        ({**TINY, "scaling_factor": 0.5}, "scaling_factor is 0.5, and must be 1"),
    ],
)
def test_a_vae_suits_a_model_whose_latents_it_reads(
    tmp_path: Path, config: dict[str, Any], difference: str | None
) -> None:
    write(tmp_path / "xl" / "vae", KL)
    write(tmp_path / "other", config)
    known = with_vaes(catalogue(tmp_path, "other"))

    assert vae_ids(known.model("xl"), known) == ([] if difference else ["other"])
    if difference is not None:
        with pytest.raises(CatalogueError, match=f"models: xl: vae: other does not suit xl: its {difference}"):
            with_vaes(catalogue(tmp_path, "other", vae="other"))


def test_a_row_that_names_no_vae_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "controlnet", {"_class_name": "ControlNetModel"})
    with pytest.raises(CatalogueError, match="it is a ControlNetModel; a VAE must be an AutoencoderKL or an Auto"):
        with_vaes(catalogue(tmp_path, "controlnet"))
    with pytest.raises(CatalogueError, match="has no row 'gone'"):
        with_vaes(catalogue(tmp_path, vae="gone"))


def test_previews_are_made_by_a_tiny_vae_with_the_models_latents(tmp_path: Path) -> None:
    write(tmp_path / "xl" / "vae", KL)
    for name, config in (("tiny", TINY), ("usual", KL), ("other", {**TINY, "latent_channels": 16})):
        write(tmp_path / name, config)
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "alone.safetensors")
    vaes = ("tiny", "usual", "other", "alone.safetensors")

    assert with_vaes(catalogue(tmp_path, *vaes, preview_vae="tiny")).model("xl").preview_vae == "tiny"
    for id, reason in (
        ("usual", "usual is an AutoencoderKL; previews are made by an AutoencoderTiny"),
        ("other", "its channels is 16, and the model's is 4"),
        ("alone.safetensors", "is a file without config.json"),
        ("gone", "has no row 'gone'; its rows: tiny, usual"),
    ):
        with pytest.raises(CatalogueError, match=f"models: xl: preview_vae: .*{reason}"):
            with_vaes(catalogue(tmp_path, *vaes, preview_vae=id))


def test_a_folder_that_is_missing_or_has_no_weights_is_refused_at_the_start(tmp_path: Path) -> None:
    write(tmp_path / "whole", KL)
    write(tmp_path / "empty", KL)
    (tmp_path / "empty" / WEIGHTS).unlink()
    rows = with_vaes(catalogue(tmp_path, "whole", "empty", "absent"))

    check_vae_row(rows.vae("whole"), tmp_path / "whole")
    with pytest.raises(CatalogueError, match=f"{WEIGHTS} is missing"):
        check_vae_row(rows.vae("empty"), tmp_path / "empty")
    with pytest.raises(CatalogueError, match="absent was not found on this machine"):
        check_row_files(rows, rows.vae("absent"))


def test_a_file_is_read_by_the_configuration_beside_it_or_taken_to_be_as_the_models_own(tmp_path: Path) -> None:
    write(tmp_path / "xl" / "vae", KL)
    write(tmp_path / "whole", {**KL, "scaling_factor": 0.5})
    (tmp_path / "whole" / WEIGHTS).rename(tmp_path / "whole" / "mine.safetensors")
    for name, key in (("alone", "first_stage_model.decoder.conv_in.weight"), ("lora", "unet.lora_A.weight")):
        save_file({key: np.zeros(1, np.float32)}, tmp_path / f"{name}.safetensors")
    sources = {"whole": "whole/mine.safetensors", "alone": "alone.safetensors", "lora": "lora.safetensors"}
    rows = tuple(VaeSpec(id=id, family="sdxl", source=source) for id, source in sources.items())
    known = with_vaes(catalogue(tmp_path).model_copy(update={"vaes": rows}))

    assert known.vae("whole").latents == latent_space({**KL, "scaling_factor": 0.5})
    assert vae_ids(known.model("xl"), known) == ["alone", "lora"]
    check_row_files(known, known.vae("whole"))
    check_row_files(known, known.vae("alone"))
    with pytest.raises(CatalogueError, match="it is not the file of a VAE"):
        check_row_files(known, known.vae("lora"))
