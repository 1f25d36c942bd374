"""Generation in every family and mode: seeds, several jobs at once, ControlNets, masks, receipts."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES, Mode
from contracts.errors import InvalidRequest
from contracts.storage import Storage
from tests.support.combinations import covering
from tests.support.counting_device import CountingDevice, DeviceTensor
from tests.support.images import encode_image
from tests.support.jobs import (
    RecordingWatch,
    complete_job,
    decode_pixels,
    generate_pixels,
    make_job,
    run_jobs,
)
from tests.support.trained import TRAINED_FAMILIES
from worker.generation.denoising import to_pil
from worker.pool.pool import Pool

EVERY_MODE = [(family.id, mode) for family in TRAINED_FAMILIES.values() for mode in family.modes]
FAMILY_IDS = list(TRAINED_FAMILIES)

#: An image of joined calls may differ from the same image alone by this many of 255 levels (float32 on the CPU).
BATCH_TOLERANCE_LEVELS = 1


@pytest.mark.parametrize(("family", "mode"), covering(EVERY_MODE))
def test_every_family_runs_each_of_its_modes_and_several_images_are_those_of_their_seeds_alone(
    family: str, mode: Mode, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    first, second = (make_job(catalogue, family, mode, num_inference_steps=2, seed=seed) for seed in (4, 5))
    together, receipt = complete_job(first.model_copy(update={"num_images": 2}), pool, storage)
    assert receipt.seeds == [4, 5]
    assert set(receipt.timings) >= {
        "queue",
        "load",
        "encode_prompt",
        "encode_inputs",
        "denoise",
        "decode",
        "write",
    }
    assert [decode_pixels(file).shape for file in together] == [(64, 64, 3)] * 2
    assert len(set(together)) == 2
    alone = [complete_job(job, pool, storage)[0] for job in (first, second)]
    for image, (expected,) in zip(together, alone, strict=True):
        assert np.abs(decode_pixels(image) - decode_pixels(expected)).max() <= BATCH_TOLERANCE_LEVELS
    # The same seed gives the same bytes, whatever has run meanwhile.
    assert complete_job(first, pool, storage)[0] == alone[0]


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_jobs_whose_calls_are_joined_keep_their_own_prompt_seed_and_format(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    both: dict[str, Any] = {"batchable": True, "num_inference_steps": 2}
    batch = [
        make_job(catalogue, family, seed=1, num_images=2, **both),
        make_job(catalogue, family, seed=9, prompt="a blue square", output_format="webp", **both),
    ]
    outcomes = run_jobs(batch, pool, storage)
    assert [len(outcome.stored) for outcome in outcomes] == [2, 1]
    guidance_passes = 1 if family == "flux" else 2
    assert [outcome.receipt.mean_rows for outcome in outcomes] == [3 * guidance_passes] * 2
    assert all(outcome.receipt.joined for outcome in outcomes)
    assert [outcome.receipt.seeds for outcome in outcomes] == [[1, 2], [9]]
    assert outcomes[1].receipt.parameters == batch[1]
    assert outcomes[1].stored[0].key == "images/job1/0/0.webp"
    alone = generate_pixels(batch[0], pool, storage)
    shared = decode_pixels(storage.read(outcomes[0].stored[0].key))
    assert np.abs(shared - alone).max() <= BATCH_TOLERANCE_LEVELS


def test_seed_zero_is_a_seed(catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    zero, one = (make_job(catalogue, "sdxl", seed=seed, num_inference_steps=1) for seed in (0, 1))
    files, receipt = complete_job(zero, pool, storage)
    assert receipt.seeds == [0]
    assert complete_job(zero, pool, storage)[0] == files
    assert complete_job(one, pool, storage)[0] != files


@pytest.mark.parametrize(("family", "mode"), covering([*product(("sd3", "flux"), (Mode.IMG2IMG, Mode.INPAINT))]))
def test_flux_and_sd3_generate_the_requested_size_not_their_default(
    family: str, mode: Mode, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    assert generate_pixels(make_job(catalogue, family, mode, width=96, height=80), pool, storage).shape == (
        80,
        96,
        3,
    )


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_sizes_that_flux_would_silently_round_down_are_refused(family: str, catalogue: Catalogue) -> None:
    with pytest.raises(InvalidRequest, match="must be a multiple of 16, got 72"):
        make_job(catalogue, family, width=72)


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_a_strength_that_leaves_no_step_is_refused(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    """diffusers' SDXL pipeline would crash, the FLUX pipeline would run one step."""
    with pytest.raises(InvalidRequest, match="leaves none to run"):
        make_job(catalogue, family, Mode.IMG2IMG, num_inference_steps=3, strength=0.33)
    complete_job(make_job(catalogue, family, Mode.IMG2IMG, num_inference_steps=3, strength=0.34), pool, storage)


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_clip_skip_works_up_to_its_maximum_and_is_refused_above(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    most = catalogue.model(f"shapes-{family}").max_clip_skip
    complete_job(make_job(catalogue, family, clip_skip=most, num_inference_steps=1), pool, storage)
    with pytest.raises(InvalidRequest, match="must be at most"):
        make_job(catalogue, family, clip_skip=most + 1)


@pytest.mark.parametrize(
    ("family", "mode", "steps", "strength", "ran"),
    [
        ("sdxl", Mode.TXT2IMG, 3, None, 3),
        ("sdxl", Mode.IMG2IMG, 5, 0.6, 3),
        ("flux", Mode.IMG2IMG, 5, 0.6, 3),
        ("sdxl", Mode.IMG2IMG, 3, 0.34, 1),
    ],
)
def test_the_watch_receives_the_steps_that_actually_run(
    family: str,
    mode: Mode,
    steps: int,
    strength: float | None,
    ran: int,
    catalogue: Catalogue,
    pool: Pool,
    storage: Storage,
) -> None:
    watch = RecordingWatch()
    fields: dict[str, Any] = {} if strength is None else {"strength": strength}
    run_jobs(make_job(catalogue, family, mode, num_inference_steps=steps, **fields), pool, storage, watch)
    assert watch.seen == [(step, ran) for step in range(1, ran + 1)]


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_defaults_of_diffusers_pipelines_have_no_effect(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    """Without an argument, FLUX pipelines use a guidance scale of 3.5 for one task and 7 for another."""
    explicit = make_job(catalogue, family, Mode.IMG2IMG, guidance_scale=3.5 if family == "flux" else 3.0)
    assert make_job(catalogue, family, Mode.IMG2IMG).guidance_scale == explicit.guidance_scale
    left_out = generate_pixels(make_job(catalogue, family, Mode.IMG2IMG), pool, storage)
    assert np.array_equal(left_out, generate_pixels(explicit, pool, storage))


def test_true_cfg_works_without_a_negative_prompt(catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    plain, guided = (
        generate_pixels(make_job(catalogue, "flux", num_inference_steps=1, true_cfg_scale=scale), pool, storage)
        for scale in (1.0, 4.0)
    )
    assert not np.array_equal(plain, guided)


@pytest.mark.parametrize(("family", "mode"), covering([row for row in EVERY_MODE if "controlnet" in row[1]]))
def test_a_controlnet_has_an_effect_in_proportion_to_its_scale(
    family: str, mode: Mode, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    base = make_job(catalogue, family, mode)
    (control,) = base.controls
    images = [
        generate_pixels(
            base.model_copy(update={"controls": (control.model_copy(update={"conditioning_scale": scale}),)}),
            pool,
            storage,
        )
        for scale in (0.0, 0.5, 1.0)
    ]
    assert np.abs(images[1] - images[0]).mean() > 0
    assert np.abs(images[2] - images[0]).mean() > np.abs(images[1] - images[0]).mean()


@pytest.mark.parametrize(
    ("family", "mode", "count"),
    covering(
        [
            (family, mode, count)
            for family, mode in EVERY_MODE
            if "controlnet" in mode and (family, mode) != ("sd3", Mode.CONTROLNET_INPAINT)
            for count in (2, 4)
        ]
    ),
)
def test_each_of_several_controlnets_has_an_effect(
    family: str, mode: Mode, count: int, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    several = make_job(catalogue, family, mode, controls=count, num_inference_steps=1, strength=1.0)
    together, receipt = complete_job(several, pool, storage)
    assert len(receipt.controlnets) == count
    for silent in range(count):
        controls = tuple(
            control.model_copy(update={"conditioning_scale": 0.0}) if index == silent else control
            for index, control in enumerate(several.controls)
        )
        without = generate_pixels(several.model_copy(update={"controls": controls}), pool, storage)
        assert not np.array_equal(decode_pixels(together[0]), without)


def test_the_receipt_has_everything_that_reproduces_the_image(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    parameters = make_job(
        catalogue, "flux", Mode.CONTROLNET, loras=[{"name": "flux-lora", "scale": 0.5}], num_images=2
    )
    _, receipt = complete_job(parameters, pool, storage)
    assert receipt.parameters == parameters
    assert receipt.model.id == "shapes-flux"
    assert len(receipt.model.sha256) == 64
    assert [(row.id, row.scale, row.family) for row in receipt.loras] == [("flux-lora", 0.5, "flux")]
    assert [row.id for row in receipt.controlnets] == ["flux-hint"]
    assert receipt.placement == {
        "text_encoder": "cpu", "text_encoder_2": "cpu", "transformer": "cpu", "vae": "cpu",
        "controlnet:flux-hint": "cpu",
    }  # fmt: skip
    assert receipt.dtype == "float32"
    assert receipt.device == "cpu"
    assert receipt.worker == "tester"
    assert {"torch", "diffusers"} <= set(receipt.versions)
    assert receipt.timings["queue"] == 0.5
    assert not receipt.joined


#: Family, mode, and a field of masks with a value.
INPAINTING = [
    (family, mode, *field)
    for family, mode in EVERY_MODE
    if "inpaint" in mode
    for field in (("mask_blur", 0), ("mask_blur", 6), ("padding_mask_crop", 8))
    if field[0] in FAMILIES[family].modes[mode]
]


@pytest.mark.parametrize(("family", "mode", "field", "value"), covering(INPAINTING))
def test_inpaint_changes_no_pixel_outside_the_mask(
    family: str,
    mode: Mode,
    field: str,
    value: int,
    catalogue: Catalogue,
    pool: Pool,
    storage: Storage,
) -> None:
    job = make_job(catalogue, family, mode, num_inference_steps=2, **{field: value})
    generated = generate_pixels(job, pool, storage)
    original = decode_pixels(storage.read("inputs/image.png"))
    outside = decode_pixels(storage.read("inputs/mask.png"))[..., 0] == 0
    assert np.array_equal(generated[outside], original[outside])
    assert not np.array_equal(generated[~outside], original[~outside])


def test_a_blurred_mask_blends_only_at_its_edge(catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    sharp, soft = (
        generate_pixels(make_job(catalogue, "sdxl", Mode.INPAINT, mask_blur=blur), pool, storage)
        for blur in (0, 6)
    )
    assert np.array_equal(sharp[31:33, 31:33], soft[31:33, 31:33])
    assert not np.array_equal(sharp[20:24, 20:44], soft[20:24, 20:44])


def test_a_black_mask_returns_the_input_image(catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    storage.write("inputs/mask.png", encode_image(Image.new("L", (64, 64), 0)))
    generated = generate_pixels(make_job(catalogue, "sdxl", Mode.INPAINT, padding_mask_crop=8), pool, storage)
    assert np.array_equal(generated, decode_pixels(storage.read("inputs/image.png")))


def test_a_crop_around_the_mask_changes_what_the_model_sees(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    whole = generate_pixels(make_job(catalogue, "sdxl", Mode.INPAINT), pool, storage)
    cropped = generate_pixels(make_job(catalogue, "sdxl", Mode.INPAINT, padding_mask_crop=4), pool, storage)
    assert not np.array_equal(whole, cropped)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_images_are_rounded_on_the_device_as_diffusers_rounds_them_on_the_host(dtype: torch.dtype) -> None:
    levels = torch.arange(0, 511).div(510)  # every level and every half between two
    values = torch.cat([levels, torch.rand(1, generator=torch.Generator().manual_seed(0))]).to(dtype)
    image = values.repeat(3).reshape(3, 16, 32)
    (theirs,) = VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(image[None]))
    assert to_pil(image).tobytes() == theirs.tobytes()
    with CountingDevice() as device, torch.inference_mode():
        assert to_pil(DeviceTensor(image)).tobytes() == theirs.tobytes()
    assert device.copied_bytes["cuda to cpu"] == image.numel()  # a byte a value crosses, not a float
