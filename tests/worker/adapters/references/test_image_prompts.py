"""Reference images give what diffusers' own IP-Adapter gives, act on their own job alone, and leave no trace."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.jobs.failures import FailureCode
from contracts.storage import Storage
from tests.support.images import encode_image
from tests.support.ip_adapters import ip_adapter_tensors, with_ip_adapters
from tests.support.jobs import (
    INPUT_IMAGES,
    Pixels,
    complete_job,
    decode_pixels,
    fail_job,
    generate_pixels,
    make_job,
    run_jobs,
)
from worker.adapters.files import LoraFiles
from worker.pool.pool import Pool

_MASK = "inputs/half.png"


@pytest.fixture(scope="module")
def adapted(catalogue: Catalogue, trained: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """The rows of `with_ip_adapters`, and `sdxl-broken`, whose file a test writes; SDXL is the shipped one."""
    folder = tmp_path_factory.mktemp("ip")
    models = (*trained.models, catalogue.model("tiny-sd15"), catalogue.model("tiny-kolors"))
    rows = with_ip_adapters(trained.model_copy(update={"models": models}), folder)
    broken = rows.ip_adapter("sdxl-plain").model_copy(
        update={"id": "sdxl-broken", "source": str(folder / "broken.safetensors")}
    )
    return rows.model_copy(update={"ip_adapters": (*rows.ip_adapters, broken)})


@pytest.fixture(scope="module")
def adapted_pool(adapted: Catalogue) -> Pool:
    return Pool(adapted, device="cpu")


@pytest.fixture(scope="module")
def bare(adapted: Catalogue) -> Callable[[str], Any]:
    """A pipeline of diffusers' own for each model."""

    @cache
    def load(id: str) -> Any:
        model = adapted.model(id)
        pipeline_class: Any = getattr(diffusers, model.family_spec.pipeline)
        pipeline = pipeline_class.from_pretrained(adapted.root / model.source, dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


@pytest.fixture
def references(storage: Storage) -> Storage:
    """The storage with a mask of the left half, too."""
    storage.write(_MASK, encode_image(_half()))
    return storage


def _half() -> Image.Image:
    mask = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(mask).rectangle((0, 0, 31, 63), fill=255)
    return mask


def _entry(name: str, images: Sequence[str] = ("image",), **more: Any) -> dict[str, Any]:
    return {
        "name": name if "-" in name else f"sdxl-{name}",
        "images": [f"inputs/{image}.png" for image in images],
        "scale": 0.6,
        **more,
    }


def _by_diffusers(
    pipeline: Any, catalogue: Catalogue, scheduler: Any, adapters: Sequence[Mapping[str, Any]], guidance: float
) -> Pixels:
    """The image by `load_ip_adapter` and `set_ip_adapter_scale`."""
    rows = [catalogue.ip_adapter(adapter["name"]) for adapter in adapters]
    pipeline.register_modules(scheduler=scheduler)
    pipeline.load_ip_adapter(
        [str(Path(row.source).parent) for row in rows],
        subfolder="",
        weight_name=[Path(row.source).name for row in rows],
        image_encoder_folder="encoder",
    )
    pipeline.set_ip_adapter_scale([adapter["scale"] for adapter in adapters])
    images = [[INPUT_IMAGES[key] for key in adapter["images"]] for adapter in adapters]
    more = {}
    if any("mask" in adapter for adapter in adapters):
        masks = IPAdapterMaskProcessor().preprocess([_half()] * len(images[0]), height=64, width=64)
        more["cross_attention_kwargs"] = {"ip_adapter_masks": [masks.reshape(1, len(images[0]), 64, 64)]}
    result = pipeline(
        "a red circle",
        num_inference_steps=3,
        width=64,
        height=64,
        ip_adapter_image=images,
        generator=torch.Generator("cpu").manual_seed(7),
        guidance_scale=guidance,
        output_type="pt",
        **more,
    )
    pipeline.unload_ip_adapter()
    pixels = result.images[0].mul(255).round().to(torch.uint8).permute(1, 2, 0)
    return np.asarray(pixels.numpy(), dtype=np.int16)


@pytest.mark.parametrize(
    ("adapters", "guidance"),
    [
        ([_entry("plain")], 3.0),
        ([_entry("plus", ["image", "control"])], 3.0),
        ([_entry("plain"), _entry("plus", ["control"], scale=0.3)], 3.0),
        ([_entry("plain")], 1.0),
        ([_entry("plain", ["image", "control"], mask=_MASK)], 3.0),
        ([_entry("sd15-plus", ["image", "control"])], 3.0),
        ([_entry("kolors-plus", ["image", "control"])], 3.0),
    ],
)
def test_the_image_is_that_of_diffusers_own_loader(
    adapters: list[dict[str, Any]],
    guidance: float,
    adapted: Catalogue,
    adapted_pool: Pool,
    bare: Callable[[str], Any],
    references: Storage,
) -> None:
    family = adapted.ip_adapter(adapters[0]["name"]).family
    usual: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": guidance}
    job, plain = (make_job(adapted, family, ip_adapters=some, **usual) for some in (adapters, []))
    own = generate_pixels(job, adapted_pool, references)
    assert np.abs(own - generate_pixels(plain, adapted_pool, references)).max() > 8, "it had no effect"
    scheduler = adapted_pool.model(job.model).pipeline(job.mode, job.scheduler).scheduler
    assert np.array_equal(own, _by_diffusers(bare(job.model), adapted, scheduler, adapters, guidance))


def test_reference_images_act_on_their_own_job_alone_and_leave_no_trace(
    adapted: Catalogue, adapted_pool: Pool, references: Storage
) -> None:
    """diffusers' own way blends the references of all images of a call into each."""
    sets = [[], [_entry("plain")], [_entry("plain", ["control"])], [_entry("plus"), _entry("plain", ["control"])]]
    exact = [make_job(adapted, "sdxl", ip_adapters=one, seed=number) for number, one in enumerate(sets)]
    alone = [generate_pixels(job, adapted_pool, references) for job in exact]
    joined = run_jobs([job.model_copy(update={"batchable": True}) for job in exact], adapted_pool, references)
    for pixels, result in zip(alone, joined, strict=True):
        assert result.receipt is not None
        assert result.receipt.joined
        assert np.abs(_pixels_of(result, 0, references) - pixels).max() <= 1
    assert np.array_equal(generate_pixels(exact[0], adapted_pool, references), alone[0])
    model = adapted_pool.model("shapes-sdxl")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.denoiser.modules())
    assert model.denoiser.config.encoder_hid_dim_type is None


def _pixels_of(result: Any, number: int, storage: Storage) -> Pixels:
    return decode_pixels(storage.read(result.stored[number].key))


def test_an_uploaded_one_gives_the_image_of_the_same_file_in_the_catalogue(
    adapted: Catalogue, adapted_pool: Pool, references: Storage, tmp_path: Path
) -> None:
    row = adapted.ip_adapter("sdxl-plain")
    job = make_job(adapted, "sdxl", ip_adapters=[_entry("plain")])
    key = "inputs/uploaded.safetensors"
    references.write_file(key, Path(row.source))
    sha256 = hashlib.sha256(Path(row.source).read_bytes()).hexdigest()
    own = job.ip_adapters[0].model_copy(
        update={"name": "mine", "key": key, "sha256": sha256, "image_encoder": "encoder"}
    )
    bare = adapted.model_copy(update={"ip_adapters": (), "image_encoders": (row.image_encoder,)})
    pool = Pool(bare, device="cpu", lora_files=LoraFiles(bare, references, tmp_path / "fetched"))
    files, receipt = complete_job(job.model_copy(update={"ip_adapters": (own,)}), pool, references)
    image = np.asarray(Image.open(io.BytesIO(files[0])).convert("RGB"), dtype=np.int16)
    assert np.array_equal(image, generate_pixels(job, adapted_pool, references))
    assert [(one.id, one.sha256) for one in receipt.ip_adapters] == [("mine", sha256)]


def test_several_images_and_a_lora_beside_the_references(
    adapted: Catalogue, adapted_pool: Pool, references: Storage
) -> None:
    both: dict[str, Any] = {"ip_adapters": [_entry("plain")], "loras": [{"name": "sdxl-lora"}]}
    first, second = (make_job(adapted, "sdxl", seed=seed, **both) for seed in (7, 8))
    pair = make_job(adapted, "sdxl", num_images=2, **both)
    (found,) = run_jobs(pair, adapted_pool, references)
    for number, job in enumerate((first, second)):
        alone = generate_pixels(job, adapted_pool, references)
        assert np.abs(_pixels_of(found, number, references) - alone).max() <= 1


def test_the_receipt_has_the_hash_of_the_adapter_and_of_its_encoder(
    adapted: Catalogue, adapted_pool: Pool, references: Storage
) -> None:
    job = make_job(adapted, "sdxl", ip_adapters=[_entry("plus")])
    _, receipt = complete_job(job, adapted_pool, references)
    (adapter,), (encoder,) = receipt.ip_adapters, receipt.image_encoders
    assert (adapter.id, adapter.scale, len(adapter.sha256)) == ("sdxl-plus", 0.6, 64)
    assert (encoder.id, len(encoder.sha256)) == ("encoder", 64)


def test_scale_zero_is_the_image_without(adapted: Catalogue, adapted_pool: Pool, references: Storage) -> None:
    off = make_job(adapted, "sdxl", ip_adapters=[_entry("plain", scale=0)])
    plain = make_job(adapted, "sdxl")
    without, expected = (generate_pixels(job, adapted_pool, references) for job in (off, plain))
    assert np.array_equal(without, expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("ip_adapter.1.to_k_ip.weight"), "one of the two projections of ip_adapter.1 is missing"),
        (lambda t: [t.pop(key) for key in list(t) if key.startswith("ip_adapter.1.")], "numbered 1, 3, 5"),
        (lambda t: t["image_proj.proj.bias"].fill_(float("nan")), "NaN or infinite"),
        (lambda t: t.update({"ip_adapter.0.to_q_lora.down.weight": torch.zeros(1)}), "a FaceID adapter"),
        (lambda t: t.update({"ip_adapter.0.to_k_ip.bias": torch.zeros(1)}), "for FLUX only Redux is supported"),
        (lambda t: t.update({"image_proj.proj.weight": torch.zeros(512, 32)}), "its image encoder gives 24"),
    ],
)
def test_a_file_that_does_not_fit_fails_its_job_by_name(
    change: Any, reason: str, adapted: Catalogue, adapted_pool: Pool, references: Storage
) -> None:
    tensors, file = ip_adapter_tensors(adapted.root / "shapes-sdxl"), adapted.ip_adapter("sdxl-broken").source
    change(tensors)
    save_file(tensors, file)
    error = fail_job(make_job(adapted, "sdxl", ip_adapters=[_entry("broken")]), adapted_pool, references)
    assert error.code is FailureCode.ADAPTER_INCOMPATIBLE
    assert not error.retryable
    assert reason in error.message
    assert str(Path(file).parent) not in error.message
