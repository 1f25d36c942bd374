"""Text encoders that torchao quantizes, or has before: as transformers loads them, counted as they are stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.memory.plan import Placement
from contracts.memory.sizes.component import ModelComponents
from contracts.memory.sizes.models import read_components
from contracts.storage import Storage
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.combinations import usual_or_all
from tests.support.jobs import complete_job, decode_pixels, make_job
from tests.support.original_layout import write_sdxl_file
from worker.checkpoints.components import load_component, load_components, read_index
from worker.checkpoints.one_file.original_layout import load_file_components
from worker.checkpoints.one_file.single_file import SingleFile
from worker.checkpoints.quantized.packed_weights import is_quantized
from worker.checkpoints.rehearsal import rehearse_model
from worker.families import get_family
from worker.offload.offloaded_module import OffloadedModule
from worker.offload.stored_tensors import stored_tensors
from worker.pool.loading.loaded_components import components_of
from worker.pool.pool import Pool

INT8, FLOAT8 = "int8_weight_only", "float8_weight_only"
#: Of FLUX.1: CLIP, and T5.
KINDS = {"text_encoder": INT8, "text_encoder_2": FLOAT8}
SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 2, "guidance_scale": 3.0}
#: Families whose text encoders are of other classes.
OTHERS = ("qwen-image", "lumina2", "flux2", "hunyuandit", "kolors", "ovis-image", "z-image")


def _packing(kind: str) -> transformers.TorchAoConfig:
    config: Any = Int8WeightOnlyConfig if kind == INT8 else Float8WeightOnlyConfig
    # The default changes settings of torch.compile for all tests of this process.
    return transformers.TorchAoConfig(config(set_inductor_config=False))


@pytest.fixture(scope="module")
def flux(catalogue: Catalogue) -> Path:
    """The small FLUX.1."""
    return (catalogue.root / "shapes-flux").resolve()


def _rows(source: Path, **fields: Any) -> Catalogue:
    models = (
        ModelSpec(id="one", family="flux", source=str(source), **fields),
        ModelSpec(id="plain", family="flux", source=str(source)),
    )
    return with_checkpoint_limits(Catalogue(root=source, default_model="one", models=models))


def _bytes(components: ModelComponents | None) -> dict[str, tuple[int, int, int]]:
    assert components is not None
    return {
        part.name: (part.bytes, part.packed_bytes, part.unpacking_bytes)
        for part in components.components
        if part.name.startswith("text_encoder")
    }


def _sizes(pipeline: Any) -> dict[str, int]:
    encoders = {name: part for name, part in pipeline.components.items() if name.startswith("text_encoder")}
    return {name: _size(part) for name, part in encoders.items() if part is not None}


def _size(part: Any) -> int:
    """Bytes of its weights, without buffers that no file stores."""
    return sum(tensor.nbytes for tensor in stored_tensors(part.state_dict(keep_vars=True).values()))


def test_an_image_equals_that_of_bare_diffusers_and_shares_no_embeddings_with_the_model_as_it_is(
    flux: Path, storage: Storage
) -> None:
    rows = _rows(flux, text_encoder_quantization=KINDS)
    encoders = {
        name: getattr(transformers, kind).from_pretrained(
            flux, subfolder=name, quantization_config=_packing(KINDS[name]), dtype=torch.float32
        )
        for name, kind in (("text_encoder", "CLIPTextModel"), ("text_encoder_2", "T5EncoderModel"))
    }
    pipeline = diffusers.FluxPipeline.from_pretrained(flux, **encoders, dtype=torch.float32)
    call = {**SMALL, "prompt": "a red circle", "max_sequence_length": 64}
    theirs = pipeline(**call, generator=torch.Generator("cpu").manual_seed(7)).images[0]
    pool = Pool(rows, device="cpu", max_models=2)
    files, receipt = complete_job(make_job(rows, "flux", **call), pool, storage)
    assert np.array_equal(decode_pixels(files[0]), np.asarray(theirs))
    assert receipt.model.text_encoder_quantization == KINDS
    assert receipt.model.quantization is None
    plain = rows.model_copy(update={"models": (rows.model("plain"),)})
    _, of_plain = complete_job(make_job(plain, "flux", **call), pool, storage)
    assert (of_plain.embeddings.hits, of_plain.embeddings.misses) == (0, 1)
    assert of_plain.model.text_encoder_quantization == {}
    planned, row = _bytes(read_components(rows, rows.model("one"), 4)), rows.model("one")
    assert planned == _bytes(components_of(pool.model("one").base, row, torch.float32))
    assert {name: size for name, (size, *_) in planned.items()} == _sizes(pool.model("one").base)


@pytest.mark.parametrize("family", usual_or_all("qwen-image", OTHERS))
def test_the_planned_bytes_are_those_that_are_loaded(family: str, catalogue: Catalogue) -> None:
    tiny, handler = catalogue.model(f"tiny-{family}"), get_family(family)
    folder, names = Path(tiny.source), [encoder.name for encoder in tiny.family_spec.text_encoders]
    row = tiny.model_copy(update={"text_encoder_quantization": dict.fromkeys(names, INT8)})
    index = read_index(handler, folder)
    loaded = {name: load_component(folder, name, index[name], torch.float32, None, INT8) for name in names}
    planned = _bytes(read_components(catalogue, row, 4))
    assert all(any(map(is_quantized, part.parameters())) for part in loaded.values())
    for name, part in loaded.items():
        assert planned[name][0] == _size(part), name


def test_text_encoders_of_a_single_file_are_quantized_as_those_of_a_folder(
    two_widths: Path, tmp_path: Path
) -> None:
    folder, file, family = two_widths, tmp_path / "sdxl.safetensors", get_family("sdxl")
    write_sdxl_file(folder, file)
    kinds = {"text_encoder": INT8, "text_encoder_2": FLOAT8}
    given: Any = (family, folder, torch.float32, None, (), kinds)
    loaded, expected = load_file_components(SingleFile(file), *given), load_components(*given)
    for name in kinds:
        ours, theirs = loaded[name].state_dict(), expected[name].state_dict()
        assert any(map(is_quantized, ours.values()))
        for key, tensor in theirs.items():
            for own, other in zip(stored_tensors([ours[key]]), stored_tensors([tensor]), strict=True):
                assert torch.equal(own, other), (name, key)


@pytest.fixture(scope="module")
def folder(flux: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small FLUX.1 as somebody would publish it: its T5 quantized in bfloat16, and saved."""
    folder = tmp_path_factory.mktemp("quantized")
    t5 = transformers.T5EncoderModel.from_pretrained(
        flux, subfolder="text_encoder_2", quantization_config=_packing(INT8), dtype=torch.bfloat16
    )
    t5.save_pretrained(folder / "text_encoder_2")
    for part in flux.iterdir():
        if part.name != "text_encoder_2":
            (folder / part.name).symlink_to(part)
    return folder


def test_a_text_encoder_that_was_quantized_before_it_was_saved_loads_as_it_is(folder: Path) -> None:
    rows = _rows(folder)
    row = rows.model("one")
    assert row.text_encoder_quantization == {"text_encoder_2": INT8}
    rehearse_model(rows, row, get_family("flux"), folder)
    loaded = load_component(folder, "text_encoder_2", "T5EncoderModel", torch.float32, None)
    narrow, theirs = (
        load_component(folder, "text_encoder_2", "T5EncoderModel", torch.bfloat16, None),
        transformers.T5EncoderModel.from_pretrained(folder, subfolder="text_encoder_2", dtype=torch.bfloat16),
    )
    ids = torch.arange(8)[None]
    assert torch.equal(narrow(ids)[0], theirs(ids)[0])
    assert _bytes(read_components(rows, row, 4))["text_encoder_2"][0] == _size(loaded)
    again = _rows(folder, text_encoder_quantization={"text_encoder_2": FLOAT8})
    with pytest.raises(CatalogueError, match="its text_encoder_2 is quantized already, as int8_weight_only"):
        rehearse_model(again, again.model("one"), get_family("flux"), folder)


def test_a_text_encoder_that_is_quantized_in_another_way_is_refused_at_the_start(
    folder: Path, flux: Path, tmp_path: Path
) -> None:
    for part in flux.iterdir():
        if part.name != "text_encoder_2":
            (tmp_path / part.name).symlink_to(part)
    (tmp_path / "text_encoder_2").mkdir()
    for file in (flux / "text_encoder_2").iterdir():
        (tmp_path / "text_encoder_2" / file.name).symlink_to(file)
    config = json.loads((flux / "text_encoder_2" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "text_encoder_2" / "config.json").unlink()
    for method in ("bitsandbytes", "gguf", "quanto", "a\nb"):
        quantized = {**config, "quantization_config": {"quant_method": method}}
        (tmp_path / "text_encoder_2" / "config.json").write_text(json.dumps(quantized), encoding="utf-8")
        rows = _rows(tmp_path)
        with pytest.raises(CatalogueError, match=f"its text_encoder_2 is quantized by {method} .* not supported"):
            rehearse_model(rows, rows.model("one"), get_family("flux"), tmp_path)


@pytest.mark.parametrize("kind", [INT8, FLOAT8])
def test_a_t5_on_a_cpu_without_bfloat16_computes_in_float32_and_comes_back_as_it_was(
    kind: str, flux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.offload.offloaded_module.cpu_has_bfloat16", lambda: False)
    t5 = load_component(flux, "text_encoder_2", "T5EncoderModel", torch.bfloat16, None, kind)
    ids, offloaded = torch.arange(8)[None], OffloadedModule(t5, torch.device("cpu"))
    offloaded.move(Placement.DEVICE)
    with torch.inference_mode():
        narrow = t5(ids)[0]
        offloaded.move(Placement.CPU)
        wide = t5(ids)[0]
        offloaded.move(Placement.DEVICE)
        assert torch.equal(t5(ids)[0], narrow)
    assert (narrow.dtype, wide.dtype) == (torch.bfloat16, torch.float32)
    assert torch.nn.functional.cosine_similarity(narrow.float(), wide, dim=-1).min() > 0.99


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"vae": INT8}, "of family flux can name text_encoder, text_encoder_2, got 'vae'"),
        ({"text_encoder_2": "int4"}, "text_encoder_2 must be one of int8_weight_only, .*, got 'int4'"),
    ],
)
def test_a_row_that_names_something_else_is_refused_when_the_catalogue_is_read(
    given: dict[str, str], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        ModelSpec(id="one", family="flux", source="black-forest-labs/FLUX.1-dev", text_encoder_quantization=given)
