"""Text encoders from files of their own are those of a folder, or are refused by what is wrong with them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.memory.sizes.component import ModelComponents
from contracts.memory.sizes.models import read_components
from contracts.memory.sizes.on_hub import read_hub_components
from contracts.weights.row_files import check_row_files
from tests.support.hub import serving, use_hub
from tests.support.original_layout import write_sd3_file
from worker.checkpoints.components import load_component, read_index
from worker.checkpoints.files import ContentHasher
from worker.checkpoints.loader import load_model
from worker.checkpoints.places import NotPrepared, Places, Unwatched
from worker.checkpoints.rehearsal import rehearse_model
from worker.checkpoints.sources import weights_beside
from worker.checkpoints.text_encoders import load_text_encoders
from worker.families import get_family

Tensors = dict[str, torch.Tensor]
CLIP, T5 = "clip_l.safetensors", "t5xxl.safetensors"
FILES = {"text_encoder": CLIP, "text_encoder_2": T5}


def _released(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """A CLIP under the names of releases, with what they have beside weights."""
    named = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}
    position_ids = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    return {**named, **position_ids, "text_projection.weight": torch.ones(2, 2), "logit_scale": torch.ones(())}


def _saved_by_comfyui(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {f"text_encoders.clip_l.transformer.{name}": tensor for name, tensor in _released(tensors).items()}


def _with_both_tables(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {
        **tensors,
        "encoder.embed_tokens.weight": tensors["shared.weight"].clone(),
        "spiece_model": torch.zeros(9),
    }


@pytest.fixture
def folder(catalogue: Catalogue) -> Path:
    return catalogue.root / "shapes-flux"


def _stored(folder: Path, name: str) -> Tensors:
    return {key: tensor.float() for key, tensor in load_file(folder / name / "model.safetensors").items()}


def _load(folder: Path, name: str, file: Path, dtype: torch.dtype = torch.float32) -> Any:
    return load_text_encoders({name: file}, read_index(get_family("flux"), folder), folder, dtype, {})[name]


def _are_equal(one: Any, other: Any) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(tensor, states[1][name]) for name, tensor in states[0].items()
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("text_encoder", dict),
        ("text_encoder", _released),
        ("text_encoder", _saved_by_comfyui),
        ("text_encoder_2", dict),
        ("text_encoder_2", _with_both_tables),
    ],
)
def test_a_file_is_the_text_encoder_of_its_folder(
    name: str, write: Callable[[Mapping[str, torch.Tensor]], Tensors], folder: Path, tmp_path: Path
) -> None:
    save_file(write(_stored(folder, name)), tmp_path / "one.safetensors")
    index = read_index(get_family("flux"), folder)
    whole = load_component(folder, name, index[name], torch.float32, None)
    assert _are_equal(_load(folder, name, tmp_path / "one.safetensors"), whole)


def test_weights_in_8_bits_are_multiplied_by_the_scales_beside_them(folder: Path, tmp_path: Path) -> None:
    tensors, expected = _stored(folder, "text_encoder_2"), {}
    for key in [key for key in tensors if ".layer." in key and tensors[key].dim() == 2]:
        narrow = (tensors[key] / 0.5).to(torch.float8_e4m3fn)
        expected[key] = (narrow.float() * 0.5).to(torch.bfloat16)
        tensors |= {key: narrow, f"{key.removesuffix('weight')}scale_weight": torch.tensor(0.5)}
    tensors["scaled_fp8"] = torch.zeros(2).to(torch.float8_e4m3fn)
    save_file(tensors, tmp_path / T5)
    loaded = _load(folder, "text_encoder_2", tmp_path / T5, torch.bfloat16).state_dict()
    assert expected
    assert all(torch.equal(loaded[key], tensor) for key, tensor in expected.items())


def _with_a_longer_table(tensors: Tensors) -> Tensors:
    name = next(key for key in tensors if key.endswith("token_embedding.weight"))
    return {**tensors, name: torch.cat([tensors[name], tensors[name][:1]])}


def _without_a_norm(tensors: Tensors) -> Tensors:
    return {key: tensor for key, tensor in tensors.items() if "encoder.layers.0.layer_norm1" not in key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_a_norm, r"text_encoder lacks weights: .*encoder.layers.0.layer_norm1.bias"),
        (lambda own: {**own, "lora.up": torch.ones(1)}, r"has weights that no layer of it takes: .*lora\.up"),
        (_with_a_longer_table, r"has weights of another shape: .*token_embedding\.weight"),
        (
            lambda own: {**own, **{f"clip_l.transformer.{key}": value.clone() for key, value in own.items()}},
            "has two tensors for embeddings",
        ),
        (lambda _: {"a": torch.ones(1)}, r"one\.safetensors is not the file of a text encoder alone"),
    ],
)  # fmt: skip
def test_a_file_with_other_layers_is_refused_by_their_names(
    change: Callable[[Tensors], Tensors], message: str, folder: Path, tmp_path: Path
) -> None:
    save_file(change(_stored(folder, "text_encoder")), tmp_path / "one.safetensors")
    with pytest.raises(CatalogueError, match=message):
        _load(folder, "text_encoder", tmp_path / "one.safetensors")


def test_two_tables_of_tokens_that_differ_are_refused(folder: Path, tmp_path: Path) -> None:
    tensors = _with_both_tables(_stored(folder, "text_encoder_2"))
    tensors["encoder.embed_tokens.weight"] += 1
    save_file(tensors, tmp_path / T5)
    with pytest.raises(CatalogueError, match=r"shared\.weight and .* of t5xxl\.safetensors differ"):
        _load(folder, "text_encoder_2", tmp_path / T5)


@pytest.fixture
def split(catalogue: Catalogue, folder: Path, tmp_path: Path) -> Catalogue:
    """A model whose folder has no text encoders' weights, and files that its row names."""
    shutil.copytree(folder, tmp_path / "model", ignore=shutil.ignore_patterns("model.safetensors"))
    for name, file in FILES.items():
        save_file(_stored(folder, name), tmp_path / file)
    row = ModelSpec(id="split", family="flux", source="model", text_encoders=FILES)
    return catalogue.model_copy(update={"root": tmp_path, "models": (row,), "loras": (), "controlnets": ()})


def test_a_model_takes_them_from_the_files_of_its_row_and_is_planned_and_hashed_with_them(
    split: Catalogue, folder: Path, tmp_path: Path
) -> None:
    row, family, place = split.model("split"), get_family("flux"), tmp_path / "model"
    check_row_files(split, row)
    rehearse_model(split, row, family, place)
    loaded = load_model(split, row, family, place, torch.float32)
    for name in FILES:
        index = read_index(family, folder)
        assert _are_equal(getattr(loaded, name), load_component(folder, name, index[name], torch.float32, None))
    components = read_components(split, row, 4)
    assert components is not None
    planned = {part.name: part.bytes for part in components.components}
    for name in FILES:
        assert planned[name] == 4 * sum(tensor.numel() for tensor in _stored(folder, name).values())
    beside = weights_beside(split, row, family, place)
    assert [file.name for file in beside] == [CLIP, T5]
    before = ContentHasher().hash(place, None, beside)
    save_file({**_stored(folder, "text_encoder"), "logit_scale": torch.ones(1)}, tmp_path / CLIP)
    assert ContentHasher().hash(place, None, beside) != before


def test_a_file_of_another_encoder_is_refused_at_the_start(split: Catalogue, tmp_path: Path) -> None:
    row, family = split.model("split"), get_family("flux")
    shutil.copy(tmp_path / CLIP, tmp_path / T5)
    message = (
        r"text_encoder_2: t5xxl\.safetensors is a CLIP text model of .*, and the model needs a T5 of width 128"
    )
    with pytest.raises(CatalogueError, match=message):
        check_row_files(split, row)
    with pytest.raises(CatalogueError, match=message):
        rehearse_model(split, row, family, tmp_path / "model")


def test_files_on_a_hub_are_planned_and_fetched_with_the_model(
    split: Catalogue, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {str(file.relative_to(tmp_path / "model")): file for file in (tmp_path / "model").rglob("*.*")}
    with serving() as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        hub.commit("org/encoders", {T5: tmp_path / T5, "other.safetensors": b"", "README.md": b""})
        hub.commit("org/flux", {name: file for name, file in model.items() if file.is_file()})
        files = {**FILES, "text_encoder_2": f"org/encoders/{T5}"}
        row = split.model("split").model_copy(update={"source": "org/flux", "text_encoders": files})
        known = split.model_copy(update={"models": (row,)})
        for name, size in _planned(read_hub_components(known, row, 4)).items():
            assert size == 4 * sum(tensor.numel() for tensor in _stored(folder, name).values())
        places = Places(known)
        with pytest.raises(NotPrepared):
            places.locate("split")
        place = places.fetch("split", Unwatched())
        pinned = places.row("split")
        assert isinstance(pinned, ModelSpec)
        assert hub.head("org/encoders") in pinned.text_encoders["text_encoder_2"]
        assert {*hub.fetched("org/encoders")} == {T5}
    assert _planned(read_components(known, pinned, 4)).keys() == FILES.keys()
    loaded = load_model(known, pinned, get_family("flux"), place, torch.float32)
    assert isinstance(loaded.text_encoder_2, torch.nn.Module)


def _planned(components: ModelComponents | None) -> dict[str, int]:
    """Bytes of the text encoders, which all are planned."""
    assert components is not None
    return {part.name: part.bytes for part in components.components if part.name in FILES}


def test_a_checkpoint_in_one_file_takes_them_where_it_has_none_itself(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    folder, family = catalogue.root / "shapes-sd3", get_family("sd3")
    write_sd3_file(folder, tmp_path / "whole.safetensors")
    whole = load_file(tmp_path / "whole.safetensors")
    alone = {name: tensor for name, tensor in whole.items() if not name.startswith("text_encoders.")}
    save_file(alone, tmp_path / "alone.safetensors")
    shutil.copytree(folder, tmp_path / "config", ignore=shutil.ignore_patterns("model.safetensors"))
    names = [name for name in read_index(family, folder) if name.startswith("text_encoder")]
    for name in names:
        save_file(_stored(folder, name), tmp_path / f"{name}.safetensors")
    row = ModelSpec(
        id="one", family="sd3", source="alone.safetensors", config="config",
        text_encoders={name: f"{name}.safetensors" for name in names},
    )  # fmt: skip
    known = catalogue.model_copy(update={"root": tmp_path, "models": (row,)})
    check_row_files(known, row)
    rehearse_model(known, row, family, tmp_path / "alone.safetensors")
    loaded = load_model(known, row, family, tmp_path / "alone.safetensors", torch.float32)
    index = read_index(family, folder)
    for name in names:
        assert _are_equal(getattr(loaded, name), load_component(folder, name, index[name], torch.float32, None))
    assert [file.stem for file in weights_beside(known, row, family, tmp_path / "alone.safetensors")] == names
    with pytest.raises(CatalogueError, match=r"whole\.safetensors has a text_encoder of its own: leave that out"):
        load_model(known, row, family, tmp_path / "whole.safetensors", torch.float32)
