"""GGUF files: bare diffusers' images, the planned bytes, adapters as on the same weights unpacked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor
from gguf import GGMLQuantizationType
from safetensors.torch import load_file

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.memory.plan import Placement
from contracts.memory.planner import candidates
from contracts.memory.policy import Policy
from contracts.memory.sizes.component import ModelComponents
from contracts.memory.sizes.models import read_components
from contracts.memory.workload import workload_of
from contracts.storage import Storage
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.gguf_files import write_gguf
from tests.support.jobs import Pixels, complete_job, decode_pixels, generate_pixels, make_job
from tests.support.lycoris import write_lycoris
from tests.support.original_layout import write_sd3_file
from tests.support.weights import write_adapter
from worker.checkpoints.loader import load_model
from worker.checkpoints.quantized import gguf_files
from worker.checkpoints.rehearsal import rehearse_model
from worker.families import get_family
from worker.pool.loading.loaded_components import components_of
from worker.pool.pool import Pool

PACKED, UNPACKED = "flux-q8", "flux-unpacked"


@pytest.fixture(scope="module")
def flux(shipped: Catalogue) -> Path:
    """The small FLUX.1 that the repository has."""
    return (shipped.root / "shapes-flux").resolve()


@pytest.fixture(scope="module")
def file(flux: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its transformer, packed."""
    file = tmp_path_factory.mktemp("gguf") / "flux-Q8_0.gguf"
    write_gguf(file, load_file(flux / "transformer" / "diffusion_pytorch_model.safetensors"))
    return file


@pytest.fixture(scope="module")
def bare(flux: Path, file: Path) -> diffusers.FluxPipeline:
    """What diffusers' documentation has people load."""
    transformer = diffusers.FluxTransformer2DModel.from_single_file(
        str(file),
        quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=torch.float32),
        config=str(flux),
        subfolder="transformer",
        dtype=torch.float32,
    )
    return diffusers.FluxPipeline.from_pretrained(flux, transformer=transformer, dtype=torch.float32)


@pytest.fixture(scope="module")
def rows(flux: Path, file: Path, bare: diffusers.FluxPipeline) -> Catalogue:
    """The packed model, and a folder with the values that its weights stand for; each can have two adapters."""
    folder = file.parent / "unpacked"
    with torch.device("meta"):
        plain = diffusers.FluxTransformer2DModel.from_config(bare.transformer.config)
    values = {name: dequantize_gguf_tensor(one).float() for name, one in bare.transformer.state_dict().items()}
    plain.load_state_dict(values, assign=True)
    plain.save_pretrained(folder / "transformer")
    for part in flux.iterdir():
        if part.name != "transformer":
            (folder / part.name).symlink_to(part)
    write_lycoris(file.parent / "kinds.safetensors", "flux", flux)
    write_adapter(file.parent / "lora.safetensors", "flux", flux)
    adapters = {id: str(file.parent / f"{id}.safetensors") for id in ("kinds", "lora")}
    loras = [LoraSpec(id=id, family="flux", source=source) for id, source in adapters.items()]
    small = {"width": 64, "height": 64, "num_inference_steps": 3}
    models = (
        ModelSpec(id=PACKED, family="flux", source=str(file), config=str(flux), defaults=small),
        ModelSpec(id=UNPACKED, family="flux", source=str(folder), defaults=small),
    )
    return with_checkpoint_limits(
        Catalogue(root=file.parent, default_model=PACKED, models=models, loras=tuple(loras))
    )


def _only(rows: Catalogue, model: str) -> Catalogue:
    return rows.model_copy(update={"models": (rows.model(model),), "default_model": model})


@pytest.fixture(scope="module")
def packed(rows: Catalogue) -> Pool:
    """A pool with the packed model."""
    return Pool(_only(rows, PACKED), device="cpu")


def _image(pool: Pool, storage: Storage, **fields: Any) -> Pixels:
    return generate_pixels(make_job(pool.catalogue, "flux", num_inference_steps=2, **fields), pool, storage)


def test_an_image_equals_that_of_bare_diffusers_and_its_receipt_names_the_quantization(
    rows: Catalogue, packed: Pool, bare: diffusers.FluxPipeline, storage: Storage
) -> None:
    job = make_job(packed.catalogue, "flux", num_inference_steps=2, guidance_scale=3.0, max_sequence_length=64)
    files, receipt = complete_job(job, packed, storage)
    theirs = bare(
        prompt="a red circle", width=64, height=64, num_inference_steps=2, guidance_scale=3.0,
        max_sequence_length=64, generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]  # fmt: skip
    assert np.array_equal(decode_pixels(files[0]), np.asarray(theirs))
    assert receipt.model.quantization == rows.model(PACKED).quantization == "gguf-q8_0"
    assert rows.model(UNPACKED).quantization is None


def test_adapters_of_all_kinds_act_as_on_the_values_and_leave_no_trace(
    rows: Catalogue, packed: Pool, storage: Storage
) -> None:
    unpacked = Pool(_only(rows, UNPACKED), device="cpu")
    loras = [{"name": "kinds"}, {"name": "lora", "scale": 0.5}]
    plain, changed = _image(packed, storage), _image(packed, storage, loras=loras)
    assert not np.array_equal(changed, plain)
    assert np.array_equal(changed, _image(unpacked, storage, loras=loras))
    assert np.array_equal(plain, _image(packed, storage))


def test_the_planned_bytes_are_those_that_are_loaded(rows: Catalogue, file: Path) -> None:
    row = rows.model(PACKED)
    planned = read_components(rows, row, 4)
    pipeline = load_model(rows, row, get_family("flux"), file, torch.float32)
    transformer = pipeline.transformer
    loaded = sum(tensor.nbytes for tensor in (*transformer.parameters(), *transformer.buffers()))
    assert _bytes(planned) == _bytes(components_of(pipeline, row, torch.float32)) == loaded
    assert loaded < 0.3 * _bytes(read_components(rows, rows.model(UNPACKED), 4))


def _bytes(components: ModelComponents | None) -> int:
    assert components is not None
    return next(part.bytes for part in components.components if part.name == "transformer")


def test_a_streamed_plan_gives_the_same_image_as_all_resident_and_takes_what_was_planned(
    rows: Catalogue, packed: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = _only(rows, PACKED)
    job = make_job(only, "flux", width=128, height=128, num_inference_steps=2)
    components = read_components(only, only.model(PACKED), 4)
    assert components is not None
    plans = candidates(components, workload_of("flux", job), 2**40, Policy(allow_fp8=True, cudnn=False))
    assert not any(plan.fp8 for plan in plans)
    streamed = plans[-1]
    assert streamed.placements["transformer"] is Placement.STREAMED
    # A pool plans for 95 % of a budget that it enforces.
    tight = Pool(only, device="cpu", budget_bytes=int(streamed.peak_bytes / 0.95) + 1)
    files, receipt = complete_job(job, tight, storage)
    tiled = plans[0].model_copy(update={"tile_side": streamed.tile_side})
    monkeypatch.setattr(packed.plan_selector, "choose", lambda *_: tiled)
    assert np.array_equal(decode_pixels(files[0]), generate_pixels(job, packed, storage))
    assert receipt.memory is not None
    assert receipt.memory.peak_bytes is not None
    assert (receipt.memory.plan, receipt.memory.ran_out) == (streamed.name, [])
    # The room to unpack a layer is added to all activations: with layers this small, a tenth too much.
    assert 0.8 * streamed.peak_bytes <= receipt.memory.peak_bytes <= streamed.peak_bytes


@pytest.fixture(scope="module")
def sd3(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The transformer of the small SD3 under the names of the original release."""
    file, prefix = tmp_path_factory.mktemp("sd3") / "sd3.safetensors", "model.diffusion_model."
    write_sd3_file(catalogue.root / "shapes-sd3", file)
    return {name.removeprefix(prefix): one for name, one in load_file(file).items() if name.startswith(prefix)}


@pytest.fixture
def load_sd3(catalogue: Catalogue, tmp_path: Path) -> Callable[..., torch.nn.Module]:
    """Loads these tensors from a GGUF file."""

    def load(tensors: dict[str, torch.Tensor], kind: str = "Q8_0") -> torch.nn.Module:
        file = tmp_path / "sd3.gguf"
        write_gguf(file, tensors, kind)
        row = ModelSpec(id="one", family="sd3", source=str(file), config=str(catalogue.root / "shapes-sd3"))
        found: torch.nn.Module = load_model(
            catalogue, row, get_family("sd3"), file, torch.float32, ("text_encoder_3",)
        ).transformer
        return found

    return load


@pytest.mark.parametrize("kind", ["Q8_0", "BF16"])
def test_an_original_layout_is_converted_packed(
    kind: str, sd3: dict[str, torch.Tensor], load_sd3: Callable[..., torch.nn.Module], catalogue: Catalogue
) -> None:
    """What the original joins, such as `qkv`, is taken apart between rows, which no block crosses."""
    loaded = load_sd3(sd3, kind).state_dict()
    stored = load_file(catalogue.root / "shapes-sd3/transformer/diffusion_pytorch_model.safetensors")
    expected = {name: one.float() for name, one in stored.items()}
    assert loaded.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.allclose(
            dequantize_gguf_tensor(loaded[name]).float(), values, atol=0.01 * float(values.abs().max())
        ), name


def test_a_packed_weight_that_nothing_unpacks_is_named() -> None:
    norm = torch.nn.Sequential(torch.nn.LayerNorm(32))
    norm[0].weight = GGUFParameter(torch.zeros(34, dtype=torch.uint8), quant_type=GGMLQuantizationType.Q8_0)
    with pytest.raises(CatalogueError, match=r"its transformer has 0.weight packed as Q8_0, which only"):
        gguf_files.check_packed_layers("transformer", norm)


def test_what_a_file_lacks_or_has_in_addition_is_named(
    sd3: dict[str, torch.Tensor], load_sd3: Callable[..., torch.nn.Module]
) -> None:
    gap = "joint_blocks.0.x_block.mlp.fc1.bias"
    with pytest.raises(CatalogueError, match=f"its transformer is not in the layout .* KeyError at '{gap}'"):
        load_sd3({name: one for name, one in sd3.items() if name != gap})
    with pytest.raises(CatalogueError, match=r"no layer takes control\.weight"):
        load_sd3({**sd3, "control.weight": torch.ones(4)})


def test_without_the_package_a_packed_file_is_refused_at_the_start_and_says_what_to_install(
    rows: Catalogue, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_files, "find_spec", lambda name: None)
    given = (rows, rows.model(PACKED), get_family("flux"), file)
    missing = pytest.raises(CatalogueError, match=r"package gguf: pip install 'darkroom\[quantization-gguf\]'")
    with missing:
        rehearse_model(*given)
    with missing:
        load_model(*given, torch.float32)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"family": "sdxl", "config": "x"}, "a .gguf file can be used of .*flux.*, not of sdxl"),
        ({"family": "flux"}, "name a whole checkpoint in config"),
        ({"family": "flux", "config": "x", "quantization": "q8"}, "read from the file"),
    ],
)
def test_a_row_that_no_file_could_make_run_is_refused_when_the_catalogue_is_read(
    fields: dict[str, str], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        ModelSpec(id="one", source="city96/FLUX.1-dev-gguf/flux1-dev-Q8_0.gguf", **fields)
