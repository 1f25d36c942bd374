"""Replicate's predictions: how inputs are translated, what is refused and how, and who may see what."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from contracts.auth.api_keys import ApiKeyStore
from contracts.queue.client import JobQueue
from contracts.requests.schema import WebhookEvent
from tests.support.images import encode_solid
from tests.support.scripted_worker import ScriptedWorker

V1 = "/replicate/v1"
MODEL = f"{V1}/models/darkroom/shapes-sdxl"
CREATE = f"{MODEL}/predictions"
PROMPT = {"prompt": "a red circle"}
BLUE = encode_solid("RGB", (64, 64), "blue")
IMAGE = f"data:image/png;base64,{base64.b64encode(BLUE).decode()}"
WHITE = base64.b64encode(encode_solid("RGB", (64, 64), "white")).decode()


def create(
    client: TestClient, fields: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    response = client.post(CREATE, json={"input": PROMPT | (fields or {})}, headers=headers)
    assert response.status_code == 201, response.text
    prediction: dict[str, Any] = response.json()
    return prediction


def test_an_input_is_that_of_a_job_under_either_name(client: TestClient, worker: ScriptedWorker) -> None:
    fields = {
        "num_outputs": 2, "guidance": 4.5, "prompt_strength": 0.5, "image": IMAGE, "mask": WHITE, "seed": 0,
        "output_format": "jpg", "disable_safety_checker": True, "metadata": {"a": "b"}, "loras": None,
    }  # fmt: skip
    prediction = create(client, fields)

    job = worker.claim().job
    made = job.parameters
    assert (made.task, made.model, made.num_images, made.guidance_scale) == ("inpaint", "shapes-sdxl", 2, 4.5)
    assert (made.strength, made.seed, made.output_format, job.metadata) == (0.5, 0, "jpeg", {"a": "b"})
    assert (prediction["id"], prediction["status"], prediction["output"]) == (job.id, "starting", None)
    assert (prediction["model"], prediction["logs"]) == ("darkroom/shapes-sdxl", "Using seed: 0\n")
    assert prediction["input"]["num_images"] == 2
    assert prediction["input"].keys().isdisjoint({"image", "mask_image", "model"})


def test_what_cannot_act_is_refused_by_its_own_name(
    client: TestClient, queue: JobQueue, subtests: pytest.Subtests
) -> None:
    for body, field in [
        ({"input": {}}, "input.prompt"),
        ({"input": PROMPT | {"width": 68}}, "input.width"),
        ({"input": PROMPT | {"num_outputs": 9}}, "input.num_outputs"),
        ({"input": PROMPT | {"num_outputs": 2, "num_images": 3}}, "input.num_outputs"),
        ({"input": PROMPT | {"aspect_ratio": "16:9"}}, "input.aspect_ratio"),
        ({"input": PROMPT | {"disable_safety_checker": False}}, "input.disable_safety_checker"),
        ({"input": PROMPT | {"model": "shapes-sd3"}}, "input.model"),
        ({"input": PROMPT | {"task": "txt2img"}}, "input.task"),
        ({"input": PROMPT | {"loras": [{"name": "nobody"}]}}, "input.loras.0.name"),
        ({"input": PROMPT | {"image": "https://169.254.169.254/latest"}}, "input.image"),
        ({"input": PROMPT | {"image": "http://testserver.evil/replicate/v1/files/" + "0" * 64}}, "input.image"),
        ({"input": PROMPT | {"image": "http://testserver/v1/jobs/00/images/0"}}, "input.image"),
        ({"input": PROMPT | {"image": IMAGE, "mask": "/etc/passwd"}}, "input.mask"),
        ({"input": PROMPT | {"references": [IMAGE]}}, "model"),
        ({"input": [PROMPT]}, "input"),
        ({"inputs": PROMPT}, "inputs"),
        ({"input": PROMPT, "version": "0" * 64}, "version"),
        ({"input": PROMPT, "webhook_events_filter": ["completed"]}, "webhook_events_filter"),
        (
            {"input": PROMPT, "webhook": "https://1.1.1.1/", "webhook_events_filter": ["logs"]},
            "webhook_events_filter.0",
        ),
        (
            {"input": PROMPT, "webhook": "https://1.1.1.1/", "webhook_completed": "https://1.1.1.1/"},
            "webhook_completed",
        ),
        ({"input": PROMPT, "webhook": "https://127.0.0.1/"}, "webhook"),
        ({"input": PROMPT, "webhook": "ftp://192.0.2.1/"}, "webhook"),
    ]:
        with subtests.test(body=body, field=field):
            response = client.post(CREATE, json=body)

            assert response.status_code == 422, response.text
            assert response.headers["content-type"] == "application/problem+json"
            assert field in [error["field"] for error in response.json()["errors"]], response.text
            assert response.json()["title"] == "Invalid request"
            assert queue.connection.keys("*") == []


def test_a_version_may_be_named_in_three_ways(client: TestClient) -> None:
    model = client.get(MODEL).json()
    version = model["latest_version"]["id"]
    assert client.get(f"{MODEL}/versions/{version}").json() == model["latest_version"]
    assert client.get(f"{MODEL}/versions").json()["results"] == [model["latest_version"]]

    for name in (version, "darkroom/shapes-sdxl", f"darkroom/shapes-sdxl:{version}"):
        response = client.post(f"{V1}/predictions", json={"version": name, "input": PROMPT})
        assert (response.status_code, response.json()["version"]) == (201, version), response.text
    for name in ("0" * 64, "nobody/shapes-sdxl", f"darkroom/shapes-sd3:{version}", "darkroom/", ":", "/"):
        response = client.post(f"{V1}/predictions", json={"version": name, "input": PROMPT})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "version"), name


def test_models_have_an_owner_a_name_and_the_schema_of_their_inputs(client: TestClient) -> None:
    listed = client.get(f"{V1}/models").json()["results"]

    assert [model["name"] for model in listed] == [
        model["id"] for model in client.get("/v1/models").json()["data"]
    ]
    assert len({model["latest_version"]["id"] for model in listed}) == len(listed)
    document = next(model for model in listed if model["name"] == "shapes-flux")["latest_version"][
        "openapi_schema"
    ]
    schemas = document["components"]["schemas"]
    assert (schemas["Input"]["required"], schemas["Output"]["type"]) == (["prompt"], "array")
    assert schemas["Input"]["properties"].keys() >= {"prompt", "image", "mask_image", "controls", "true_cfg_scale"}
    assert schemas["Input"]["properties"].keys().isdisjoint({"model", "task", "webhook", "clip_skip"})
    references = json.dumps(schemas).split('"$ref": "#/components/schemas/')[1:]
    assert {text.partition('"')[0] for text in references} <= schemas.keys()
    assert client.get(f"{V1}/models/nobody/shapes-sdxl").status_code == 404
    assert client.get(f"{V1}/models/darkroom/nobody").status_code == 404


def test_a_call_that_waits_answers_at_the_end_or_says_that_it_starts(
    client: TestClient, worker: ScriptedWorker
) -> None:
    with worker.completing_next():
        ended = client.post(CREATE, json={"input": PROMPT}, headers={"Prefer": "wait=60"})
    assert (ended.status_code, ended.json()["status"], len(ended.json()["output"])) == (201, "succeeded", 1)
    assert client.get(ended.json()["output"][0]).headers["content-type"] == "image/png"

    running = client.post(CREATE, json={"input": PROMPT}, headers={"Prefer": "wait=1"})
    worker.claim()
    assert (running.status_code, running.json()["status"]) == (201, "starting")
    assert client.get(running.json()["urls"]["get"]).json()["status"] == "processing"


def test_a_time_limit_is_the_deadline_of_the_job(client: TestClient, worker: ScriptedWorker) -> None:
    for text, seconds in (("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600)):
        create(client, headers={"Cancel-After": text})
        job = worker.claim().job
        assert job.deadline_at is not None
        assert round(job.deadline_at - job.created_at) == seconds
    for text in ("soon", "0s", "100h", "-1"):
        response = client.post(CREATE, json={"input": PROMPT}, headers={"Cancel-After": text})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "Cancel-After"), text


def test_a_filter_selects_the_events_of_a_webhook(
    client: TestClient, queue: JobQueue, subtests: pytest.Subtests
) -> None:
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"webhook": "https://1.1.1.1/"}, ["started", "completed", "failed", "cancelled"]),
        ({"webhook": "https://1.1.1.1/", "webhook_events_filter": ["start"]}, ["started"]),
        (
            {"webhook": "https://1.1.1.1/", "webhook_events_filter": ["completed", "output"]},
            ["completed", "failed", "cancelled"],
        ),
        ({"webhook_completed": "https://1.1.1.1/"}, ["completed", "failed", "cancelled"]),
    ]
    for fields, events in cases:
        with subtests.test(fields=fields, events=events):
            response = client.post(CREATE, json={"input": PROMPT, **fields})

            assert response.status_code == 201, response.text
            webhook = queue.fetch(response.json()["id"]).webhook
            assert webhook is not None
            assert (webhook.events, webhook.prediction_version) == (
                tuple(map(WebhookEvent, events)),
                response.json()["version"],
            )


def test_predictions_are_listed_in_pages_by_urls(client: TestClient) -> None:
    ids = [create(client)["id"] for _ in range(3)]

    first = client.get(f"{V1}/predictions?limit=2").json()
    second = client.get(first["next"]).json()

    assert [job["id"] for job in (*first["results"], *second["results"])] == ids[::-1]
    assert (first["previous"], second["next"]) == (None, None)


def test_a_stream_of_a_prediction_without_images_says_why(client: TestClient, queue: JobQueue) -> None:
    prediction = create(client)
    cancelled = client.post(prediction["urls"]["cancel"]).json()
    assert (cancelled["status"], cancelled["completed_at"] is None) == ("canceled", False)

    text = client.get(prediction["urls"]["stream"]).text

    assert text.endswith('event: done\ndata: {"reason": "canceled"}\n\n')
    assert "event: output" not in text


def test_another_owners_predictions_and_files_are_not_found(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    keys = ApiKeyStore(queue.connection)
    mine, theirs = ({"Authorization": f"Bearer {keys.create(name)[1]}"} for name in ("mine", "theirs"))
    assert client.get(f"{V1}/predictions").status_code == 401
    prediction = create(client, headers=mine)
    worker.complete(worker.claim())
    output = client.get(prediction["urls"]["get"], headers=mine).json()["output"][0]
    sent = {"content": ("a.png", BLUE, "image/png")}
    file = client.post(f"{V1}/files", files=sent, headers=mine).json()["urls"]["get"]

    for method, url in (("GET", "get"), ("POST", "cancel")):
        assert client.request(method, prediction["urls"][url], headers=theirs).status_code == 404
    stream = prediction["urls"]["stream"].partition("?")[0]
    assert client.get(stream, headers=theirs).status_code == 404
    assert client.get(stream).status_code == 401
    assert client.get(prediction["urls"]["stream"].replace("signature=", "signature=0")).status_code == 403
    for method in ("GET", "DELETE"):
        assert client.request(method, file, headers=theirs).status_code == 404
    for image in (file, output):
        body = {"input": {**PROMPT, "image": image}}
        assert client.post(CREATE, json=body, headers=theirs).status_code == 422
        assert client.post(CREATE, json=body, headers=mine).status_code == 201
    assert client.get(f"{V1}/predictions", headers=theirs).json()["results"] == []


def test_a_file_is_one_image_in_the_field_content(client: TestClient) -> None:
    created = client.post(f"{V1}/files", files={"content": ("a.png", BLUE, "image/png")}, data={"metadata": "{}"})
    assert (created.status_code, created.json()["content_type"]) == (201, "image/png"), created.text
    for files, data, status in (
        ({"file": ("a.png", BLUE)}, {}, 422),
        ({"content": ("a.png", b"not an image")}, {}, 415),
        ({"content": ("a.png", BLUE)}, {"metadata": '{"a": 1}'}, 422),
        ({"content": ("a.png", BLUE), "other": ("b.png", BLUE)}, {}, 422),
    ):
        response = client.post(f"{V1}/files", files=files, data=data)
        assert (response.status_code, response.json()["status"]) == (status, status), response.text
    for id in ("0" * 64, "x", "..%2F..", "upload:" + "0" * 64):
        assert client.get(f"{V1}/files/{id}").status_code == 404


def test_files_are_listed_for_their_owner_in_pages_by_urls(client: TestClient) -> None:
    sent = [encode_solid("RGB", (64, 64), color) for color in ("red", "green", "blue")]
    made = [client.post(f"{V1}/files", files={"content": ("a.png", data)}).json() for data in sent]
    client.delete(f"{V1}/files/{made[1]['id']}")

    first = client.get(f"{V1}/files?limit=1").json()
    second = client.get(first["next"]).json()

    assert (*first["results"], *second["results"]) == (made[2], made[0])
    assert (first["previous"], second["next"]) == (None, None)
    assert client.get(f"{V1}/files?cursor=x").json()["errors"][0]["field"] == "cursor"


def test_metadata_of_a_file_is_refused_by_name_since_it_is_not_stored(client: TestClient) -> None:
    response = client.post(f"{V1}/files", files={"content": ("a.png", BLUE)}, data={"metadata": '{"a": 1}'})

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "metadata")


def test_the_same_idempotency_key_gives_the_same_prediction(client: TestClient) -> None:
    headers = {"Idempotency-Key": "r-1"}

    assert create(client, headers=headers)["id"] == create(client, headers=headers)["id"]
    other = client.post(CREATE, json={"input": {"prompt": "other"}}, headers=headers)
    assert other.status_code == 422
