"""What is fetched from a hub for each kind of row, and that it loads without the hub afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.hub.errors import HubRefused
from contracts.hub.source import HubSource
from contracts.jobs.failures import JobFailed
from tests.support.hub import Hub, serving, use_hub
from tests.support.hub_repositories import (
    MODELS,
    checkpoint,
    controlnet,
    in_shards,
    loras,
    sketch,
    with_class,
    with_variant,
)
from worker.checkpoints import sources
from worker.checkpoints.controls.controlnets import load_controlnet
from worker.checkpoints.files import ContentHasher
from worker.checkpoints.loader import load_model
from worker.checkpoints.one_file.single_file import SingleFile
from worker.families import get_family


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        yield hub


def _model(source: str, family: str = "sdxl", **fields: object) -> ModelSpec:
    return ModelSpec.model_validate({"id": "m", "family": family, "source": source, **fields})


def _fetch(catalogue: Catalogue, spec: ModelSpec) -> Path:
    family = get_family(spec.family)
    assert sources.find_model(catalogue, spec, family) is None
    path = sources.fetch_model(catalogue, spec, family)
    assert sources.find_model(catalogue, spec, family) == path
    return path


def _write_keys(path: Path, *prefixes: str) -> str:
    """A file that holds what the keys of the original layouts say, and no usable weights."""
    save_file({f"{prefix}x": torch.zeros(1) for prefix in ("model.diffusion_model.", *prefixes)}, path)
    return str(path)


@pytest.mark.parametrize(
    ("family", "keys", "weights"),
    [
        ("sdxl", ["conditioner.embedders.0.", "first_stage_model."], set()),
        ("sdxl", ["conditioner.embedders.0."], {"vae"}),
        ("sdxl", ["first_stage_model."], {"text_encoder", "text_encoder_2"}),
        ("sdxl", [], {"text_encoder", "text_encoder_2", "vae"}),
        ("sd3", ["text_encoders.clip_l.", "text_encoders.t5xxl.", "first_stage_model."], set()),
        ("sd3", ["text_encoders.clip_l.", "first_stage_model."], {"text_encoder_3"}),
    ],
)
def test_of_its_configuration_a_single_file_gets_only_what_it_lacks(
    hub: Hub, catalogue: Catalogue, tmp_path: Path, family: str, keys: list[str], weights: set[str]
) -> None:
    hub.commit("org/config", sketch(checkpoint(f"shapes-{family}")))
    spec = _model(_write_keys(tmp_path / "m.safetensors", *keys), family, config="org/config")
    assert _fetch(catalogue, spec) == tmp_path / "m.safetensors"
    fetched = hub.fetched("org/config")
    assert {name.partition("/")[0] for name in fetched if name.endswith(".safetensors")} == weights
    assert {"model_index.json", "vae/config.json", "tokenizer/tokenizer.json"} <= set(fetched)
    hub.stop()
    beside = sources.weights_beside(catalogue, spec, get_family(family), tmp_path / "m.safetensors")
    assert {file.parent.name for file in beside} == weights


def test_a_configuration_in_the_cache_needs_no_hub_even_where_no_commit_is_agreed_on(
    hub: Hub, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit("org/usual", sketch(checkpoint()))
    monkeypatch.setattr(SingleFile, "usual_repository", lambda _: HubSource("org/usual"))
    spec = _model(_write_keys(tmp_path / "m.safetensors", "conditioner.embedders.0."))
    _fetch(catalogue, spec)
    hub.stop()
    assert sources.fetch_model(catalogue, spec, get_family("sdxl")) == tmp_path / "m.safetensors"


def test_a_controlnet_in_shards_of_a_variant_is_hashed_and_loaded_whole(hub: Hub, catalogue: Catalogue) -> None:
    # in_shards knows components: the ControlNet is one here, and its files move to the top.
    files = {f"net/{name}": content for name, content in controlnet().items()}
    shards = in_shards(with_variant(files), "net", "fp16")
    hub.commit("org/net", {name.removeprefix("net/"): content for name, content in shards.items()})
    spec = ControlNetSpec(id="n", family="sdxl", source="org/net", variant="fp16")
    path = sources.fetch_component(catalogue, spec)
    assert path.name == "diffusion_pytorch_model.safetensors.index.fp16.json"
    hub.stop()
    before = ContentHasher().hash(path)
    net = load_controlnet(get_family("sdxl"), path, torch.float16)
    expected = load_file(MODELS / "controlnets/shapes-sdxl-silhouette/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(tensor, expected[key].half()) for key, tensor in net.state_dict().items())
    shard = path.with_name("diffusion_pytorch_model.fp16-00002-of-00002.safetensors").resolve()
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert ContentHasher().hash(path) != before


def test_a_configuration_of_another_class_is_refused_before_the_single_file_is_fetched(
    hub: Hub, catalogue: Catalogue
) -> None:
    hub.commit("org/file", {"m.safetensors": b"weights"})
    hub.commit("org/config", with_class(sketch(checkpoint()), "FluxPipeline"))
    spec = _model("org/file/m.safetensors", config="org/config")
    with pytest.raises(HubRefused, match="org/config is a FluxPipeline"):
        sources.fetch_model(catalogue, spec, get_family("sdxl"))
    assert hub.fetched("org/file") == {}


def test_a_model_with_a_variant_of_some_components_loads_without_the_hub(hub: Hub, catalogue: Catalogue) -> None:
    files = in_shards(with_variant(checkpoint(), parts=["unet", "vae"]), "unet", "fp16")
    hub.commit("org/sdxl", files)
    spec = _model("org/sdxl", variant="fp16")
    path = _fetch(catalogue, spec)
    weights = {name for name in hub.fetched("org/sdxl") if name.endswith(".safetensors")}
    assert weights == {
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    }
    hub.stop()
    pipeline = load_model(catalogue, spec, get_family("sdxl"), path, torch.float32)
    expected = load_file(MODELS / "shapes-sdxl/unet/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(tensor, expected[key].float()) for key, tensor in pipeline.unet.state_dict().items())


@pytest.mark.parametrize(
    ("fields", "fetched"),
    [
        ({}, "diffusion_pytorch_model.safetensors"),
        ({"variant": "fp16"}, "diffusion_pytorch_model.fp16.safetensors"),
        ({"file": "pro.safetensors"}, "pro.safetensors"),
    ],
)
def test_a_controlnets_row_chooses_one_of_its_weights(
    hub: Hub, catalogue: Catalogue, fields: dict[str, str], fetched: str
) -> None:
    files, plain = dict(controlnet()), "diffusion_pytorch_model.safetensors"
    hub.commit(
        "org/net",
        {**files, "diffusion_pytorch_model.fp16.safetensors": files[plain], "pro.safetensors": files[plain]},
    )
    spec = ControlNetSpec.model_validate({"id": "n", "family": "sdxl", "source": "org/net", **fields})
    assert sources.find_component(catalogue, spec) is None
    path = sources.fetch_component(catalogue, spec)
    assert sources.find_component(catalogue, spec) == path
    assert sorted(hub.fetched("org/net")) == sorted(["config.json", fetched])
    hub.stop()
    net = load_controlnet(get_family("sdxl"), path, torch.float16)
    expected = load_file(MODELS / "controlnets/shapes-sdxl-silhouette" / plain)
    assert all(torch.equal(tensor, expected[key].half()) for key, tensor in net.state_dict().items())


def test_a_controlnet_of_another_class_is_refused_before_its_weights_are_fetched(
    hub: Hub, catalogue: Catalogue
) -> None:
    hub.commit("org/net", controlnet())
    spec = ControlNetSpec(id="n", family="flux", source="org/net")
    with pytest.raises(
        HubRefused, match="org/net is a ControlNetModel, and the row's family needs a FluxControlNet"
    ):
        sources.fetch_component(catalogue, spec)
    assert list(hub.fetched("org/net")) == ["config.json"]


def test_of_several_files_a_loras_row_must_name_one(hub: Hub, catalogue: Catalogue) -> None:
    hub.commit("org/loras", loras("tint", "stripes"))
    spec = LoraSpec(id="l", family="sdxl", source="org/loras")
    with pytest.raises(
        HubRefused, match=r"set `file` to one of shapes-sdxl-stripes\.safetensors, shapes-sdxl-tint"
    ):
        sources.fetch_lora(catalogue, spec)
    assert hub.fetched("org/loras") == {}
    named = LoraSpec(id="l", family="sdxl", source="org/loras/shapes-sdxl-tint.safetensors")
    path = sources.fetch_lora(catalogue, named)
    assert path.read_bytes() == (MODELS / "loras/shapes-sdxl-tint.safetensors").read_bytes()
    assert sources.find_lora(catalogue, named) == path
    assert list(hub.fetched("org/loras")) == ["shapes-sdxl-tint.safetensors"]


def test_a_loras_folder_on_this_machine_must_hold_one_file(catalogue: Catalogue, tmp_path: Path) -> None:
    row = LoraSpec(id="x", family="sdxl", source=str(tmp_path))
    with pytest.raises(JobFailed, match=r"one \.safetensors file"):
        sources.find_lora(catalogue, row)
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert sources.find_lora(catalogue, row) == sources.fetch_lora(catalogue, row) == tmp_path / "a.safetensors"


def test_a_worker_that_never_loads_t5_neither_fetches_nor_misses_it(hub: Hub, catalogue: Catalogue) -> None:
    hub.commit("org/sd3", sketch(checkpoint("shapes-sd3")))
    spec, family = _model("org/sd3", "sd3"), get_family("sd3")
    path = sources.fetch_model(catalogue, spec, family, without_t5=True)
    fetched = hub.fetched("org/sd3")
    weights = {name.partition("/")[0] for name in fetched if name.endswith(".safetensors")}
    assert weights == {"transformer", "text_encoder", "text_encoder_2", "vae"}
    assert {"tokenizer_3/tokenizer.json", "text_encoder_3/config.json"} <= set(fetched)
    assert sources.find_model(catalogue, spec, family, without_t5=True) == path
    assert sources.find_model(catalogue, spec, family) is None
    assert sources.fetch_model(catalogue, spec, family) == path
    assert any(name.startswith("text_encoder_3/model") for name in hub.fetched("org/sd3"))


def test_a_t5_that_a_family_needs_is_fetched_all_the_same(hub: Hub, catalogue: Catalogue) -> None:
    hub.commit("org/flux", sketch(checkpoint("shapes-flux")))
    sources.fetch_model(catalogue, _model("org/flux", "flux"), get_family("flux"), without_t5=True)
    assert any(name.startswith("text_encoder_2/model") for name in hub.fetched("org/flux"))


def test_a_single_file_without_t5_loads_where_t5_is_never_loaded(
    hub: Hub, catalogue: Catalogue, tmp_path: Path
) -> None:
    hub.commit("org/config", sketch(checkpoint("shapes-sd3")))
    keys = _write_keys(tmp_path / "m.safetensors", "text_encoders.clip_l.", "first_stage_model.")
    spec, family = _model(keys, "sd3", config="org/config"), get_family("sd3")
    path = sources.fetch_model(catalogue, spec, family, without_t5=True)
    assert not [name for name in hub.fetched("org/config") if name.endswith(".safetensors")]
    assert sources.find_model(catalogue, spec, family, without_t5=True) == path
    assert sources.weights_beside(catalogue, spec, family, path) == []
