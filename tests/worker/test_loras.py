"""Adapters: every layout loads, nothing of one is left, and each known hazard is closed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

from contracts.catalogue import Catalogue, LoraSpec
from contracts.errors import FailureCode, JobFailed
from contracts.families import FAMILIES, Mode
from contracts.storage import Storage
from tests.worker.orders import Onlooker, Pixels, done, order, pixels, run
from tests.worker.weights import to_kohya, write_adapter
from worker.pipelines import Pool

FAMILY_IDS = list(FAMILIES)
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def add_lora(catalogue: Catalogue, tmp_path: Path) -> Callable[..., Pool]:
    """Makes a pool whose catalogue has one more adapter, `extra`, from tensors or a file."""

    def add(family: str, tensors: Tensors | Path) -> Pool:
        path = tensors if isinstance(tensors, Path) else tmp_path / "extra.safetensors"
        if not isinstance(tensors, Path):
            save_file(tensors, path)
        row = LoraSpec(id="extra", family=family, source=str(path))
        return Pool(catalogue.model_copy(update={"loras": (*catalogue.loras, row)}), device="cpu")

    return add


def _with(pool: Pool, storage: Storage, family: str, name: str = "extra", scale: float = 1.0) -> Pixels:
    loras = [{"name": name, "scale": scale}]
    return pixels(order(pool.catalogue, family, loras=loras), pool, storage)


def _failure(pool: Pool, storage: Storage, family: str) -> JobFailed:
    (failure,) = run(order(pool.catalogue, family, loras=[{"name": "extra"}]), pool, storage)
    assert isinstance(failure, JobFailed)
    assert failure.code == FailureCode.LORA_INCOMPATIBLE
    assert len(failure.message) < 500
    return failure


def _checkpoint(catalogue: Catalogue, family: str) -> Path:
    return catalogue.root / f"shapes-{family}"


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_an_adapter_acts_and_leaves_the_base_bit_for_bit_as_it_was(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    base, _ = done(order(catalogue, family), pool, storage)
    weak, strong = (_with(pool, storage, family, f"{family}-lora", scale) for scale in (0.5, 1.0))
    assert not np.array_equal(weak, strong)
    assert done(order(catalogue, family), pool, storage)[0] == base
    assert np.array_equal(_with(pool, storage, family, f"{family}-lora", 0.5), weak)
    modules = list(pool.model(f"shapes-{family}").base.components.values())
    assert not any(
        isinstance(layer, BaseTunerLayer)
        for module in modules
        if isinstance(module, torch.nn.Module)
        for layer in module.modules()
    )


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_an_adapter_acts_in_every_mode(family: str, catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    for mode in FAMILIES[family].modes:
        plain = pixels(order(catalogue, family, mode), pool, storage)
        adapted = pixels(order(catalogue, family, mode, loras=[{"name": f"{family}-lora"}]), pool, storage)
        assert not np.array_equal(plain, adapted), mode


def test_several_adapters_act_together_each_with_its_scale(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    write_adapter(tmp_path / "b.safetensors", "sdxl", _checkpoint(catalogue, "sdxl"), rank=8, seed=2)
    pool = add_lora("sdxl", tmp_path / "b.safetensors")

    def both(first: float, second: float) -> Pixels:
        loras = [{"name": "sdxl-lora", "scale": first}, {"name": "extra", "scale": second}]
        return pixels(order(pool.catalogue, "sdxl", loras=loras), pool, storage)

    assert np.array_equal(both(1.0, 0.0), _with(pool, storage, "sdxl", "sdxl-lora"))
    assert np.array_equal(both(0.0, 1.0), _with(pool, storage, "sdxl"))
    assert not np.array_equal(both(1.0, 1.0), both(1.0, 0.0))


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_ranks_differ_and_all_load(
    rank: int, add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    write_adapter(path, "flux", _checkpoint(catalogue, "flux"), rank=rank)
    pool = add_lora("flux", path)
    assert not np.array_equal(_with(pool, storage, "flux"), _with(pool, storage, "flux", scale=0.0))


def test_kohyas_layout_with_text_encoders_means_the_same_as_pefts(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    tensors = write_adapter(path, "sdxl", _checkpoint(catalogue, "sdxl"), rank=4, text_encoder=True)
    assert any(key.startswith("text_encoder.") for key in tensors)
    peft = _with(add_lora("sdxl", path), storage, "sdxl")
    kohya = _with(add_lora("sdxl", to_kohya(tensors, alpha=4.0)), storage, "sdxl")
    assert np.array_equal(peft, kohya)
    denoiser_only = {key: tensor for key, tensor in tensors.items() if key.startswith("unet.")}
    assert not np.array_equal(_with(add_lora("sdxl", denoiser_only), storage, "sdxl"), peft)


def test_kohyas_alpha_scales(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    tensors = write_adapter(tmp_path / "a.safetensors", "sdxl", _checkpoint(catalogue, "sdxl"), rank=4)
    halved = _with(add_lora("sdxl", to_kohya(tensors, alpha=2.0)), storage, "sdxl")
    whole = _with(add_lora("sdxl", to_kohya(tensors, alpha=4.0)), storage, "sdxl", scale=0.5)
    assert np.abs(halved - whole).max() <= 1


def test_a_text_encoder_adapter_leaves_no_trace(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    write_adapter(path, "sdxl", _checkpoint(catalogue, "sdxl"), text_encoder=True)
    pool = add_lora("sdxl", path)
    base, _ = done(order(catalogue, "sdxl"), pool, storage)
    _with(pool, storage, "sdxl")
    assert done(order(catalogue, "sdxl"), pool, storage)[0] == base


# -- the eight hazards of notes/pipes.md ------------------------------------------------------------------


def test_hazard_1_deleting_the_active_adapter_does_not_wake_another(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    base, _ = done(order(catalogue, "sdxl"), pool, storage)
    _with(pool, storage, "sdxl", "sdxl-lora")
    assert pool.model("shapes-sdxl").base.get_list_adapters() == {}
    assert done(order(catalogue, "sdxl"), pool, storage)[0] == base


def test_hazard_2_an_adapter_of_which_one_half_fails_leaves_the_other_half_inactive(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    tensors = write_adapter(path, "sdxl", _checkpoint(catalogue, "sdxl"), text_encoder=True)
    key = next(key for key in tensors if key.startswith("text_encoder.") and "lora_A" in key)
    tensors[key] = torch.zeros(4, 7)
    pool = add_lora("sdxl", tensors)
    base, _ = done(order(catalogue, "sdxl"), pool, storage)
    assert "text_encoder" in _failure(pool, storage, "sdxl").message
    assert done(order(catalogue, "sdxl"), pool, storage)[0] == base


def test_hazard_2_a_load_that_breaks_off_half_way_leaves_nothing_behind(
    catalogue: Catalogue, pool: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, _ = done(order(catalogue, "sdxl"), pool, storage)
    model = pool.model("shapes-sdxl")
    load = type(model.base).load_lora_into_unet

    def break_off(*args: object, **options: object) -> None:
        load(*args, **options)
        raise RuntimeError("the disk went away")

    monkeypatch.setattr(type(model.base), "load_lora_into_unet", break_off)
    (failure,) = run(order(catalogue, "sdxl", loras=[{"name": "sdxl-lora"}]), pool, storage)
    assert isinstance(failure, JobFailed)
    monkeypatch.undo()
    assert done(order(catalogue, "sdxl"), pool, storage)[0] == base


def test_hazard_3_an_adapter_works_again_after_jobs_without(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    first = _with(pool, storage, "sdxl", "sdxl-lora")
    done(order(catalogue, "sdxl"), pool, storage)
    assert np.array_equal(_with(pool, storage, "sdxl", "sdxl-lora"), first)


def test_hazard_4_a_job_that_is_abandoned_leaves_no_scale_behind(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    whole = _with(pool, storage, "sdxl", "sdxl-lora")
    half = order(catalogue, "sdxl", loras=[{"name": "sdxl-lora", "scale": 0.5}])
    with pytest.raises(KeyError):
        run(half, pool, storage, Onlooker(stop_after=1, error=KeyError()))
    assert np.array_equal(_with(pool, storage, "sdxl", "sdxl-lora"), whole)


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_hazard_5_an_adapter_of_another_width_is_refused_before_it_widens_the_base(
    family: str,
    add_lora: Callable[..., Pool],
    catalogue: Catalogue,
    storage: Storage,
    tmp_path: Path,
) -> None:
    tensors = write_adapter(tmp_path / "a.safetensors", family, _checkpoint(catalogue, family))
    for key in [key for key in tensors if "lora_A" in key]:
        tensors[key] = torch.zeros(4, tensors[key].shape[1] + 8)
    pool = add_lora(family, tensors)
    base, _ = done(order(catalogue, family), pool, storage)
    assert "is made for" in _failure(pool, storage, family).message
    assert done(order(catalogue, family), pool, storage)[0] == base


@pytest.mark.parametrize(
    "tensors",
    [
        {"elsewhere.a.lora_A.weight": torch.zeros(4, 8), "elsewhere.a.lora_B.weight": torch.zeros(8, 4)},
        {"unet.no.layer.lora_A.weight": torch.ones(4, 8), "unet.no.layer.lora_B.weight": torch.ones(8, 4)},
        {"unet.conv_in.hada_w1_a": torch.ones(4, 8)},
        {"weight": torch.zeros(4)},
    ],
)
def test_hazard_6_a_file_without_effect_is_refused(
    tensors: Tensors, add_lora: Callable[..., Pool], storage: Storage
) -> None:
    _failure(add_lora("sdxl", tensors), storage, "sdxl")


@pytest.mark.parametrize("other", FAMILY_IDS)
def test_hazard_6_an_adapter_of_another_family_is_refused(
    other: str, add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    family = FAMILY_IDS[FAMILY_IDS.index(other) - 1]
    write_adapter(tmp_path / "a.safetensors", other, _checkpoint(catalogue, other))
    pool = add_lora(family, tmp_path / "a.safetensors")
    base, _ = done(order(catalogue, family), pool, storage)
    _failure(pool, storage, family)
    assert done(order(catalogue, family), pool, storage)[0] == base


def test_hazard_6_weights_that_are_no_numbers_are_refused(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, shelf: Path
) -> None:
    tensors = load_file(shelf / "sdxl.safetensors")
    tensors[next(iter(tensors))][0, 0] = float("nan")
    assert "no numbers" in _failure(add_lora("sdxl", tensors), storage, "sdxl").message


@pytest.mark.parametrize("name", ["half", "train", "v1.5", "to"])
def test_hazard_7_a_name_may_be_one_of_torchs_own(
    name: str, catalogue: Catalogue, storage: Storage, shelf: Path
) -> None:
    row = LoraSpec(id=name, family="sdxl", source=str(shelf / "sdxl.safetensors"))
    pool = Pool(catalogue.model_copy(update={"loras": (row,)}), device="cpu")
    _with(pool, storage, "sdxl", name)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_hazard_8_a_pickle_is_never_opened(
    suffix: str, add_lora: Callable[..., Pool], storage: Storage, shelf: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"pickle{suffix}"
    torch.save(load_file(shelf / "sdxl.safetensors"), path)
    _failure(add_lora("sdxl", path), storage, "sdxl")


def test_a_changing_order_of_adapters_gives_each_job_its_own_image(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    """Alternates adapters, scales, none, failures and modes; every image equals its first making."""
    orders = [
        order(catalogue, "sdxl"),
        order(catalogue, "sdxl", loras=[{"name": "sdxl-lora"}]),
        order(catalogue, "sdxl", Mode.IMG2IMG, loras=[{"name": "sdxl-lora", "scale": -1.0}]),
        order(catalogue, "sdxl", Mode.INPAINT),
    ]
    first = [done(item, pool, storage)[0] for item in orders]
    for index in (1, 0, 2, 3, 1, 2, 0, 1, 1, 3, 0):
        assert done(orders[index], pool, storage)[0] == first[index]
