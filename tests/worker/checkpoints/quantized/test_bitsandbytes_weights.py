"""bitsandbytes' quantizations without the package or a card: refused before anything is loaded.

Loading and computing are tested where the package is (`quality/test_bitsandbytes.py`, `make judge`), and by the
block `bitsandbytes` of `make gpu-check` on a card.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.quantizations import QUANTIZATIONS, kinds_of
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.memory.sizes.component import Component
from contracts.memory.sizes.models import read_components
from worker.checkpoints import components
from worker.checkpoints.loader import load_model
from worker.checkpoints.quantized import bitsandbytes_weights
from worker.checkpoints.rehearsal import rehearse_model
from worker.families import get_family

KINDS = kinds_of("bitsandbytes")


def _row(catalogue: Catalogue, kind: str | None) -> ModelSpec:
    source = (catalogue.root / "shapes-flux").resolve()
    return ModelSpec(id="one", family="flux", source=str(source), quantization=kind)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, r"needs the package bitsandbytes: pip install 'darkroom\[quantization-bitsandbytes\]'"),
        (object(), "needs a CUDA card, and this worker has none: name int8_weight_only or float8_weight_only as"),
    ],
)
def test_a_row_is_refused_at_the_start_and_before_weights_are_read(
    found: object, reason: str, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bitsandbytes_weights, "find_spec", lambda _: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(components, "load_complete", None)
    for kind in KINDS:
        row = _row(catalogue, kind)
        given = (catalogue, row, get_family("flux"), Path(row.source))
        with pytest.raises(CatalogueError, match=f"quantization {kind} {reason}"):
            rehearse_model(*given)
        with pytest.raises(CatalogueError, match=f"quantization {kind} {reason}"):
            load_model(*given, torch.bfloat16)


def test_the_planner_counts_packed_values_and_their_scales(catalogue: Catalogue) -> None:
    plain = _transformer(catalogue, None)
    widths = {kind: _transformer(catalogue, kind).packed_bytes for kind in KINDS}
    values = (plain.bytes - _transformer(catalogue, "bitsandbytes_nf4").bytes + widths["bitsandbytes_nf4"]) // 2
    assert widths["bitsandbytes_nf4"] == values // 2 + values // 64 * 4
    assert values < widths["bitsandbytes_int8"] < 1.05 * values
    assert QUANTIZATIONS["bitsandbytes_nf4"].stored_bytes(100, 1) == 50 + 2 * 4


def _transformer(catalogue: Catalogue, kind: str | None) -> Component:
    found = read_components(catalogue, _row(catalogue, kind), 2)
    assert found is not None
    return next(part for part in found.components if part.name == "transformer")


def test_rows_allow_it_for_denoisers_of_folders_only() -> None:
    given = {"id": "one", "family": "flux", "source": "black-forest-labs/FLUX.1-dev"}
    for kind in KINDS:
        with pytest.raises(ValueError, match="text_encoder_2 must be one of int8_weight_only, float8"):
            ModelSpec.model_validate({**given, "text_encoder_quantization": {"text_encoder_2": kind}})
        with pytest.raises(ValueError, match=f"{kind} needs a folder in diffusers' layout, not one file: name a"):
            ModelSpec.model_validate({**given, "source": "somebody/model/file.safetensors", "quantization": kind})
