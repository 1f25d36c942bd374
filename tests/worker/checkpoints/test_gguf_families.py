"""GGUF files of families beside FLUX.1 and SD3: as diffusers loads them, and its images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.memory.sizes.models import read_components
from contracts.storage import Storage
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.combinations import usual_or_all
from tests.support.gguf_files import write_gguf
from tests.support.jobs import complete_job, decode_pixels, make_job
from tests.support.qwen_edits import write_checkpoint
from tests.support.released_layouts import released
from worker.checkpoints.loader import load_model
from worker.checkpoints.rehearsal import rehearse_model
from worker.families import get_family
from worker.pool.pool import Pool

SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 2}
_NEGATIVE = MappingProxyType({"negative_prompt": "a blue square"})


@dataclass(frozen=True)
class _Case:
    """A family's transformer and a call.

    Attributes:
        layout: family in whose released layout the file is; None: diffusers' own, where diffusers converts that of
            the release at its full width only, which `quality/test_wide_gguf.py` has.
        fields: of the request and the call.
        bare: of the call alone.
    """

    class_name: str
    layout: str | None
    fields: dict[str, Any]
    bare: dict[str, Any] = field(default_factory=dict)


CASES = {
    "qwen-image": _Case("QwenImageTransformer2DModel", "qwen-image", {"true_cfg_scale": 3.0, **_NEGATIVE}),
    "z-image": _Case("ZImageTransformer2DModel", "z-image", {"guidance_scale": 3.0, **_NEGATIVE}),
    "flux2": _Case("Flux2Transformer2DModel", "flux2", {"guidance_scale": 3.0}),
    "sana": _Case(
        "SanaTransformer2DModel", "sana", {"guidance_scale": 3.0, **_NEGATIVE}, {"use_resolution_binning": False}
    ),
    "chroma": _Case("ChromaTransformer2DModel", None, {"guidance_scale": 3.0, **_NEGATIVE}),
    "lumina2": _Case("Lumina2Transformer2DModel", None, {"guidance_scale": 3.0, **_NEGATIVE}),
}


def _write(family: str, catalogue: Catalogue, file: Path, config: str | None = None) -> Catalogue:
    """The small transformer of a family as a GGUF file; returns a catalogue with its row."""
    folder, layout = Path(catalogue.model(f"tiny-{family}").source), CASES[family].layout
    tensors = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    write_gguf(file, tensors if layout is None else released(layout, tensors))
    row = ModelSpec(id="packed", family=family, source=str(file), config=config or str(folder), defaults=SMALL)
    return with_checkpoint_limits(Catalogue(root=file.parent, default_model="packed", models=(row,)))


def _bare(family: str, rows: Catalogue) -> Any:
    """The transformer as diffusers' documentation has people load it."""
    row = rows.model("packed")
    return getattr(diffusers, CASES[family].class_name).from_single_file(
        row.source,
        quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=torch.float32),
        config=row.config,
        subfolder="transformer",
        dtype=torch.float32,
    )


@pytest.mark.parametrize("family", CASES)
def test_a_transformer_is_the_one_that_diffusers_loads_and_takes_the_planned_bytes(
    family: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    rows = _write(family, catalogue, tmp_path / "model-Q8_0.gguf")
    row = rows.model("packed")
    ours = load_model(rows, row, get_family(family), Path(row.source), torch.float32).transformer
    theirs = _bare(family, rows)
    kinds = {name: type(module) for name, module in theirs.named_modules()}
    assert {name: type(module) for name, module in ours.named_modules()} == kinds
    loaded, expected = ours.state_dict(), theirs.state_dict()
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert getattr(loaded[name], "quant_type", None) == getattr(tensor, "quant_type", None), name
        assert torch.equal(_bytes(loaded[name]), _bytes(tensor)), name
    assert any(hasattr(tensor, "quant_type") for tensor in expected.values())
    assert row.quantization == "gguf-q8_0"
    planned = read_components(rows, row, 4)
    assert planned is not None
    planned_bytes = next(part.bytes for part in planned.components if part.name == "transformer")
    loaded_bytes = sum(tensor.nbytes for tensor in loaded.values())
    # What the file has and no layer takes is counted, too.
    assert 0 <= planned_bytes - loaded_bytes <= 64 * 4


def test_what_a_file_is_its_config_says(catalogue: Catalogue, tmp_path: Path) -> None:
    """The transformers of Qwen-Image and of its edits are of one class."""
    config = write_checkpoint(tmp_path / "edit", "QwenImageEditPipeline")
    rows = _write("qwen-image", catalogue, tmp_path / "edit-Q8_0.gguf", str(config))
    row = rows.model("packed")
    assert Task.EDIT in row.tasks
    rehearse_model(rows, row, get_family(row.checkpoint_family.id), Path(row.source))
    pipeline = load_model(rows, row, get_family(row.checkpoint_family.id), Path(row.source), torch.float32)
    assert isinstance(pipeline, diffusers.QwenImageEditPipeline)


def _bytes(tensor: Any) -> torch.Tensor:
    plain: torch.Tensor = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    return plain.contiguous().view(torch.uint8)


@pytest.mark.parametrize("family", usual_or_all("z-image", CASES))
def test_an_image_equals_that_of_bare_diffusers(
    family: str, catalogue: Catalogue, tmp_path: Path, storage: Storage
) -> None:
    rows, case = _write(family, catalogue, tmp_path / "model-Q8_0.gguf"), CASES[family]
    folder = rows.model("packed").config
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        folder, transformer=_bare(family, rows), dtype=torch.float32
    )
    call = {**SMALL, "max_sequence_length": 64, **case.fields, "prompt": "a red circle"}
    theirs = pipeline(**call, **case.bare, generator=torch.Generator("cpu").manual_seed(7))
    files, receipt = complete_job(make_job(rows, family, **call), Pool(rows, device="cpu"), storage)
    assert np.array_equal(decode_pixels(files[0]), np.asarray(theirs.images[0]))
    assert receipt.model.quantization == "gguf-q8_0"
