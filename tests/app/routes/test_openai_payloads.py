"""What OpenAI's client, Open WebUI and LibreChat send works as it is; what has no effect is refused by name."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openai import OpenAI, UnprocessableEntityError

from contracts.jobs.records import JobRecord
from contracts.settings import SharedSettings
from tests.support.images import data_url, encode_image, encode_solid, mask_with_hole

GENERATE, EDIT = "/v1/images/generations", "/v1/images/edits"
IMAGE = encode_solid("RGB", (64, 64), "blue")
MASK = encode_image(mask_with_hole())


@pytest.fixture
def openai(client: TestClient) -> OpenAI:
    return OpenAI(base_url="http://testserver/v1", api_key="none", max_retries=0, http_client=client)


def images_of(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    body = response.json()
    assert "usage" not in body
    found: list[dict[str, Any]] = body["data"]
    return found


def test_open_webui_generates(client: TestClient, jobs: list[JobRecord]) -> None:
    """As `image_generations` of backend/open_webui/routers/images.py sends it, open-webui @ 02530d501461."""
    body = {"model": "shapes-sdxl", "prompt": "a star", "n": 2, "size": "64x64", "response_format": "b64_json"}
    body |= {"quality": "low", "moderation": "low"}  # of IMAGES_OPENAI_API_PARAMS, which an admin sets
    data = images_of(client.post(GENERATE, json=body, headers={"Authorization": "Bearer none"}))

    assert [base64.b64decode(image["b64_json"])[:4] for image in data] == [b"\x89PNG"] * 2
    assert (jobs[0].parameters.num_images, jobs[0].parameters.width) == (2, 64)


def test_open_webui_edits(client: TestClient, jobs: list[JobRecord]) -> None:
    """As `image_edits` of the same file: a form whose values are texts; `image[]` where a chat has a list."""
    form = {"model": "shapes-sdxl", "prompt": "a star", "n": "1", "size": "64x64", "background": "auto"}
    form |= {"response_format": "b64_json"}
    for field in ("image", "image[]"):
        files = [(field, ("3f1c.jpg", encode_solid("RGB", (64, 64), "blue", "JPEG"), "image/jpeg"))]
        assert len(images_of(client.post(EDIT, data=form, files=files))) == 1

    assert [job.parameters.task for job in jobs] == ["img2img"] * 2


@pytest.fixture
def settings(settings: SharedSettings, tmp_path: Any, request: pytest.FixtureRequest) -> SharedSettings:
    """The shapes models; SDXL's is named as LibreChat names OpenAI's, and as an operator would alias it."""
    source = settings.catalogue
    text = source.read_text(encoding="utf-8").replace('source = "', f'source = "{source.parent}/')
    path = tmp_path / "catalogue.toml"
    path.write_text(text.replace('id = "shapes-sdxl"\n', 'id = "shapes-sdxl"\naliases = ["gpt-image-1"]\n', 1))
    return settings.model_copy(update={"catalogue": path})


def test_librechat_generates_and_edits(client: TestClient, jobs: list[JobRecord]) -> None:
    """As api/app/clients/tools/structured/OpenAIImageTools.js sends it, LibreChat @ 00b3bc32f0f5.

    It generates with npm's `openai`, which leaves out undefined fields, and edits with a form of its own.
    """
    body = {"model": "gpt-image-1", "prompt": "a star", "n": 1, "background": "auto", "output_format": "png"}
    assert images_of(client.post(GENERATE, json=body | {"quality": "auto", "size": "auto"}))
    webp = {"output_format": "webp", "output_compression": 100, "quality": "high", "size": "64x64"}
    assert images_of(client.post(GENERATE, json=body | webp))
    form = {"model": "gpt-image-1", "prompt": "a star", "quality": "auto", "size": "auto"}
    assert images_of(client.post(EDIT, data=form, files=[("image[]", ("a.png", IMAGE, "image/png"))]))

    assert [job.parameters.model for job in jobs] == ["shapes-sdxl"] * 3
    assert [job.parameters.output_format for job in jobs] == ["png", "webp", "png"]


def test_an_edit_in_json_names_its_images_as_openai_does(client: TestClient, jobs: list[JobRecord]) -> None:
    image, mask = {"image_url": data_url(IMAGE)}, {"image_url": data_url(MASK), "file_id": None}
    body = {"prompt": "a star", "images": [image], "mask": mask}

    assert images_of(client.post(EDIT, json=body))
    assert jobs[0].parameters.task == "inpaint"
    large = encode_solid("RGB", (64, 64), "blue", "BMP") + bytes(300_000)
    assert images_of(client.post(EDIT, json={"prompt": "a star", "images": [{"image_url": data_url(large)}]}))


NO_IMAGES: list[tuple[dict[str, Any], str]] = [
    ({"images": [{"file_id": "file-1"}]}, "images.0.file_id"),
    ({"images": [{"image_url": data_url(IMAGE)}, {"url": "x"}]}, "images.1"),
    ({"images": []}, "images"),
    ({"images": "x"}, "images"),
    ({"images": [{"image_url": "x"}], "image": "x"}, "images"),
    ({"image": data_url(IMAGE), "mask": {"file_id": "file-1"}}, "mask.file_id"),
    ({"images": [{"image_url": 7}]}, "images.0"),
    ({"images": [{"image_url": data_url(IMAGE)}] * 2}, "image"),
    ({"images": None}, "image"),
]


def test_an_image_object_that_names_no_image_is_refused(client: TestClient) -> None:
    for fields, param in NO_IMAGES:
        response = client.post(EDIT, json={"prompt": "a star", **fields})
        assert (response.status_code, response.json()["error"]["param"]) == (422, param), response.text


NO_EFFECT: list[tuple[str, dict[str, Any], str]] = [
    ("generate", {"background": "transparent"}, "background"),
    ("generate", {"style": "vivid"}, "style"),
    ("generate", {"n": 10}, "n"),
    ("generate", {"partial_images": 2}, "partial_images"),
    ("generate", {"output_compression": 50}, "output_compression"),
    ("generate", {"extra_body": {"moderation": "high"}}, "moderation"),
    ("edit", {"input_fidelity": "high", "image": IMAGE}, "input_fidelity"),
    ("edit", {"image": [IMAGE, IMAGE]}, "image"),
]


def test_a_field_without_effect_is_the_param_of_the_clients_exception(openai: OpenAI) -> None:
    for call, fields, param in NO_EFFECT:
        with pytest.raises(UnprocessableEntityError) as refused:
            getattr(openai.images, call)(prompt="a star", **fields)
        assert refused.value.param == param


def test_every_field_of_an_edit_acts_through_the_client(openai: OpenAI, jobs: list[JobRecord]) -> None:
    answer = openai.images.edit(
        image=[("a.png", IMAGE, "image/png")], mask=MASK, prompt="a star", n=2, size="auto", quality="low",
        output_format="jpeg", output_compression=40, background="opaque", input_fidelity="low",
        response_format="url", user="u-1",
    )  # fmt: skip

    made = jobs[0].parameters
    assert (made.task, made.num_images, made.width, made.height) == ("inpaint", 2, 64, 64)
    assert (made.num_inference_steps, made.output_format, made.output_quality) == (6, "jpeg", 40)
    assert jobs[0].metadata == {"user": "u-1"}
    assert answer.data is not None
    assert [(datum.b64_json, bool(datum.url)) for datum in answer.data] == [(None, True)] * 2
    assert (answer.usage, answer.quality, answer.size) == (None, "low", "64x64")
