"""A FLUX Control LoRA makes a FLUX.1 Control model as diffusers' loader does, or is refused by the tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_bfl_flux_control_lora_to_diffusers as convert
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.memory.sizes.models import read_components
from contracts.memory.sizes.on_hub import read_hub_components
from contracts.requests.training.trainable import kinds_of
from contracts.storage import Storage
from contracts.weights.adapters.lora_files import read_lora
from contracts.weights.adapters.lora_models import read_facts
from contracts.weights.controls.flux_control_lora_files import FluxControlLora
from contracts.weights.formats.safetensors import read_header
from contracts.weights.row_files import check_row_files
from tests.support.flux_control_loras import Tensors, control_lora
from tests.support.hub import serving, use_hub
from tests.support.jobs import INPUT_IMAGES, complete_job, decode_pixels, make_job
from worker.checkpoints.controls.flux_control_loras import merge_control_lora
from worker.checkpoints.files import ContentHasher
from worker.checkpoints.loader import load_model
from worker.checkpoints.places import NotPrepared, Places, Unwatched
from worker.checkpoints.rehearsal import rehearse_model
from worker.checkpoints.sources import weights_beside
from worker.families import get_family
from worker.pool.pool import Pool

SCALE = 0.85
FIRST = "double_blocks.0.img_attn"


@pytest.fixture(scope="module")
def files(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One LoRA in both layouts: `original`, `diffusers`."""
    folder = tmp_path_factory.mktemp("flux-control-lora")
    layouts = dict(zip(("original", "diffusers"), control_lora(_transformer(catalogue)), strict=True))
    for name, tensors in layouts.items():
        save_file(tensors, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in layouts}


@pytest.fixture(scope="module")
def without_values(catalogue: Catalogue) -> Any:
    """The small transformer on torch's meta device."""
    config = diffusers.FluxTransformer2DModel.load_config(catalogue.root / "shapes-flux" / "transformer")
    with torch.device("meta"):
        return diffusers.FluxTransformer2DModel.from_config(config)


def _transformer(catalogue: Catalogue) -> Any:
    folder = catalogue.root / "shapes-flux" / "transformer"
    return diffusers.FluxTransformer2DModel.from_pretrained(folder, dtype=torch.float32)


def _with_row(catalogue: Catalogue, file: Path | str, **fields: Any) -> Catalogue:
    row = {"id": "canny", "family": "flux", "source": "shapes-flux", "control_lora": {"source": str(file)}}
    models = (ModelSpec(**{**row, **fields}),)
    return catalogue.model_copy(update={"models": models, "loras": (), "controlnets": ()})


def test_images_are_those_of_diffusers_loader_and_the_plan_and_receipt_know_it(
    files: dict[str, Path], catalogue: Catalogue, storage: Storage
) -> None:
    own = _with_row(
        catalogue, files["diffusers"], control_lora={"source": str(files["diffusers"]), "scale": SCALE}
    )
    check_row_files(own, own.model("canny"))
    pool = Pool(own, device="cpu")
    job = make_job(own, "flux-control", num_inference_steps=2, max_sequence_length=64, width=64, height=64)

    made, receipt = complete_job(job, pool, storage)

    folder = catalogue.root / "shapes-flux"
    theirs = diffusers.FluxControlPipeline.from_pretrained(folder, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    theirs.load_lora_weights(files["diffusers"].parent, weight_name="diffusers.safetensors", adapter_name="canny")
    theirs.set_adapters("canny", SCALE)
    pixels = decode_pixels(made[0])
    # Apart, a layer's result is rounded once more than its weight is.
    assert np.abs(pixels - _call(theirs, job)).max() <= 1
    theirs.fuse_lora()
    assert np.array_equal(pixels, _call(theirs, job))
    assert receipt.model.control_lora_scale == SCALE
    components = read_components(own, own.model("canny"), 4)
    assert components is not None
    planned = {part.name: part.bytes for part in components.components}["transformer"]
    own_values = [value.numel() for name, value in theirs.transformer.named_parameters() if "lora_" not in name]
    assert planned == 4 * sum(own_values)


def _call(pipeline: Any, job: Any) -> Any:
    image = pipeline(
        "a red circle", control_image=INPUT_IMAGES["inputs/control.png"], width=job.width, height=job.height,
        num_inference_steps=2, guidance_scale=job.guidance_scale, max_sequence_length=64,
        generator=torch.Generator().manual_seed(job.seeds[0]),
    ).images[0]  # fmt: skip
    return np.asarray(image).astype(np.int16)


def test_both_layouts_make_the_same_transformer(files: dict[str, Path], catalogue: Catalogue) -> None:
    made = []
    for file in files.values():
        transformer = _transformer(catalogue)
        merge_control_lora(transformer, file, SCALE)
        made.append(transformer.state_dict())
        assert transformer.config.in_channels == 128
        assert transformer.config.out_channels == 64
    plain = _transformer(catalogue).state_dict()
    assert made[0].keys() == made[1].keys() == plain.keys()
    for name, tensor in made[0].items():
        assert torch.equal(tensor, made[1][name]), name
        assert not torch.equal(tensor, plain[name]), name


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """FLUX.1 dev's transformer without weights, and a Control LoRA of it as Black Forest Labs publish them."""
    with torch.device("meta"):
        transformer = diffusers.FluxTransformer2DModel(guidance_embeds=True)
    file = tmp_path_factory.mktemp("published") / "flux1-canny-dev-lora.safetensors"
    save_file(control_lora(transformer, rank=2)[0], file)
    return transformer, file


def test_each_tensor_has_the_layer_and_rows_that_diffusers_converter_gives_it(published: tuple[Any, Path]) -> None:
    transformer, file = published
    stored, theirs = load_file(file), convert(load_file(file))
    found = FluxControlLora.of(read_header(file).tensors, _shapes(transformer))
    ours: Tensors = {f"transformer.{tensor}": stored[name] for tensor, name in found.norms.items()}
    for change in found.changes:
        layer = f"transformer.{change.layer}"
        ours[f"{layer}.lora_A.weight"] = stored[change.down]
        for kind, name in (("weight", change.up), ("bias", change.bias)):
            assert name is not None
            ours[f"{layer}.lora_B.{kind}"] = torch.cat([stored[name][begin:end] for begin, end in change.rows])
    assert ours.keys() == theirs.keys()
    differ = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert differ == ["transformer.norm_out.linear.lora_A.weight"]


def test_diffusers_still_swaps_ranks_of_the_last_norm(published: tuple[Any, Path]) -> None:
    """swap(B) · A is what swaps the outputs of B · A; swap(B) · swap(A), as diffusers 0.42 has it, is another."""
    stored = load_file(published[1])
    theirs = convert(dict(stored))
    down, up = (theirs[f"transformer.norm_out.linear.lora_{half}.weight"] for half in "AB")
    name = "final_layer.adaLN_modulation.1.lora"
    rows = slice(0, 8)  # of each half
    original = stored[f"{name}_B.weight"] @ stored[f"{name}_A.weight"]
    _, scale = original.chunk(2)
    assert torch.allclose(up[rows] @ stored[f"{name}_A.weight"], scale[rows])
    assert not torch.allclose(up[rows] @ down, scale[rows])


def _shapes(transformer: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in transformer.state_dict().items()}


def _plain(tensors: Tensors) -> None:
    for name in [name for name in tensors if "img_in" in name or name.endswith(".scale")]:
        del tensors[name]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop(f"{FIRST}.qkv.lora_B.weight"), r"double_blocks\.0\.img_attn\.qkv\..* has no other half"),
        (lambda t: t.update({"new.lora_A.weight": torch.zeros(4, 4)}), r"takes its new\.lora_A\.weight"),
        (lambda t: t.update({"new.diff": torch.zeros(4)}), r"no layer of the model takes its new\.diff"),
        (lambda t: t.update({"double_blocks.7.img_mlp.0.alpha": torch.ones(1)}), r"takes its double_blocks\.7\."),
        (lambda t: t.update({f"{FIRST}.norm.key_norm.scale": torch.ones(64)}), r"key_norm\.scale is \[64\]"),
        (lambda t: t.update({f"{FIRST}.proj.lora_A.weight": torch.ones(4, 3072)}), "it is made for another model"),
        (lambda t: t.update({"img_in.lora_A.weight": torch.ones(4, 64)}), "128 inputs and 128 outputs are needed"),
        (lambda t: t.update({"x_embedder.lora_A.weight": torch.ones(4, 128)}), "x_embedder.* no other half"),
        (lambda t: t.update({f"{FIRST}.proj.lora_A.weight": torch.ones(4, 128).int()}), "got I32: without"),
        (lambda t: t.update({f"{FIRST}.proj.lora_A.bias": torch.ones(4)}), r"takes its .*proj\.lora_A\.bias"),
        (_plain, r"one\.safetensors: it is not a FLUX Control LoRA, .* add other LoRAs as \[\[loras\]\]"),
        (lambda t: (t.clear(), t.update({"lora_controlnet": torch.zeros(0)})), "it is not a FLUX Control LoRA"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_by_the_tensor_at_the_start_and_by_the_worker(
    change: Callable[[Tensors], object],
    reason: str,
    files: dict[str, Path],
    without_values: Any,
    catalogue: Catalogue,
    tmp_path: Path,
) -> None:
    tensors = load_file(files["original"])
    change(tensors)
    save_file(tensors, tmp_path / "one.safetensors")
    own = _with_row(catalogue, tmp_path / "one.safetensors")
    row, folder = own.model("canny"), catalogue.root / "shapes-flux"
    with pytest.raises(CatalogueError, match=f"shapes-flux: control_lora: .*({reason})"):
        check_row_files(own, row)
    with pytest.raises(CatalogueError, match=f"control_lora: .*({reason})"):
        rehearse_model(own, row, get_family("flux"), folder)
    with pytest.raises(CatalogueError, match=reason):
        merge_control_lora(without_values, tmp_path / "one.safetensors", 1.0)


def test_a_value_that_is_no_number_is_refused_when_it_is_read(
    files: dict[str, Path], catalogue: Catalogue, tmp_path: Path
) -> None:
    tensors = load_file(files["original"])
    tensors[f"{FIRST}.proj.lora_B.bias"][3] = float("nan")
    save_file(tensors, tmp_path / "one.safetensors")
    with pytest.raises(CatalogueError, match=r"one\.safetensors: .*proj\.lora_B\.bias contains NaN"):
        merge_control_lora(_transformer(catalogue), tmp_path / "one.safetensors", 1.0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"family": "sd3", "source": "shapes-sd3"}, "control_lora works with flux, not with sd3"),
        ({"pipeline": "FluxFillPipeline"}, "control_lora is for checkpoints of FluxPipeline"),
        ({"quantization": "int8_weight_only"}, "which cannot be quantized then"),
        ({"source": "x.gguf", "config": "shapes-flux"}, "which cannot be quantized then"),
        ({"control_lora": {"source": "org/name"}}, r"control_lora\n.*source must be a \.safetensors file"),
        ({"control_lora": {"source": "a.safetensors", "scale": 0}}, r"control_lora\.scale"),
        ({"control_lora": {"source": "a.safetensors", "scale": float("inf")}}, r"control_lora\.scale"),
        ({"control_lora": {"source": "a.safetensors", "weight": 1}}, r"control_lora\.weight"),
    ],
)
def test_a_row_that_could_not_be_loaded_is_refused(
    fields: dict[str, Any], reason: str, catalogue: Catalogue
) -> None:
    with pytest.raises(ValueError, match=f"(?s){reason}"):
        _with_row(catalogue, "a.safetensors", **fields)


def test_another_checkpoint_of_the_family_and_a_missing_file_are_refused_at_the_start(
    files: dict[str, Path], catalogue: Catalogue, flux_tools: Catalogue
) -> None:
    for tool, named in (("tiny-control", "FluxControlPipeline"), ("tiny-kontext", "FluxKontextPipeline")):
        own = _with_row(catalogue, files["original"], source=flux_tools.model(tool).source)
        with pytest.raises(
            CatalogueError, match=r"it is made for another model|control_lora is for a FluxPipeline"
        ):
            check_row_files(own, own.model("canny"))
        with pytest.raises(CatalogueError, match=f"it is a {named}, and family flux needs a FluxPipeline"):
            rehearse_model(own, own.model("canny"), get_family("flux"), Path(own.model("canny").source))
    missing = _with_row(catalogue, "missing/a.txt.safetensors")
    with pytest.raises(CatalogueError, match=r"missing/a\.txt\.safetensors was not found on this machine"):
        check_row_files(missing, missing.model("canny"))


def test_on_a_hub_the_file_is_fetched_pinned_planned_and_hashed_with_the_model(
    files: dict[str, Path], catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, name = catalogue.root / "shapes-flux", "flux1-canny-dev-lora.safetensors"
    model = {str(file.relative_to(folder)): file for file in folder.rglob("*.*") if file.is_file()}
    with serving() as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        hub.commit("org/flux", model)
        hub.commit("org/lora", {name: files["original"], "README.md": b""})
        own = _with_row(catalogue, f"org/lora/{name}", source="org/flux")
        sizes = [
            {part.name: part.bytes for part in components.components}
            for components in (
                read_hub_components(own, own.model("canny"), 4),
                read_hub_components(own, own.model("canny").model_copy(update={"control_lora": None}), 4),
            )
            if components is not None
        ]
        assert sizes[0]["transformer"] - sizes[1]["transformer"] == 4 * 64 * 128
        places = Places(own)
        with pytest.raises(NotPrepared):
            places.locate("canny")
        place = places.fetch("canny", Unwatched())
        row = places.row("canny")
    assert isinstance(row, ModelSpec)
    assert row.control_lora is not None
    assert hub.head("org/lora") in row.control_lora.source
    (beside,) = weights_beside(own, row, get_family("flux"), place)
    assert ContentHasher().hash(beside) == ContentHasher().hash(files["original"])
    assert isinstance(
        load_model(own, row, get_family("flux"), place, torch.float32), diffusers.FluxControlPipeline
    )


def test_loras_of_the_model_are_compared_with_the_wider_layer(
    files: dict[str, Path], catalogue: Catalogue, tmp_path: Path
) -> None:
    halves = {"A": torch.ones(4, 128), "B": torch.ones(128, 4)}
    save_file(
        {f"transformer.x_embedder.lora_{half}.weight": tensor for half, tensor in halves.items()},
        tmp_path / "one.safetensors",
    )
    own = _with_row(catalogue, files["original"])
    assert read_facts(read_lora(tmp_path / "one.safetensors"), own).models == ("canny",)


def test_as_a_lora_of_the_catalogue_it_is_refused_at_the_start_with_the_remedy(
    files: dict[str, Path], catalogue: Catalogue
) -> None:
    row = LoraSpec(id="canny", family="flux", source=str(files["original"]))
    with pytest.raises(CatalogueError, match=r"a FLUX Control LoRA.* name the file as control_lora in the row of"):
        check_row_files(catalogue, row)


def test_nothing_can_be_trained_on_a_model_that_needs_a_control_image(
    files: dict[str, Path], catalogue: Catalogue
) -> None:
    own = _with_row(catalogue, files["original"])
    assert kinds_of(own.model("canny")) == []
    assert "lora" in kinds_of(own.model("canny").model_copy(update={"control_lora": None}))
