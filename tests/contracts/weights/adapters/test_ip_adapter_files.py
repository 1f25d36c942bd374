"""IP-Adapter files by their headers: what each kind says of itself, and refusals by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.catalogue.catalogue import Catalogue, IpAdapterSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import AdapterRefused, CatalogueError
from contracts.memory.planner import take_capacity
from contracts.memory.policy import Policy
from contracts.memory.sizes.component import Role
from contracts.memory.sizes.extras import size_ip_adapter
from contracts.weights.adapters.ip_adapter_files import read_ip_adapter
from contracts.weights.adapters.ip_adapter_rows import check_ip_adapter_row, patches_of_encoder
from tests.support.ip_adapter_headers import FULL, LAYERS, PLAIN, PLUS, REDUX, Shapes, write_file
from tests.support.parameters import parameters


@pytest.mark.parametrize(
    ("shapes", "kind", "tokens", "image_width", "reads"),
    [
        (PLAIN, "plain", 4, 10, "embedding"),
        (PLUS, "plus", 16, 12, "states"),
        (FULL, "full", 257, 12, "states"),
    ],
)
def test_the_header_says_what_a_file_reads_and_makes(
    shapes: Shapes, kind: str, tokens: int, image_width: int, reads: str, tmp_path: Path
) -> None:
    facts = read_ip_adapter(write_file(tmp_path / "a.safetensors", shapes))
    assert (facts.kind, facts.tokens, facts.image_width, facts.reads) == (kind, tokens, image_width, reads)
    assert (facts.width, facts.layers, facts.key_values) == (6, 2, 32)


def test_redux_reads_patches_and_keeps_nothing_on_the_device(tmp_path: Path) -> None:
    facts = read_ip_adapter(write_file(tmp_path / "a.safetensors", REDUX))
    assert (facts.kind, facts.tokens, facts.image_width, facts.reads) == ("redux", None, 12, "patches")
    assert (facts.width, facts.layers, facts.device_values) == (6, 0, 0)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"redux_down.bias": None}, r"lacks redux_down\.bias"),
        ({"redux_in.weight": (6, 6)}, r"has, beside Redux's tensors, redux_in\.weight"),
        ({"redux_up.weight": (17, 12)}, r"redux_up\.weight has the shape \[17, 12\]; Redux makes"),
        ({"redux_up.weight": (18,)}, r"redux_up\.weight has the shape \[18\]"),
        ({"redux_up.weight": (0, 12), "redux_up.bias": (0,)}, "has the shape"),
        ({"redux_down.weight": (6, 12)}, r"redux_down\.weight has the shape \[6, 12\]"),
    ],
)
def test_redux_of_other_tensors_is_refused(
    changed: dict[str, tuple[int, ...] | None], reason: str, tmp_path: Path
) -> None:
    shapes = {name: shape for name, shape in {**REDUX, **changed}.items() if shape is not None}
    with pytest.raises(AdapterRefused, match=reason):
        read_ip_adapter(write_file(tmp_path / "a.safetensors", shapes))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: [s.pop(name) for name in LAYERS], "is not an IP-Adapter"),
        (lambda s: s.pop("ip_adapter.3.to_v_ip.weight"), r"projections of ip_adapter\.3 is missing"),
        (lambda s: s.update({"ip_adapter.1.to_k_ip.weight": (8,)}), "must be a matrix"),
        (
            lambda s: s.update({"ip_adapter.7.to_k_ip.weight": (8, 6), "ip_adapter.7.to_v_ip.weight": (8, 6)}),
            "1, 3, 5",
        ),
        (lambda s: s.update({"ip_adapter.1.to_k_ip.weight": (8, 5)}), "read tokens of 5, 6 values"),
        (lambda s: s.update({"ip_adapter.0.to_q_lora.down.weight": (4, 8)}), "a FaceID adapter"),
        (lambda s: s.update({"image_proj.perceiver_resampler.proj_in.weight": (4, 8)}), "insightface"),
        (lambda s: s.update({"ip_adapter.0.to_k_ip.bias": (8,)}), "for FLUX only Redux is supported"),
        (lambda s: s.update({"text_model.a": (8,)}), r"text_model\.a is not a tensor of an IP-Adapter"),
        (lambda s: s.update({"image_proj.norm.weight": (7,)}), "24 outputs; 4 tokens of 7 are needed"),
        (lambda s: s.pop("image_proj.norm.weight"), "lacks a tensor"),
        (lambda s: s.update({"image_proj.proj.weight": (24,)}), "of another shape"),
        (lambda s: s.update({"image_proj.proj.weight": (0, 10), "image_proj.norm.weight": (0,)}), "tokens of 0"),
    ],
)
def test_other_files_are_refused_with_what_is_wrong(
    change: Callable[[Shapes], object], reason: str, tmp_path: Path
) -> None:
    shapes = dict(PLAIN)
    change(shapes)
    with pytest.raises(AdapterRefused, match=reason):
        read_ip_adapter(write_file(tmp_path / "a.safetensors", shapes))


def test_a_resampler_of_too_many_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match="makes 4096 tokens"):
        read_ip_adapter(write_file(tmp_path / "a.safetensors", {**PLUS, "image_proj.latents": (1, 4096, 5)}))


def test_pickles_and_truncated_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.safetensors").write_bytes(b"PK\x03\x04" + bytes(64))
    with pytest.raises(AdapterRefused, match="is a pickle"):
        read_ip_adapter(tmp_path / "p.safetensors")
    whole = write_file(tmp_path / "a.safetensors", PLAIN)
    whole.write_bytes(whole.read_bytes()[:-7])
    with pytest.raises(AdapterRefused, match="truncated"):
        read_ip_adapter(whole)


def _catalogue(folder: Path, family: str = "sdxl", **config: object) -> Catalogue:
    (folder / "clip").mkdir()
    known = {"model_type": "clip_vision_model", "projection_dim": 10, "hidden_size": 12}
    (folder / "clip" / "config.json").write_text(json.dumps({**known, **config}))
    (folder / "clip" / "model.safetensors").write_bytes(b"")
    write_file(folder / "a.safetensors", PLAIN)
    row = IpAdapterSpec(id="a", family=family, source="a.safetensors", image_encoder="clip")
    model = ModelSpec(id="m", family="sdxl", source="m")
    return Catalogue(root=folder, default_model="m", models=(model,), ip_adapters=(row,))


def test_a_row_whose_encoder_gives_what_its_file_reads_is_right(tmp_path: Path) -> None:
    catalogue = _catalogue(tmp_path)
    check_ip_adapter_row(catalogue, catalogue.ip_adapter("a"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"projection_dim": 1024},
            "reads 10 values of an image, and the projection_dim of its image_encoder is 1024",
        ),
        ({"model_type": "siglip"}, "is a siglip, and a CLIPVisionModelWithProjection is needed"),
        ({"architectures": ["CLIPVisionModel"]}, "is a CLIPVisionModel, and"),
        ({"family": "sd3"}, "IP-Adapters of family sd3 are not supported"),
        ({"family": "flux"}, "of the kind plain, which models of family flux cannot use"),
    ],
)
def test_a_row_that_cannot_work_is_refused_at_the_start(
    options: dict[str, str], reason: str, tmp_path: Path
) -> None:
    catalogue = _catalogue(tmp_path, **options)
    with pytest.raises(CatalogueError, match=reason):
        check_ip_adapter_row(catalogue, catalogue.ip_adapter("a"))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "siglip_vision_model"}, None),
        (
            {"model_type": "siglip_vision_model", "hidden_size": 10},
            "reads 12 values of an image, and the hidden_size",
        ),
        ({}, "is a clip_vision_model, and a SiglipVisionModel is needed"),
    ],
)
def test_redux_needs_the_siglip_encoder_that_it_was_trained_with(
    config: dict[str, Any], reason: str | None, tmp_path: Path
) -> None:
    catalogue = _catalogue(tmp_path, "flux", **config)
    write_file(tmp_path / "a.safetensors", REDUX)
    if reason is None:
        check_ip_adapter_row(catalogue, catalogue.ip_adapter("a"))
    else:
        with pytest.raises(CatalogueError, match=reason):
            check_ip_adapter_row(catalogue, catalogue.ip_adapter("a"))


def test_an_encoder_that_is_not_here_is_refused_at_the_start(tmp_path: Path) -> None:
    catalogue = _catalogue(tmp_path)
    (tmp_path / "clip").rename(tmp_path / "elsewhere")
    with pytest.raises(CatalogueError, match="must be a folder on this machine"):
        check_ip_adapter_row(catalogue, catalogue.ip_adapter("a"))


def test_a_plan_counts_keys_and_values_and_not_the_file(tmp_path: Path) -> None:
    component = size_ip_adapter(_catalogue(tmp_path), "a", 2)
    assert component is not None
    # With the images and without them: four tokens, 32 outputs in all layers, two bytes.
    assert (component.name, component.role, component.bytes) == ("ip_adapter:a", Role.ADAPTER, 2 * 4 * 32 * 2)


def test_a_plan_counts_every_image_of_every_adapter_of_a_job(tmp_path: Path) -> None:
    catalogue = _catalogue(tmp_path)
    capacity = take_capacity(catalogue, 2**30, Policy(), lambda _: 2)
    entry = {"name": "a", "images": ("inputs/a.png", "inputs/b.png")}
    job = parameters(model="m", ip_adapters=(entry, {**entry, "mask": "inputs/m.png"}))
    extras = capacity.workload("sdxl", job, 2).extras
    assert [(extra.name, extra.bytes) for extra in extras] == [("ip_adapter:a", 2 * 2 * 4 * 32 * 2)] * 2
    assert capacity.workload("sdxl", parameters(model="m"), 2).extras == ()


def test_a_plan_counts_the_tokens_of_redux_once_however_many_images_there_are(tmp_path: Path) -> None:
    catalogue = _catalogue(tmp_path, "flux", model_type="siglip_vision_model", image_size=384, patch_size=14)
    write_file(tmp_path / "a.safetensors", REDUX)
    write_file(tmp_path / "clip" / "model.safetensors", {"x": (1,)})
    capacity = take_capacity(catalogue, 2**30, Policy(), lambda _: 2)
    entry = {"name": "a", "images": ("inputs/a.png", "inputs/b.png")}
    jobs = [parameters(model="m", max_sequence_length=512, ip_adapters=(entry,) * count) for count in (0, 1, 2)]
    workloads = [capacity.workload("flux", job, 1) for job in jobs]
    assert [workload.shape.text_tokens for workload in workloads] == [512, 512 + 729, 512 + 729]
    assert sum(extra.bytes for extra in workloads[2].extras if extra.role is Role.ADAPTER) == 0


@pytest.mark.parametrize("sides", [{"patch_size": 0}, {"patch_size": 1, "image_size": 384}, {"image_size": "384"}])
def test_an_encoder_of_impossible_patches_is_refused(sides: dict[str, Any], tmp_path: Path) -> None:
    _catalogue(tmp_path, "flux", model_type="siglip_vision_model", **sides)
    with pytest.raises(CatalogueError):
        patches_of_encoder(tmp_path / "clip")
