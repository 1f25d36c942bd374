"""A union ControlNet of FLUX.1: requests name one of its kinds of control, and get what diffusers makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.catalogue.families import Mode
from contracts.errors import CatalogueError, InvalidRequest
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.bare_diffusers import make_pipeline
from tests.support.jobs import INPUT_IMAGES, decode_pixels, generate_pixels, make_job, run_jobs
from worker.checkpoints.controls.controlnets import load_controlnet
from worker.families import get_family
from worker.pool.pool import Pool

MODES = ("canny", "tile", "depth")
CONTROL = INPUT_IMAGES["inputs/control.png"]


@pytest.fixture(scope="module")
def union(shipped: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> ControlNetSpec:
    """The row of a small union: the trained ControlNet, and what tells its modes apart drawn at random."""
    folder = tmp_path_factory.mktemp("union")
    source = shipped.root / "controlnets" / "shapes-flux-silhouette"
    trained = diffusers.FluxControlNetModel.from_pretrained(source, torch_dtype=torch.float32)
    torch.manual_seed(3)
    net = diffusers.FluxControlNetModel.from_config({**trained.config, "num_mode": len(MODES)})
    net.load_state_dict(trained.state_dict(), strict=False)
    torch.nn.init.normal_(net.controlnet_mode_embedder.weight, std=20)
    net.save_pretrained(folder)
    return ControlNetSpec(id="union", family="flux", source=str(folder), modes=MODES)


@pytest.fixture(scope="module")
def united(shipped: Catalogue, union: ControlNetSpec) -> Pool:
    return Pool(shipped.model_copy(update={"controlnets": (union,)}), device="cpu")


def _job(pool: Pool, mode: int, where: Mode = Mode.CONTROLNET, **fields: Any) -> JobParameters:
    control = {"controlnet": "union", "mode": mode}
    return make_job(pool.catalogue, "flux", where, control_fields=control, num_inference_steps=2, **fields)


@pytest.mark.parametrize("number", [0, 2])
def test_each_mode_is_what_diffusers_makes_of_it(
    number: int, united: Pool, union: ControlNetSpec, storage: Storage
) -> None:
    job = _job(united, number)
    ours = generate_pixels(job, united, storage)
    net = diffusers.FluxControlNetModel.from_pretrained(union.source, torch_dtype=torch.float32)
    pipeline = make_pipeline(united.catalogue.root / "shapes-flux", "FluxControlNetPipeline", controlnet=net)
    theirs = pipeline(
        "a red circle", control_image=CONTROL, control_mode=number, width=64, height=64, num_inference_steps=2,
        guidance_scale=job.guidance_scale, max_sequence_length=job.max_sequence_length,
        generator=torch.Generator().manual_seed(7),
    ).images[0]  # fmt: skip
    assert np.array_equal(ours, np.asarray(theirs).astype(np.int16))


@pytest.mark.parametrize("where", [Mode.CONTROLNET, Mode.CONTROLNET_IMG2IMG, Mode.CONTROLNET_INPAINT])
def test_images_of_different_modes_share_calls_and_are_what_they_are_alone(
    where: Mode, united: Pool, storage: Storage
) -> None:
    batch = [_job(united, 0, where, batchable=True, num_images=2), _job(united, 2, where, batchable=True)]
    outcomes = run_jobs(batch, united, storage)
    assert all(outcome.receipt.joined for outcome in outcomes)
    together = [decode_pixels(storage.read(image.key)) for outcome in outcomes for image in outcome.stored]
    alone = [
        decode_pixels(storage.read(image.key))
        for job in batch
        for outcome in [run_jobs(job, united, storage)[0]]
        for image in outcome.stored
    ]
    assert not np.array_equal(alone[0], alone[2])
    for mixed, single in zip(together, alone, strict=True):
        assert np.abs(mixed - single).max() <= 1


def test_one_union_serves_several_controls_each_in_its_mode(united: Pool, storage: Storage) -> None:
    same = _job(united, 0, controls=2)
    first, second = same.controls
    other = same.model_copy(update={"controls": (first, second.model_copy(update={"mode": 2}))})
    images = [generate_pixels(job, united, storage) for job in (other, same, _job(united, 0))]
    assert min(np.abs(images[0] - image).max() for image in images[1:]) > 2


@pytest.mark.parametrize(
    ("controlnet", "mode", "reason"),
    [
        ("union", None, "is required: union is a union of 3 kinds"),
        ("union", 3, "must be a kind of union, got 3"),
        ("flux-hint", 0, "is not used: flux-hint has one kind of control; remove it"),
    ],
)
def test_a_mode_is_named_for_a_union_and_only_for_one(
    controlnet: str, mode: int | None, reason: str, catalogue: Catalogue, union: ControlNetSpec
) -> None:
    rows = catalogue.model_copy(update={"controlnets": (*catalogue.controlnets, union)})
    control = {"controlnet": controlnet} | ({} if mode is None else {"mode": mode})
    with pytest.raises(InvalidRequest) as caught:
        make_job(rows, "flux", Mode.CONTROLNET, control_fields=control)
    problems = [(problem.field, problem.message) for problem in caught.value.problems]
    assert problems == [("controls.0.mode", reason)]


def test_a_row_names_as_many_modes_as_its_union_has(union: ControlNetSpec) -> None:
    family, folder = get_family("flux"), Path(union.source)
    with pytest.raises(CatalogueError, match=r"a union of 3 kinds of control .* its row names 2"):
        load_controlnet(family, folder, torch.float32, modes=2)
    with pytest.raises(ValueError, match="not supported in family sd15"):
        ControlNetSpec(id="union", family="sd15", source="here", modes=("canny",))
