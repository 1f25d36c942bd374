"""A VAE in one file is the one of its folder, or it is refused by the layer that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue, VaeSpec
from contracts.errors import CatalogueError
from contracts.memory.sizes.component import Role
from contracts.memory.sizes.extras import size_vae
from contracts.weights.vae_files import with_vaes
from tests.support.hub import Hub, serving, use_hub
from tests.support.original_layout import vae_tensors
from tests.support.untrained_parts import seeded, vae
from worker.checkpoints.places import NotPrepared, Places, Unwatched
from worker.checkpoints.vaes import load_vae

_WEIGHTS = "diffusion_pytorch_model.safetensors"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = tmp_path_factory.mktemp("own")
    vae().save_pretrained(made)
    return diffusers.AutoencoderKL.from_pretrained(made)


@pytest.fixture(scope="module")
def folder(own: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE with the architecture of the model's own and other weights."""
    made = tmp_path_factory.mktemp("vae")
    seeded(lambda: diffusers.AutoencoderKL.from_config(own.config), seed=5).save_pretrained(made)
    return made


def _plain(tensors: Tensors) -> Tensors:
    return tensors


def _original(tensors: Tensors) -> Tensors:
    return {name.removeprefix("first_stage_model."): tensor for name, tensor in vae_tensors(tensors).items()}


def _with_prefix(tensors: Tensors) -> Tensors:
    return {
        **vae_tensors(tensors),
        "first_stage_model.loss.logvar": torch.zeros(1),
        "model_ema.decay": torch.ones(1),
    }


@pytest.mark.parametrize("write", [_plain, _original, _with_prefix])
def test_a_file_alone_is_the_vae_of_its_folder_and_the_plan_counts_it(
    write: Callable[[Tensors], Tensors], own: Any, folder: Path, tmp_path: Path, catalogue: Catalogue
) -> None:
    tensors = load_file(folder / _WEIGHTS)
    save_file({name: tensor.contiguous() for name, tensor in write(tensors).items()}, tmp_path / "one.safetensors")

    loaded = load_vae(tmp_path / "one.safetensors", own, torch.float32)

    whole = load_vae(folder, own, torch.float32)
    settings = {name: str(value) for name, value in whole.config.items() if not name.startswith("_")}
    assert {name: str(loaded.config[name]) for name in settings} == settings
    read = loaded.state_dict()
    assert read.keys() == whole.state_dict().keys()
    assert all(torch.equal(tensor, read[name]) for name, tensor in whole.state_dict().items())
    row = VaeSpec(id="one", family="sdxl", source=str(tmp_path / "one.safetensors"))
    part = size_vae(catalogue.model_copy(update={"vaes": (row,)}), "one", 4)
    assert part is not None
    assert (part.name, part.role) == ("vae:one", Role.VAE)
    assert part.bytes >= 4 * sum(tensor.numel() for tensor in read.values())
    assert part.activations.peaks


def test_weights_beside_their_configuration_are_those_of_the_folder(
    own: Any, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "mine.safetensors").write_bytes((folder / _WEIGHTS).read_bytes())
    loaded, stored = load_vae(tmp_path / "mine.safetensors", own, torch.float32), load_file(folder / _WEIGHTS)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("decoder.conv_in.bias"), r"lacks weights: decoder\.conv_in\.bias.*put its config\.json"),
        (lambda t: t.update({"extra.weight": torch.zeros(1)}), r"no layer of it takes: extra\.weight"),
        (
            lambda t: t.update({"decoder.conv_in.bias": torch.zeros(3)}),
            r"of another shape: decoder\.conv_in\.bias",
        ),
    ],
)
def test_a_file_with_other_layers_is_refused_by_one_of_them(
    change: Callable[[Tensors], object], reason: str, own: Any, folder: Path, tmp_path: Path
) -> None:
    tensors = load_file(folder / _WEIGHTS)
    change(tensors)
    save_file(tensors, tmp_path / "one.safetensors")
    with pytest.raises(CatalogueError, match=reason):
        load_vae(tmp_path / "one.safetensors", own, torch.float32)


def test_a_tensor_that_the_converter_would_drop_is_named(own: Any, folder: Path, tmp_path: Path) -> None:
    tensors = {**_original(load_file(folder / _WEIGHTS)), "decoder.up.9.new.weight": torch.zeros(1)}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "one.safetensors")
    with pytest.raises(CatalogueError, match=r"no layer of a VAE takes decoder\.up\.9\.new\.weight"):
        load_vae(tmp_path / "one.safetensors", own, torch.float32)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        yield hub


def test_vaes_on_a_hub_are_fetched_with_their_configuration_where_they_have_one(
    hub: Hub, own: Any, folder: Path, catalogue: Catalogue
) -> None:
    weights, config = (folder / _WEIGHTS).read_bytes(), (folder / "config.json").read_bytes()
    hub.commit(
        "org/vae", {"config.json": config, _WEIGHTS: weights, "other.safetensors": weights, "README.md": b""}
    )
    hub.commit("org/original", {"mine.safetensors": weights, "mine.ckpt": b"", "README.md": b""})
    sources = {"whole": "org/vae", "chosen": "org/vae/other.safetensors", "alone": "org/original/mine.safetensors"}
    rows = tuple(VaeSpec(id=id, family="sdxl", source=source) for id, source in sources.items())
    known = with_vaes(catalogue.model_copy(update={"vaes": rows}))
    places = Places(known)
    stored = load_file(folder / _WEIGHTS)
    for id in sources:
        assert size_vae(known, id, 4) is None
        with pytest.raises(NotPrepared, match=f"vae:{id}"):
            places.locate(f"vae:{id}")
        place = places.fetch(f"vae:{id}", Unwatched())
        assert Places(known).locate(f"vae:{id}") == place
        assert sources[id].startswith(str(places.weights(f"vae:{id}", "0").repository))
        loaded = load_vae(place, own, torch.float32).state_dict()
        assert all(torch.equal(tensor, stored[name]) for name, tensor in loaded.items())
        part = size_vae(known, id, 4)
        assert part is not None
        assert part == size_vae(known, id, 4, place)
    # The other file has the same content, which the cache has already.
    assert {*hub.fetched("org/vae")} == {"config.json", _WEIGHTS}
    assert {*hub.fetched("org/original")} == {"mine.safetensors"}
    fetched = with_vaes(known)
    assert fetched.vae("whole").latents == fetched.vae("chosen").latents
    assert fetched.vae("whole").latents is not None
    assert fetched.vae("alone").latents is None
