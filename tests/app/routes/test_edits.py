"""Edits over HTTP: references are read, checked, stored and told; a model without them says which has them."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save_file

from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore
from contracts.jobs.records import JobRecord
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from tests.support.images import data_url, encode_solid
from tests.support.scripted_worker import ScriptedWorker

SMALL = data_url(encode_solid("RGB", (64, 64), "red"))
WIDE = data_url(encode_solid("RGB", (96, 64), "green"))
MASK = data_url(encode_solid("L", (64, 64), 255))
CATALOGUE = """default_model = "plain"
[[models]]
id = "plain"
family = "flux"
source = "org/plain"
[[models]]
id = "kontext"
family = "flux"
source = "kontext"
[[models]]
id = "fill"
family = "flux"
source = "fill.safetensors"
[[models]]
id = "canny"
family = "flux"
source = "canny.safetensors"
"""


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> SharedSettings:
    """A plain FLUX.1, which is on a hub, a Kontext, whose index says so, and a Fill and a Canny by channels."""
    (tmp_path / "kontext").mkdir()
    (tmp_path / "kontext" / "model_index.json").write_text(json.dumps({"_class_name": "FluxKontextPipeline"}))
    for name, channels in (("fill", 384), ("canny", 128)):
        save_file({"img_in.weight": np.zeros((1, channels), np.float32)}, tmp_path / f"{name}.safetensors")
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE, encoding="utf-8")
    return SharedSettings(redis_url=redis_url, data=tmp_path / "data", catalogue=path)


def edit(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/edit", json={"prompt": "make it red", "model": "kontext", **fields})


def problems_of(response: Any) -> dict[str, str]:
    assert response.status_code == 422, response.text
    return {problem["field"]: problem["message"] for problem in response.json()["errors"]}


def record_of(queue: JobQueue, response: Any) -> JobRecord:
    assert response.status_code == 202, response.text
    return queue.fetch(response.json()["id"])


def test_a_model_says_how_many_references_it_takes_and_what_they_are(client: TestClient) -> None:
    model = client.get("/v1/models/kontext").json()

    assert model["tasks"] == ["txt2img", "inpaint", "edit"]
    assert (model["references"]["max_count"], model["defaults"]["guidance_scale"]) == (1, 2.5)
    field = model["schemas"]["edit"]["properties"]["references"]
    assert (field["minItems"], field["maxItems"]) == (1, 1)
    assert model["references"]["meaning"] in field["description"]
    assert client.get("/v1/models/plain").json()["references"] is None


def test_a_reference_keeps_its_size_and_the_output_follows_it(client: TestClient, queue: JobQueue) -> None:
    job = record_of(queue, edit(client, references=[WIDE])).parameters

    (reference,) = job.references
    assert (job.width, job.height) == (reference.width, reference.height) == (96, 64)
    assert (job.mode, job.inputs, job.guidance_scale) == ("edit", [reference.image], 2.5)
    assert [use.field for use in job.input_images] == ["references.0"]


def test_an_edit_is_planned_and_created_by_the_routes_of_any_task(client: TestClient, queue: JobQueue) -> None:
    body = {"task": "edit", "model": "kontext", "prompt": "x", "references": [WIDE]}

    plan = client.post("/v1/plan", json=body).json()

    assert (plan["mode"], plan["width"]) == ("edit", 96)
    assert record_of(queue, client.post("/v1/jobs", json=body)).parameters.task == "edit"


def test_the_receipt_tells_of_a_size_that_a_model_cannot_read(client: TestClient, queue: JobQueue) -> None:
    odd = data_url(encode_solid("RGB", (100, 64), "red"))

    job = record_of(queue, edit(client, references=[odd], width=64, height=64)).parameters

    (use,), (reference,) = job.input_images, job.references
    assert (job.width, job.height, reference.width, reference.height) == (64, 64, 96, 64)
    assert (use.width, use.height, use.read_size, use.fit, use.crop) == (
        100,
        64,
        (96, 64),
        "cover",
        (2, 0, 98, 64),
    )


def test_an_edit_within_a_mask_has_image_mask_and_reference(client: TestClient, queue: JobQueue) -> None:
    job = record_of(queue, edit(client, references=[WIDE], image=SMALL, mask_image=MASK)).parameters

    assert (job.mode, job.width, job.height, job.strength) == ("edit_inpaint", 64, 64, 0.6)
    assert len(job.inputs) == 3


#: Fields of an edit -> the field that is refused, and words of the reason.
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "references", "required"),
    ({"references": []}, "references", "1"),
    ({"references": None}, "references", ""),
    ({"references": SMALL}, "references", "list"),
    ({"references": [SMALL, SMALL]}, "references", "at most 1 entry for kontext, got 2"),
    ({"references": ["x"] * 17}, "references", "16"),
    ({"references": [7]}, "references.0", "string"),
    ({"references": [""]}, "references.0", ""),
    ({"references": ["upload:" + "0" * 64]}, "references.0", "does not exist"),
    ({"references": ["job:0/0"]}, "references.0", "does not exist"),
    ({"references": ["/etc/passwd"]}, "references.0", "cannot read"),
    ({"references": [SMALL], "image": SMALL}, "image", "add one"),
    ({"references": [SMALL], "mask_image": MASK}, "image", "required with mask_image"),
    ({"references": [SMALL], "image": WIDE, "mask_image": MASK}, "mask_image", "as large as image"),
    ({"references": [SMALL], "strength": 0.5}, "strength", "not supported"),
    ({"references": [SMALL], "controls": []}, "controls", "not a field"),
    ({"references": [SMALL], "width": 72}, "width", "multiple of 16"),
    ({"references": [SMALL], "negative_prompt": "blue"}, "negative_prompt", "true_cfg_scale"),
]


def test_what_an_edit_cannot_use_is_refused_by_name(client: TestClient, queue: JobQueue) -> None:
    for fields, field, words in REFUSED:
        found = problems_of(edit(client, **fields))

        assert list(found) == [field], fields
        assert words in found[field]
    assert queue.connection.keys("*") == []


def test_a_model_without_references_names_those_that_have_them(client: TestClient) -> None:
    found = problems_of(edit(client, model="plain", references=[SMALL]))
    assert found == {"model": "plain (flux) does not support edit; models here that do: kontext"}

    found = problems_of(client.post("/v1/img2img", json={"prompt": "x", "model": "kontext", "image": SMALL}))
    assert found == {"model": "kontext (flux-kontext) does not support img2img; models here that do: plain, canny"}


def test_a_checkpoint_offers_the_tasks_that_its_channels_can_run(client: TestClient, queue: JobQueue) -> None:
    model = client.get("/v1/models/fill").json()
    assert (model["tasks"], list(model["schemas"])) == (["inpaint"], ["inpaint"])
    assert (model["defaults"]["guidance_scale"], model["defaults"]["strength"]) == (30.0, 1.0)

    body = {"prompt": "x", "model": "fill", "image": SMALL, "mask_image": MASK}
    job = record_of(queue, client.post("/v1/inpaint", json=body)).parameters
    assert (job.strength, job.guidance_scale, job.num_inference_steps) == (1.0, 30.0, 50)
    refused = client.post("/v1/txt2img", json={"prompt": "x", "model": "fill"})
    assert problems_of(refused) == {
        "model": "fill (flux-fill) does not support txt2img; models here that do: plain, kontext, canny"
    }
    assert refused.json()["errors"][0]["allowed"] == ["inpaint"]
    refused = client.post("/v1/inpaint", json=body | {"true_cfg_scale": 3})
    assert "not supported" in problems_of(refused)["true_cfg_scale"]


def test_a_model_that_is_made_for_a_control_image_requires_it(client: TestClient, queue: JobQueue) -> None:
    model = client.get("/v1/models/canny").json()
    assert model["tasks"] == ["txt2img", "img2img", "inpaint"]
    assert "control_image" in model["schemas"]["txt2img"]["required"]

    body = {"prompt": "x", "model": "canny", "width": 192}
    refused = problems_of(client.post("/v1/txt2img", json=body))
    assert refused == {"control_image": "is required: the weights of canny are made for it"}
    job = record_of(queue, client.post("/v1/txt2img", json=body | {"control_image": WIDE, "seed": 7}))
    assert (job.parameters.width, job.parameters.height) == (192, 128)
    assert job.parameters.inputs == [job.parameters.control_image]
    again = record_of(queue, client.post(f"/v1/jobs/{job.id}/rerun", json={}))
    assert again.parameters.control_image == job.parameters.control_image
    other = client.post("/v1/txt2img", json={"prompt": "x", "control_image": WIDE})
    assert "not supported" in problems_of(other)["control_image"]


def test_references_of_another_task_are_said_to_belong_to_edits(client: TestClient) -> None:
    found = problems_of(client.post("/v1/txt2img", json={"prompt": "x", "references": [SMALL]}))
    assert "/v1/edit" in found["references"]

    found = problems_of(edit(client, references=[SMALL], reference_images=[SMALL]))
    assert "did you mean references?" in found["reference_images"]


def test_an_upload_of_another_owner_is_not_a_reference(settings: SharedSettings, queue: JobQueue) -> None:
    store = ApiKeyStore(queue.connection)
    owner, other = ({"Authorization": f"Bearer {store.create(name)[1]}"} for name in "ab")
    body = {"prompt": "x", "model": "kontext"}
    with TestClient(create_app(ApiSettings(shared=settings))) as client:
        png = encode_solid("RGB", (64, 64), "red")
        id = client.post("/v1/uploads", content=png, headers=owner | {"Content-Type": "image/png"}).json()["id"]

        found = client.post("/v1/edit", json=body | {"references": [id]}, headers=other)

        assert "does not exist" in problems_of(found)["references.0"]
        assert client.post("/v1/edit", json=body | {"references": [id]}, headers=owner).status_code == 202


def test_an_edit_runs_again_with_its_references_or_with_others(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    first = record_of(queue, edit(client, references=[WIDE], seed=7))
    worker.complete(worker.claim())
    rerun = f"/v1/jobs/{first.id}/rerun"

    same = record_of(queue, client.post(rerun, json={})).parameters
    other = record_of(queue, client.post(rerun, json={"references": [SMALL]})).parameters

    assert same.references == first.parameters.references
    assert other.references[0].image != first.parameters.references[0].image
    assert (other.references[0].width, other.seed) == (64, 7)


def test_openai_clients_edit_with_the_image_as_the_reference(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    png = encode_solid("RGB", (64, 64), "red")
    files = [("image", ("a.png", png, "image/png"))]
    form = {"prompt": "make it red", "model": "kontext"}

    job = _edited(client, worker, queue, data=form, files=files)
    assert (job.task, [one.width for one in job.references], job.image) == ("edit", [64], None)

    # With a mask the first image is the one that is edited, and the second is the reference.
    wide = ("image[]", ("b.png", encode_solid("RGB", (96, 64), "green"), "image/png"))
    mask = ("mask", ("m.png", encode_solid("RGBA", (64, 64), (0, 0, 0, 0)), "image/png"))
    job = _edited(client, worker, queue, data=form, files=[("image[]", files[0][1]), wide, mask])
    assert (job.mode, [one.width for one in job.references], job.strength) == ("edit_inpaint", [96], 1.0)

    refused = client.post("/v1/images/edits", data=form, files=[*files, wide])
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "image")
    assert "at most 1 entry" in refused.json()["error"]["message"]
    refused = client.post("/v1/images/edits", data={"prompt": "x"}, files=[*files, wide])
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "image")
    assert "plain edits one at a time" in refused.json()["error"]["message"]


def _edited(client: TestClient, worker: ScriptedWorker, queue: JobQueue, **request: Any) -> Any:
    """The parameters of the job that a call made, whose end it waited for."""
    claims: list[Any] = []

    def complete() -> None:
        claims.append(worker.claim_next())
        worker.complete(claims[0])

    thread = threading.Thread(target=complete)
    thread.start()
    response = client.post("/v1/images/edits", **request)
    thread.join(60)
    assert response.status_code == 200, response.text
    return queue.fetch(claims[0].job.id).parameters
