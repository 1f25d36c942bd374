"""Configurations of components: read from their folders, and read again only when a file has changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.errors import CatalogueError
from contracts.weights.configs import read_config, read_configs


def test_each_component_that_has_a_configuration_is_read_under_its_name(tmp_path: Path) -> None:
    for name in ("unet", "vae", "tokenizer"):
        (tmp_path / name).mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"in_channels": 4}')
    (tmp_path / "vae" / "config.json").write_text('{"scaling_factor": 0.13}')

    assert read_configs(tmp_path) == {"unet": {"in_channels": 4}, "vae": {"scaling_factor": 0.13}}
    assert read_config(tmp_path / "tokenizer") == {}


def test_a_changed_configuration_is_read_again_and_what_callers_change_is_theirs(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"layers": 2}))
    first = dict(read_config(tmp_path))
    read_config(tmp_path)["layers"] = 9  # type: ignore[index]
    assert read_config(tmp_path) == first == {"layers": 2}

    file.write_text(json.dumps({"layers": 12}))
    assert read_config(tmp_path) == {"layers": 12}


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", r"unet/config\.json: .+ column 2"), ("[]", r"unet/config\.json is not a JSON object")],
)
def test_a_configuration_that_is_no_object_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(text)
    with pytest.raises(CatalogueError, match=message):
        read_configs(tmp_path)
