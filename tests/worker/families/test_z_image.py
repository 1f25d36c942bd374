"""Z-Image's own: ControlNets that run the transformer's layers, and prompts of any length in one call."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.storage import Storage
from tests.support.jobs import INPUT_IMAGES, decode_pixels, generate_pixels, make_job, run_jobs
from worker.pool.pool import Pool

LONG = "a red circle and a green circle on the blue square and a red square on the green circle, " * 2
LORA: dict[str, Any] = {"loras": [{"name": "z-image-lora"}]}


def test_jobs_with_controlnets_and_prompts_of_other_lengths_equal_themselves_alone(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    """What a ControlNet adds is as long as the longest prompt of its call."""
    fields: list[dict[str, Any]] = [{}, {"prompt": LONG}, {"control_fields": {"conditioning_scale": 0.4}}, LORA]
    jobs = [
        make_job(catalogue, "z-image", Mode.CONTROLNET, batchable=True, num_inference_steps=2, **more)
        for more in fields
    ]
    jobs.append(make_job(catalogue, "z-image", Mode.TXT2IMG, batchable=True, num_inference_steps=2, prompt=LONG))
    alone = [generate_pixels(job, pool, storage) for job in jobs]

    results = run_jobs(jobs, pool, storage)

    assert any(result.receipt.joined for result in results)
    for result, expected in zip(results, alone, strict=True):
        assert np.abs(decode_pixels(storage.read(result.stored[0].key)) - expected).max() <= 1


def test_a_lora_acts_in_the_layers_that_a_controlnet_shares_as_diffusers_has_it(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, "z-image", Mode.CONTROLNET, max_sequence_length=64, **LORA)

    ours = generate_pixels(job, pool, storage)

    net = diffusers.ZImageControlNetModel.from_pretrained(catalogue.controlnet("z-image-hint").source)
    source = catalogue.model(job.model).source
    pipeline = diffusers.ZImageControlNetPipeline.from_pretrained(source, controlnet=net)
    pipeline.load_lora_weights(catalogue.lora("z-image-lora").source)
    pipeline.set_progress_bar_config(disable=True)
    (image,) = pipeline(
        "a red circle", control_image=INPUT_IMAGES["inputs/control.png"], width=64, height=64,
        num_inference_steps=2, guidance_scale=4.0, controlnet_conditioning_scale=1.0, max_sequence_length=64,
        generator=torch.Generator().manual_seed(7),
    ).images  # fmt: skip
    assert np.abs(ours - np.asarray(image).astype(int)).max() <= 1


def test_the_layers_that_a_controlnet_shares_are_counted_and_moved_once(catalogue: Catalogue, pool: Pool) -> None:
    job = make_job(catalogue, "z-image", Mode.CONTROLNET)
    model = pool.ready(job, 1)
    net = model.pipeline(Mode.CONTROLNET, "flow_euler", ["z-image-hint"]).controlnet
    shared = {id(parameter) for parameter in model.denoiser.parameters()}
    assert net.noise_refiner is model.denoiser.noise_refiner
    assert shared.isdisjoint(id(parameter) for parameter in net.parameters())
    plan = model.placement.plan
    assert plan is not None
    sizes = {component.name: component.bytes for component in plan.components}
    assert sizes["controlnet:z-image-hint"] == sum(parameter.nbytes for parameter in net.parameters())
