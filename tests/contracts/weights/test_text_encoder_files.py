"""Rows of models that name files of text encoders: what they may name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.weights.row_files import check_row_files
from contracts.weights.text_encoder_files import TextEncoderFacts, check_text_encoder, read_text_encoder


@pytest.mark.parametrize(
    ("family", "encoders", "message"),
    [
        ("flux", {"text_encoder_3": "t5.safetensors"}, r"can be text_encoder, text_encoder_2, got"),
        ("z-image", {"text_encoder": "qwen.safetensors"}, r"of family z-image can be none, got 'text_encoder'"),
        ("flux", {"text_encoder_2": "t5.gguf"}, r"text_encoder_2 must be a \.safetensors file, here or on a hub"),
        ("sdxl", {"text_encoder": "org/clip"}, r"text_encoder must be a \.safetensors file, .* got 'org/clip'"),
    ],
)  # fmt: skip
def test_a_row_names_safetensors_files_for_encoders_of_its_family(
    family: str, encoders: dict[str, str], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSpec(id="one", family=family, source="one", text_encoders=encoders)


def test_commits_are_put_into_addresses_of_files_on_a_hub_only() -> None:
    row = ModelSpec(
        id="one", family="flux", source="one",
        text_encoders={"text_encoder": "clip_l.safetensors", "text_encoder_2": "org/name/a/t5.safetensors"},
    )  # fmt: skip
    pinned = row.pinned(None, None, {"text_encoder": None, "text_encoder_2": "0" * 40})
    assert pinned.text_encoders == {
        "text_encoder": "clip_l.safetensors",
        "text_encoder_2": f"https://huggingface.co/org/name/blob/{'0' * 40}/a/t5.safetensors",
    }


def test_a_file_says_what_it_is_and_one_that_is_missing_is_refused_at_the_start(tmp_path: Path) -> None:
    table = np.zeros((8, 6), np.float32)
    save_file({"shared.weight": table, "encoder.block.11.layer.0.x": table}, tmp_path / "t5.safetensors")
    assert read_text_encoder(tmp_path / "t5.safetensors") == TextEncoderFacts("T5", 6, 1)
    with pytest.raises(
        CatalogueError, match=r"t5\.safetensors is a T5 of width 6 with 1 layers, and the model needs"
    ):
        check_text_encoder("a", tmp_path / "t5.safetensors", {"model_type": "t5", "d_model": 6, "num_layers": 2})
    with pytest.raises(CatalogueError, match="a is a qwen3 here, and only CLIP text models and T5"):
        check_text_encoder("a", tmp_path / "t5.safetensors", {"model_type": "qwen3"})
    row = ModelSpec(
        id="one", family="flux", source="org/flux", text_encoders={"text_encoder_2": "gone.safetensors"}
    )
    catalogue = Catalogue(root=tmp_path, default_model="one", models=(row,))
    with pytest.raises(CatalogueError, match=r"org/flux: gone\.safetensors was not found on this machine"):
        check_row_files(catalogue, row)
