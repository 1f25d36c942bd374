"""Adapters: every layout loads, nothing of one is left, and each known hazard is closed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.catalogue import Catalogue, LoraSpec
from contracts.errors import FailureCode, JobFailed
from contracts.families import FAMILIES, Mode
from contracts.parameters import LoraParameters
from contracts.storage import Storage
from tests.worker.orders import Onlooker, Pixels, done, order, pixels, run
from tests.worker.weights import to_kohya, write_adapter
from worker import lora_files
from worker.fingerprints import Fingerprints
from worker.lora_stock import Bounds, LoraStock
from worker.loras import Adapters
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


@pytest.fixture
def two_adapters(catalogue: Catalogue, tmp_path: Path) -> Catalogue:
    """A catalogue with a second adapter for SDXL, `extra`: of another rank, and for a text encoder, too."""
    path = tmp_path / "second.safetensors"
    write_adapter(path, "sdxl", _checkpoint(catalogue, "sdxl"), rank=8, seed=2, text_encoder=True)
    row = LoraSpec(id="extra", family="sdxl", source=str(path))
    return catalogue.model_copy(update={"loras": (*catalogue.loras, row)})


def _with(pool: Pool, storage: Storage, family: str, name: str = "extra", scale: float = 1.0) -> Pixels:
    loras = [{"name": name, "scale": scale}]
    return pixels(order(pool.catalogue, family, loras=loras), pool, storage)


def _failure(pool: Pool, storage: Storage, family: str) -> JobFailed:
    (failure,) = run(order(pool.catalogue, family, loras=[{"name": "extra"}]), pool, storage)
    assert isinstance(failure, JobFailed)
    assert failure.code == FailureCode.LORA_INCOMPATIBLE
    assert len(failure.message) < 500
    return failure


def _hooks(base: Any) -> int:
    """Hooks on all layers of a model."""
    modules = [part for part in base.components.values() if isinstance(part, torch.nn.Module)]
    return sum(len(layer._forward_hooks) for module in modules for layer in module.modules())


def _checkpoint(catalogue: Catalogue, family: str) -> Path:
    return catalogue.root / f"shapes-{family}"


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_an_adapter_acts_and_leaves_the_base_bit_for_bit_as_it_was(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    base, _ = done(order(catalogue, family), pool, storage)
    hooks = _hooks(pool.model(f"shapes-{family}").base)
    weak, strong = (_with(pool, storage, family, f"{family}-lora", scale) for scale in (0.5, 1.0))
    assert not np.array_equal(weak, strong)
    assert done(order(catalogue, family), pool, storage)[0] == base
    assert np.array_equal(_with(pool, storage, family, f"{family}-lora", 0.5), weak)
    assert _hooks(pool.model(f"shapes-{family}").base) == hooks


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


def test_hazard_1_an_adapter_that_leaves_wakes_no_other(
    catalogue: Catalogue, two_adapters: Catalogue, storage: Storage
) -> None:
    pool = Pool(two_adapters, device="cpu")
    base, _ = done(order(catalogue, "sdxl"), pool, storage)
    model = pool.model("shapes-sdxl")
    model.adapters = Adapters(model.base, model.family, LoraStock(two_adapters, bounds=Bounds(loaded=1)))
    alone = [_with(Pool(two_adapters, device="cpu"), storage, "sdxl", name) for name in ("sdxl-lora", "extra")]
    for name, expected in zip(("sdxl-lora", "extra", "sdxl-lora"), (*alone, alone[0]), strict=True):
        assert np.array_equal(_with(pool, storage, "sdxl", name), expected)
        assert model.adapters.loaded == (name,)
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


def test_hazard_2_a_switch_that_breaks_off_half_way_leaves_nothing_behind(
    catalogue: Catalogue, pool: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, _ = done(order(catalogue, "sdxl"), pool, storage)
    adapted = _with(pool, storage, "sdxl", "sdxl-lora")
    register, calls = torch.nn.Module.register_forward_hook, []

    def break_off(self: torch.nn.Module, *hook: Any, **options: Any) -> Any:
        calls.append(hook)
        if len(calls) == 5:
            raise RuntimeError("the device went away")
        return register(self, *hook, **options)

    monkeypatch.setattr(torch.nn.Module, "register_forward_hook", break_off)
    (failure,) = run(order(catalogue, "sdxl", loras=[{"name": "sdxl-lora"}]), pool, storage)
    assert isinstance(failure, JobFailed)
    monkeypatch.undo()
    assert done(order(catalogue, "sdxl"), pool, storage)[0] == base
    assert np.array_equal(_with(pool, storage, "sdxl", "sdxl-lora"), adapted)


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


def test_hazard_4_a_failure_while_the_prompt_is_encoded_leaves_no_text_encoder_scaled(
    add_lora: Callable[..., Pool],
    catalogue: Catalogue,
    storage: Storage,
    tmp_path: Path,
) -> None:
    path = tmp_path / "lora.safetensors"
    write_adapter(path, "sdxl", _checkpoint(catalogue, "sdxl"), text_encoder=True)
    pool = add_lora("sdxl", path)
    base, _ = done(order(catalogue, "sdxl"), pool, storage)
    encoder = pool.model("shapes-sdxl").base.text_encoder_2

    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("the encoder went away")

    handle = encoder.register_forward_pre_hook(fail)
    (failure,) = run(order(pool.catalogue, "sdxl", loras=[{"name": "extra", "scale": 0.5}]), pool, storage)
    handle.remove()
    assert isinstance(failure, JobFailed)
    assert done(order(catalogue, "sdxl"), pool, storage)[0] == base


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


# -- what stays loaded ------------------------------------------------------------------------------------


def test_hazard_9_a_swapped_in_adapter_keeps_an_alpha_that_differs_from_its_rank(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    """diffusers' hotswap drops it with the first `set_adapters`."""
    tensors = write_adapter(tmp_path / "a.safetensors", "sdxl", _checkpoint(catalogue, "sdxl"), rank=8, seed=3)
    pool = add_lora("sdxl", to_kohya(tensors, alpha=2.0))
    first = _with(pool, storage, "sdxl")
    plain = to_kohya(tensors, alpha=8.0)
    assert not np.array_equal(_with(add_lora("sdxl", plain), storage, "sdxl"), first)
    pool = add_lora("sdxl", to_kohya(tensors, alpha=2.0))
    for name in ("sdxl-lora", "extra", "sdxl-lora"):
        swapped = _with(pool, storage, "sdxl", name)
    assert np.array_equal(_with(pool, storage, "sdxl"), first)
    assert not np.array_equal(swapped, first)


def test_the_least_recently_used_adapters_leave_beyond_either_bound(two_adapters: Catalogue, pool: Pool) -> None:
    model = pool.model("shapes-sdxl")

    def adapters(bounds: Bounds) -> Adapters:
        return Adapters(model.base, model.family, LoraStock(two_adapters, bounds=bounds))

    small, large = LoraParameters(name="sdxl-lora"), LoraParameters(name="extra")
    roomy = adapters(Bounds())
    sizes: list[int] = []
    for lora in (small, large):
        with roomy.active([lora]):
            sizes.append(roomy.resident_bytes - sum(sizes))
    assert list(roomy.loaded) == ["sdxl-lora", "extra"]
    with roomy.active([small]):
        pass
    assert list(roomy.loaded) == ["extra", "sdxl-lora"]
    for bounds in (Bounds(loaded=1), Bounds(loaded_bytes=sum(sizes) - 1)):
        tight = adapters(bounds)
        with tight.active([small, large]):
            assert list(tight.loaded) == ["sdxl-lora", "extra"]  # one job's own may exceed the bounds
        assert list(tight.loaded) == ["extra"]
        assert tight.resident_bytes == sizes[1]
    none = adapters(Bounds(loaded=0))
    with none.active([small]):
        pass
    assert (none.loaded, none.resident_bytes) == ((), 0)


def test_an_adapter_file_that_changes_is_another_adapter(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    write_adapter(path, "sdxl", _checkpoint(catalogue, "sdxl"), seed=4)
    pool = add_lora("sdxl", path)
    first = _with(pool, storage, "sdxl")
    write_adapter(path, "sdxl", _checkpoint(catalogue, "sdxl"), seed=5)
    assert not np.array_equal(_with(pool, storage, "sdxl"), first)


def test_the_key_of_a_prompts_embedding_names_the_adapters_that_change_a_text_encoder(
    two_adapters: Catalogue, pool: Pool
) -> None:
    model = pool.model("shapes-sdxl")
    adapters = Adapters(model.base, model.family, LoraStock(two_adapters))
    denoiser_only, with_text = LoraParameters(name="sdxl-lora"), LoraParameters(name="extra", scale=0.5)
    assert adapters.text_key([]) == adapters.text_key([denoiser_only]) == ()
    path = Path(two_adapters.lora("extra").source)
    assert adapters.text_key([denoiser_only, with_text]) == ((Fingerprints().of(path), 0.5),)


def test_two_hundred_swaps_leave_memory_modules_and_parameters_where_they_were(
    two_adapters: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    rows = list(two_adapters.loras)
    for seed in (11, 12):
        path = tmp_path / f"{seed}.safetensors"
        write_adapter(path, "sdxl", _checkpoint(two_adapters, "sdxl"), rank=seed, seed=seed)
        rows.append(LoraSpec(id=f"lora-{seed}", family="sdxl", source=str(path)))
    catalogue = two_adapters.model_copy(update={"loras": tuple(rows)})
    pool = Pool(catalogue, device="cpu")
    base, _ = done(order(catalogue, "sdxl"), pool, storage)
    model = pool.model("shapes-sdxl")
    model.adapters = Adapters(model.base, model.family, LoraStock(catalogue, bounds=Bounds(loaded=2)))
    names = ["sdxl-lora", "extra", "lora-11", "lora-12"]

    def swap(times: int) -> tuple[int, int, int, int]:
        for turn in range(times):
            with model.adapters.active([LoraParameters(name=names[turn % 4], scale=1 - turn % 3)]):
                pass
        gc.collect()
        modules = [module for part in lora_files.targets(model.base).values() for module in part.modules()]
        parameters = sum(value.numel() for module in modules for value in module.parameters(recurse=False))
        tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        return len(modules), parameters, tensors, psutil.Process().memory_info().rss

    *before, rss_before = swap(20)
    *after, rss_after = swap(200)
    assert after == before
    assert rss_after - rss_before < 32 * 2**20
    assert done(order(catalogue, "sdxl"), pool, storage)[0] == base
