"""LoRAs have their effect in every mode, alone and together; some stay loaded; none leaves a trace."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.catalogue.families import FAMILIES, Mode
from contracts.metrics import Counters
from contracts.requests.entry_parameters import LoraParameters
from contracts.storage import Storage
from tests.support.adapters import (
    active_loras,
    checkpoint_of,
    choose_sets,
    generate_with_lora,
    make_short_job,
    own_adapters,
)
from tests.support.combinations import ALL, covering
from tests.support.jobs import Pixels, complete_job, generate_pixels
from tests.support.trained import TRAINED_FAMILIES
from tests.support.weights import to_kohya, write_adapter
from worker.adapters import reader
from worker.adapters.cache import LoraCache
from worker.adapters.files import Limits, LoraFiles
from worker.checkpoints.files import ContentHasher
from worker.pool.pool import Pool

FAMILY_IDS = list(TRAINED_FAMILIES)
Tensors = dict[str, torch.Tensor]


def _hooks(base: Any) -> int:
    """Count the forward hooks on all layers of a model."""
    modules = [part for part in base.components.values() if isinstance(part, torch.nn.Module)]
    return sum(len(layer._forward_hooks) for module in modules for layer in module.modules())


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_an_adapter_has_an_effect_and_leaves_the_model_bit_for_bit_unchanged(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_short_job(catalogue, family)
    base, _ = complete_job(job, pool, storage)
    hooks = _hooks(pool.model(job.model).base)
    weak, strong = (generate_with_lora(pool, storage, family, f"{family}-lora", scale) for scale in (0.5, 1.0))
    assert not np.array_equal(weak, strong)
    assert complete_job(job, pool, storage)[0] == base
    assert np.array_equal(generate_with_lora(pool, storage, family, f"{family}-lora", 0.5), weak)
    assert _hooks(pool.model(job.model).base) == hooks


@pytest.mark.parametrize(
    ("family", "mode"), covering([(family, mode) for family in FAMILY_IDS for mode in FAMILIES[family].modes])
)
def test_an_adapter_has_an_effect_in_every_mode(
    family: str, mode: Mode, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    orders = [make_short_job(catalogue, family, mode, loras=loras) for loras in ([], [{"name": f"{family}-lora"}])]
    plain, adapted = (generate_pixels(job, pool, storage) for job in orders)
    assert not np.array_equal(plain, adapted)


def test_several_adapters_have_an_effect_together_each_with_its_scale(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    write_adapter(tmp_path / "b.safetensors", "sdxl", checkpoint_of(catalogue, "sdxl"), rank=8, seed=2)
    pool = add_lora("sdxl", tmp_path / "b.safetensors")

    def both(first: float, second: float) -> Pixels:
        loras = [{"name": "sdxl-lora", "scale": first}, {"name": "extra", "scale": second}]
        return generate_pixels(make_short_job(pool.catalogue, "sdxl", loras=loras), pool, storage)

    assert np.array_equal(both(1.0, 0.0), generate_with_lora(pool, storage, "sdxl", "sdxl-lora"))
    assert np.array_equal(both(0.0, 1.0), generate_with_lora(pool, storage, "sdxl"))
    assert not np.array_equal(both(1.0, 1.0), both(1.0, 0.0))


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_adapters_of_every_rank_load(
    rank: int, add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    write_adapter(path, "flux", checkpoint_of(catalogue, "flux"), rank=rank)
    pool = add_lora("flux", path)
    assert not np.array_equal(
        generate_with_lora(pool, storage, "flux"), generate_with_lora(pool, storage, "flux", scale=0.0)
    )


def test_kohyas_layout_with_text_encoders_gives_the_same_image_as_pefts(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    tensors = write_adapter(path, "sdxl", checkpoint_of(catalogue, "sdxl"), rank=4, text_encoder=True)
    assert any(key.startswith("text_encoder.") for key in tensors)
    peft = generate_with_lora(add_lora("sdxl", path), storage, "sdxl")
    kohya = generate_with_lora(add_lora("sdxl", to_kohya(tensors, alpha=4.0)), storage, "sdxl")
    assert np.array_equal(peft, kohya)
    denoiser_only = {key: tensor for key, tensor in tensors.items() if key.startswith("unet.")}
    assert not np.array_equal(generate_with_lora(add_lora("sdxl", denoiser_only), storage, "sdxl"), peft)


def test_kohyas_alpha_scales_the_effect(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    tensors = write_adapter(tmp_path / "a.safetensors", "sdxl", checkpoint_of(catalogue, "sdxl"), rank=4)
    halved = generate_with_lora(add_lora("sdxl", to_kohya(tensors, alpha=2.0)), storage, "sdxl")
    whole = generate_with_lora(add_lora("sdxl", to_kohya(tensors, alpha=4.0)), storage, "sdxl", scale=0.5)
    assert np.abs(halved - whole).max() <= 1


def test_a_text_encoder_adapter_leaves_no_trace(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    write_adapter(path, "sdxl", checkpoint_of(catalogue, "sdxl"), text_encoder=True)
    pool = add_lora("sdxl", path)
    job = make_short_job(catalogue, "sdxl")
    base, _ = complete_job(job, pool, storage)
    generate_with_lora(pool, storage, "sdxl")
    assert complete_job(job, pool, storage)[0] == base


def test_alternating_adapters_give_each_job_the_same_image_every_time(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    """Alternates between no adapter, scales and modes; every image equals the first one of its job."""
    orders = [
        make_short_job(catalogue, "sdxl"),
        make_short_job(catalogue, "sdxl", loras=[{"name": "sdxl-lora"}]),
        make_short_job(catalogue, "sdxl", Mode.IMG2IMG, loras=[{"name": "sdxl-lora", "scale": -1.0}]),
        make_short_job(catalogue, "sdxl", Mode.INPAINT),
    ]
    first = [complete_job(item, pool, storage)[0] for item in orders]
    # After itself, and before and after each of the others.
    for index in (1, 0, 2, 1, 1, 3, 2, 3, 0):
        assert complete_job(orders[index], pool, storage)[0] == first[index]


# -- what stays loaded ------------------------------------------------------------------------------------


def test_the_least_recently_used_adapters_are_evicted_at_either_limit(two_adapters: Catalogue, pool: Pool) -> None:
    model = pool.model("shapes-sdxl")

    def adapters(limits: Limits) -> LoraCache:
        return LoraCache(model.base, model.family, LoraFiles(two_adapters, limits=limits))

    small, large = LoraParameters(name="sdxl-lora"), LoraParameters(name="extra")
    roomy = adapters(Limits())
    sizes: list[int] = []
    for lora in (small, large):
        with active_loras(roomy, lora):
            sizes.append(roomy.resident_bytes - sum(sizes))
    assert list(roomy.loaded) == ["sdxl-lora", "extra"]
    with active_loras(roomy, small):
        pass
    assert list(roomy.loaded) == ["extra", "sdxl-lora"]
    for limits in (Limits(loaded=1), Limits(loaded_bytes=sum(sizes) - 1)):
        tight = adapters(limits)
        with active_loras(tight, small, large):
            assert list(tight.loaded) == ["sdxl-lora", "extra"]  # one job's own may exceed the limits
        assert list(tight.loaded) == ["extra"]
        assert tight.resident_bytes == sizes[1]
    none = adapters(Limits(loaded=0))
    with active_loras(none, small):
        pass
    assert (none.loaded, none.resident_bytes) == ((), 0)


def test_an_adapter_file_that_changes_is_another_adapter(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    write_adapter(path, "sdxl", checkpoint_of(catalogue, "sdxl"), seed=4)
    pool = add_lora("sdxl", path)
    first = generate_with_lora(pool, storage, "sdxl")
    write_adapter(path, "sdxl", checkpoint_of(catalogue, "sdxl"), seed=5)
    assert add_lora("sdxl", path) is pool
    assert not np.array_equal(generate_with_lora(pool, storage, "sdxl"), first)


def test_the_key_of_an_embedding_has_the_adapters_that_change_a_text_encoder(
    two_adapters: Catalogue, pool: Pool
) -> None:
    model = pool.model("shapes-sdxl")
    adapters = LoraCache(model.base, model.family, LoraFiles(two_adapters))
    denoiser_only, with_text = LoraParameters(name="sdxl-lora"), LoraParameters(name="extra", scale=0.5)
    none, one, both = choose_sets(adapters, [], [denoiser_only], [denoiser_only, with_text])
    assert none.for_text_encoders.key == one.for_text_encoders.key == ()
    path = Path(two_adapters.lora("extra").source)
    assert both.for_text_encoders.key == ((ContentHasher().hash(path), 0.5),)


def test_many_swaps_change_neither_memory_nor_modules_nor_parameters(
    two_adapters: Catalogue, pool: Pool, storage: Storage, tmp_path: Path
) -> None:
    rows = list(two_adapters.loras)
    for seed in (11, 12):
        path = tmp_path / f"{seed}.safetensors"
        write_adapter(path, "sdxl", checkpoint_of(two_adapters, "sdxl"), rank=seed, seed=seed)
        rows.append(LoraSpec(id=f"lora-{seed}", family="sdxl", source=str(path)))
    catalogue = two_adapters.model_copy(update={"loras": tuple(rows)})
    job = make_short_job(catalogue, "sdxl")
    base, _ = complete_job(job, pool, storage)
    model = pool.model(job.model)
    names = ["sdxl-lora", "extra", "lora-11", "lora-12"]

    def swap(adapters: LoraCache, times: int) -> tuple[int, int, int, int]:
        for turn in range(times):
            with active_loras(adapters, LoraParameters(name=names[turn % 4], scale=1 - turn % 3)):
                pass
        gc.collect()
        modules = [
            module for part in reader.adaptable_components(model.base).values() for module in part.modules()
        ]
        parameters = sum(value.numel() for module in modules for value in module.parameters(recurse=False))
        tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        return len(modules), parameters, tensors, psutil.Process().memory_info().rss

    with own_adapters(pool, "sdxl", LoraFiles(catalogue, limits=Limits(loaded=2))) as adapters:
        *before, rss_before = swap(adapters, 8)
        *after, rss_after = swap(adapters, 200 if ALL else 24)
    assert after == before
    assert rss_after - rss_before < 32 * 2**20
    assert complete_job(job, pool, storage)[0] == base


def test_loads_switches_and_evictions_are_counted(two_adapters: Catalogue, pool: Pool) -> None:
    model, counters = pool.model("shapes-sdxl"), Counters()
    lora_files = LoraFiles(two_adapters, limits=Limits(loaded=1), counters=counters)
    adapters = LoraCache(model.base, model.family, lora_files, "shapes-sdxl")
    small, large = LoraParameters(name="sdxl-lora"), LoraParameters(name="extra")
    for loras in ([], [small], [small], [large], [], [large.model_copy(update={"scale": 0.5})]):
        with active_loras(adapters, *loras):
            pass
    counted = {json.loads(key)[0]: amount for key, amount in counters.drain().items()}
    assert counted == {"adapter_loads": 2, "adapter_switches": 4, "adapter_evictions": 1}
