"""The memory plan, held against what diffusers really loads, and against published sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from contracts.catalogue import Catalogue, ModelSpec
from contracts.errors import CatalogueError
from worker.pipelines import Pool
from worker.placement import count_values, plan, plan_all

GIB = 2**30
#: Published sizes in bfloat16, bytes: the weights of SDXL and FLUX.1-dev.
SDXL_VALUES, FLUX_VALUES = 6_937_675_734 // 2, 33_741_198_278 // 2


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_headers_tell_exactly_what_is_loaded(family: str, catalogue: Catalogue, pool: Pool) -> None:
    spec = next(row for row in catalogue.models if row.family == family)
    loaded = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in pool.model(spec.id).base.components.items()
        if isinstance(part, torch.nn.Module)
    }
    counted = count_values(catalogue.root / spec.source)
    assert counted.keys() == loaded.keys()
    for name, values in loaded.items():
        # SD3's position table is a buffer, which the file holds and `parameters` does not list.
        assert counted[name] >= values
        assert counted[name] - values <= 0.1 * counted[name]


def test_a_larger_budget_never_paints_fewer_pixels_and_a_tight_one_paints_none() -> None:
    model = ModelSpec(id="xl", family="sdxl", source="somebody/model")
    pixels = [plan(model, {"all": SDXL_VALUES}, gib * GIB, 2).batch_pixels for gib in (4, 8, 12, 24, 80)]
    assert pixels == sorted(pixels)
    assert pixels[0] == 0
    assert pixels[2] >= 1024 * 1024


def test_flux_in_bfloat16_fits_48_gib_and_not_24() -> None:
    model = ModelSpec(id="dev", family="flux", source="somebody/model")
    assert plan(model, {"all": FLUX_VALUES}, 24 * GIB, 2).batch_pixels == 0
    assert plan(model, {"all": FLUX_VALUES}, 48 * GIB, 2).batch_pixels >= 1024 * 1024


def test_all_local_models_are_planned(catalogue: Catalogue) -> None:
    plans = plan_all(catalogue, GIB, 4)
    assert plans.keys() == {row.id for row in catalogue.models}
    for one in plans.values():
        assert 0 < one.resident_bytes < 40_000_000
        assert one.batch_pixels > 256 * 256


def test_variants_and_shards_are_counted_once(tmp_path: Path) -> None:
    folder = tmp_path / "unet"
    folder.mkdir()
    for name, values in {
        "model.safetensors": 10,
        "model.fp16.safetensors": 20,
    }.items():
        save_file({"weight": torch.zeros(values)}, folder / name)
    assert count_values(tmp_path) == {"unet": 10}
    assert count_values(tmp_path, "fp16") == {"unet": 20}
    shards = tmp_path / "sharded" / "transformer"
    shards.mkdir(parents=True)
    for number in (1, 2):
        for variant in ("", ".fp16"):
            file = shards / f"model{variant}-0000{number}-of-00002.safetensors"
            save_file({f"weight{number}": torch.zeros(5)}, file)
    assert count_values(tmp_path / "sharded") == {"transformer": 10}
    assert count_values(tmp_path / "sharded", "fp16") == {"transformer": 10}


def test_a_file_that_is_none_is_said_by_name(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CatalogueError, match=r"model\.safetensors is no safetensors file"):
        count_values(tmp_path / "model.safetensors")
