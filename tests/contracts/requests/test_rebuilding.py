"""The request of stored parameters: one that is accepted, and that names every image where it was."""

from __future__ import annotations

from typing import Any

from contracts.catalogue.families import Task
from contracts.catalogue.reader import read_catalogue
from contracts.requests.defaults import resolve
from contracts.requests.entry_parameters import (
    HiresParameters,
    IpAdapterParameters,
    LoraParameters,
    TextualInversionParameters,
)
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.parameters import JobParameters
from contracts.requests.rebuilding import images_of, place_images, request_fields
from contracts.requests.schema import REQUESTS
from contracts.settings import BUILT_IN_CATALOGUE


def job_of(task: Task, **fields: Any) -> JobParameters:
    request = REQUESTS[task].model_validate({"prompt": "a red circle", "seed": 7, **fields})
    stored = StoredImage("inputs/image.png", 64, 64)
    paths = ("image", "mask_image", "controls.0.image") if task is Task.CONTROLNET else ()
    return resolve(request, read_catalogue(BUILT_IN_CATALOGUE).model("shapes-sdxl"), dict.fromkeys(paths, stored))


def test_every_kind_of_entry_is_one_of_a_request_again() -> None:
    asked = {"controlnet": "shapes-sdxl-silhouette", "image": "x"}
    job = job_of(Task.CONTROLNET, image="x", mask_image="x", controls=[asked])
    control = job.controls[0].model_copy(update={"image": "made", "source": "photo", "preprocess": "canny"})
    adapter = IpAdapterParameters(name="a", images=("one", "two"), mask="where", key="k", sha256="0", values=3)
    inversion = TextualInversionParameters(name="smudge", words=("smudge",), key="k", sha256="0", vectors=1)
    changes = {
        "image": "first",
        "mask_image": "white",
        "controls": (control,),
        "ip_adapters": (adapter,),
        "textual_inversions": (inversion,),
        "loras": (LoraParameters(name="l", scale=0.5, key="k", sha256="0", values=1),),
    }
    job = job.model_copy(update=changes)

    fields = request_fields(job)
    place_images(fields, images_of(job))
    request = REQUESTS[job.task].model_validate(fields | {"task": job.task})

    assert (fields["image"], fields["mask_image"], fields["controls"][0]["image"]) == ("first", "white", "photo")
    assert fields["ip_adapters"] == [{"name": "a", "images": ["one", "two"], "scale": 1.0, "mask": "where"}]
    assert fields["textual_inversions"] == [{"name": "smudge"}]
    assert request.seed == job.seed


def test_a_second_pass_is_asked_for_by_its_scale() -> None:
    job = job_of(Task.TXT2IMG).model_copy(update={"hires": HiresParameters(scale=1.5, width=96, height=96)})
    assert "width" not in request_fields(job)["hires"]
    REQUESTS[job.task].model_validate(request_fields(job))
