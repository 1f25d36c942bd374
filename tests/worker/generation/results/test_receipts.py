"""Metadata in the image files."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import ExifTags, Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.jobs.receipt import Receipt, Weights
from contracts.storage import Storage
from tests.support.jobs import complete_job, make_job, run_jobs
from worker.generation.results import receipts
from worker.pool.pool import Pool


def _texts(file: bytes) -> dict[str, str]:
    with Image.open(io.BytesIO(file)) as image:
        if image.format == "PNG":
            return dict(image.text)  # type: ignore[attr-defined]
        exif = image.getexif()
    comment: bytes = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    return {
        "darkroom": exif[ExifTags.Base.ImageDescription],
        "parameters": comment[8:].decode("utf-16-be"),
    }


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_every_format_contains_the_receipt(
    output_format: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    parameters = make_job(catalogue, "sdxl", output_format=output_format, num_images=2, prompt="un œuf, 卵")
    files, receipt = complete_job(parameters, pool, storage)
    inside = [json.loads(_texts(file)["darkroom"]) for file in files]
    assert [found["seed"] for found in inside] == [7, 8]
    assert inside[0]["parameters"]["prompt"] == "un œuf, 卵"
    assert inside[0]["model"] == receipt.model.model_dump()
    assert inside[0]["versions"] == receipt.versions


def test_the_a1111_line_has_the_fields_that_its_readers_expect(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    parameters = make_job(
        catalogue, "sdxl", Mode.IMG2IMG, negative_prompt="blurry", strength=0.5,
        loras=[{"name": "sdxl-lora", "scale": 0.5}],
    )  # fmt: skip
    files, receipt = complete_job(parameters, pool, storage)
    assert _texts(files[0])["parameters"].splitlines() == [
        "a red circle <lora:sdxl-lora:0.5>",
        "Negative prompt: blurry",
        "Steps: 2, Sampler: euler, CFG scale: 3.0, Seed: 7, Size: 64x64, "
        f"Model hash: {receipt.model.sha256[:10]}, Model: shapes-sdxl, Denoising strength: 0.5, "
        f"Guidance rescale: 0.0, Version: darkroom {receipt.versions.get('darkroom', '')}".rstrip(),
    ]


def _flat(value: Any) -> str:
    return json.dumps(value)


def test_the_file_contains_nothing_that_differs_between_two_runs(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    (file,), receipt = complete_job(make_job(catalogue, "flux"), pool, storage)
    inside = json.loads(_texts(file)["darkroom"])
    for name in ("timings", "worker", "mean_rows", "pauses", "joined", "placement"):
        assert name not in inside
    assert "job0" not in _flat(inside)
    assert receipt.worker not in _flat(inside)


def test_the_file_names_input_images_by_content_and_not_by_storage_key(catalogue: Catalogue) -> None:
    job = make_job(catalogue, "sdxl", Mode.CONTROLNET_INPAINT)
    image, mask, control = (f"inputs/{digits * 32}.0123abcd.png" for digits in ("0a", "1b", "2c"))
    controls = (job.controls[0].model_copy(update={"image": control}),)
    job = job.model_copy(update={"image": image, "mask_image": mask, "controls": controls})
    receipt = Receipt(parameters=job, seeds=[7], model=Weights(id=job.model, sha256="3d" * 32))

    text = receipts.file_metadata(receipt, seed=7)["darkroom"]

    assert "inputs/" not in text
    assert "0123abcd" not in text
    inside = json.loads(text)["parameters"]
    found = [inside["image"], inside["mask_image"], inside["controls"][0]["image"]]
    assert found == [f"sha256:{digits * 32}" for digits in ("0a", "1b", "2c")]


def test_files_of_a_job_alone_and_beside_another_have_the_same_metadata(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    mine = make_job(catalogue, "flux", batchable=True)
    (alone,), _ = complete_job(mine, pool, storage)
    outcomes = run_jobs([mine, make_job(catalogue, "flux", batchable=True, seed=99)], pool, storage)
    assert _texts(storage.read(outcomes[0].stored[0].key)) == _texts(alone)


def test_the_versions_include_every_library_that_computes() -> None:
    assert {"torch", "diffusers", "transformers", "peft"} <= receipts.library_versions().keys()
