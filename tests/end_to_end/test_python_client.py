"""The Python client in `clients/` against the running service: its three ways to wait, uploads, errors, an end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import httpx
import pytest

from darkroom_client import Client, DarkroomError, Event
from tests.support.images import encode_image, solid_image
from tests.support.running_service import RunningService

SMALL: Any = {
    "task": "txt2img",
    "prompt": "a red circle on a blue background",
    "seed": 7,
    "num_inference_steps": 2,
}


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[Client]:
    with Client(service.url, http=httpx.Client(trust_env=False)) as client:
        yield client


@pytest.mark.parametrize("wait", ["poll", "stream", "wait"])
def test_every_way_to_wait_gives_the_images_of_the_native_call(
    client: Client, service: RunningService, wait: Literal["poll", "stream", "wait"]
) -> None:
    events: list[Event] = []

    result = client.run({**SMALL, "num_images": 2}, wait=wait, on_event=events.append)

    native = service.run(**{**SMALL, "num_images": 2})
    assert list(result.images) == [service.bytes_of(native, number) for number in (0, 1)]
    assert [image["seed"] for image in result.job["images"]] == [7, 8]
    assert (result.job["receipt"] or {})["parameters"]["seed"] == 7
    assert events[-1].kind == "completed"


def test_an_uploaded_image_is_changed(client: Client) -> None:
    image = client.upload(encode_image(solid_image("blue")))

    result = client.run({**SMALL, "task": "img2img", "image": image, "strength": 0.9}, wait="stream")

    assert (result.job["task"], result.images[0][1:4]) == ("img2img", b"PNG")


def test_an_error_names_the_fields(client: Client) -> None:
    with pytest.raises(DarkroomError) as raised:
        client.run({**SMALL, "width": 68, "scheduler": "flow_euler"})

    assert raised.value.code == "invalid_request"
    assert raised.value.errors_by_field.keys() == {"width", "scheduler"}


@pytest.mark.parametrize("wait", ["poll", "stream"])
def test_an_interrupted_run_leaves_no_job_running(
    client: Client, service: RunningService, wait: Literal["poll", "stream"]
) -> None:
    ids: list[str] = []

    def interrupt(event: Event) -> None:
        ids.append(service.http.get("/v1/jobs?limit=1").json()["data"][0]["id"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.run(
            {**SMALL, "num_inference_steps": 100, "width": 128, "height": 128}, wait=wait, on_event=interrupt
        )

    assert service.wait(ids[0])["status"] == "cancelled"
