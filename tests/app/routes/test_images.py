"""Images over HTTP: their bytes, and signed links that give access to one image without a key."""

from __future__ import annotations

import hashlib
import time
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from tests.support.api_process import api_process
from tests.support.requests import submit
from tests.support.scripted_worker import ScriptedWorker


def test_an_image_is_served_as_it_was_stored(client: TestClient, worker: ScriptedWorker) -> None:
    id = submit(client)["id"]
    data = worker.complete(worker.claim())

    response = client.get(f"/v1/jobs/{id}/images/0")

    assert response.content == data
    assert response.headers["content-type"] == "image/png"
    assert response.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert "immutable" in response.headers["cache-control"]


def test_an_image_that_the_client_has_is_not_sent_again(client: TestClient, worker: ScriptedWorker) -> None:
    id = submit(client)["id"]
    worker.complete(worker.claim())
    tag = client.get(f"/v1/jobs/{id}/images/0").headers["etag"]

    for named in (tag, f'"other", W/{tag}', "*"):
        response = client.get(f"/v1/jobs/{id}/images/0", headers={"If-None-Match": named})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == tag
    assert client.get(f"/v1/jobs/{id}/images/0", headers={"If-None-Match": '"other"'}).status_code == 200


def test_an_unknown_image_is_not_found(
    client: TestClient, worker: ScriptedWorker, subtests: pytest.Subtests
) -> None:
    for number in ["1", "99999999999999999999", "-1", "x", "0.5"]:
        with subtests.test(number=number):
            id = submit(client)["id"]
            worker.complete(worker.claim())

            assert client.get(f"/v1/jobs/{id}/images/{number}").status_code == 404


def test_a_job_has_no_images_before_it_completes(client: TestClient) -> None:
    problem = client.get(f"/v1/jobs/{submit(client)['id']}/images/0").json()

    assert (problem["status"], problem["code"]) == (404, "not_found")


@pytest.fixture
def token(queue: JobQueue) -> str:
    """A token; since there is a key, calls without one are refused."""
    return ApiKeyStore(queue.connection).create("a")[1]


def complete_job(client: TestClient, worker: ScriptedWorker, token: str, **changes: Any) -> dict[str, Any]:
    """Complete a job; returns it as its owner sees it."""
    mine = {"Authorization": f"Bearer {token}"}
    id = client.post("/v1/txt2img", json={"prompt": "x"} | changes, headers=mine).json()["id"]
    worker.complete(worker.claim())
    job: dict[str, Any] = client.get(f"/v1/jobs/{id}", headers=mine).json()
    return job


def test_a_link_opens_its_image_without_a_key(client: TestClient, worker: ScriptedWorker, token: str) -> None:
    job = complete_job(client, worker, token, num_images=2)
    for image in job["images"]:
        response = client.get(image["url"])
        assert (response.status_code, hashlib.sha256(response.content).hexdigest()) == (200, image["sha256"])
        again = client.get(image["url"], headers={"If-None-Match": response.headers["etag"]})
        assert again.status_code == 304
    bare = job["images"][0]["url"].partition("?")[0]

    assert client.get(bare).status_code == 401
    assert client.get(bare, headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_link_stays_the_same_for_a_while(client: TestClient, worker: ScriptedWorker, token: str) -> None:
    job = complete_job(client, worker, token)
    mine = {"Authorization": f"Bearer {token}"}

    links = {client.get(f"/v1/jobs/{job['id']}", headers=mine).json()["images"][0]["url"] for _ in range(20)}

    assert len(links) <= 2  # the rounded expiry time may have changed in between


def test_a_changed_link_is_refused(client: TestClient, worker: ScriptedWorker, token: str) -> None:
    job, other = (complete_job(client, worker, token, num_images=2) for _ in range(2))
    link = urlsplit(job["images"][0]["url"])
    query = dict(parse_qsl(link.query))
    later = str(int(query["expires"]) + 1)
    signature = query["signature"]
    changed = {
        "another image": link.path.removesuffix("0") + "1" + "?" + link.query,
        "another job": link.path.replace(job["id"], other["id"]) + "?" + link.query,
        "later": link.path + "?" + urlencode(query | {"expires": later}),
        "never": link.path + "?" + urlencode(query | {"expires": ""}),
        "an expiry time with a leading zero": link.path
        + "?"
        + urlencode(query | {"expires": "0" + query["expires"]}),
        "more": f"{link.path}?{link.query}&download=1",
        "two expiry times": f"{link.path}?{link.query}&expires={later}",
        "two signatures": f"{link.path}?{link.query}&signature=x",
        "no expiry time": f"{link.path}?signature={signature}",
        "no signature": f"{link.path}?expires={query['expires']}",
        "a cut signature": f"{link.path}?{link.query[:-1]}",
        "a longer signature": f"{link.path}?{link.query}A",
        "a signature that is not ASCII": link.path + "?" + urlencode(query | {"signature": "é"}),
    }

    answers = {name: client.get(path) for name, path in changed.items()}

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(changed, 403)
    assert {answer.json()["code"] for answer in answers.values()} == {"link_refused"}
    assert client.get(job["images"][0]["url"]).status_code == 200


@pytest.mark.parametrize("path", ["", "/events", "/rerun"])
def test_a_link_gives_access_to_the_image_only(
    client: TestClient, worker: ScriptedWorker, token: str, path: str
) -> None:
    job = complete_job(client, worker, token)
    query = urlsplit(job["images"][0]["url"]).query

    assert client.get(f"/v1/jobs/{job['id']}{path}?{query}").status_code in (401, 403, 405)


def test_a_link_expires(settings: SharedSettings, worker: ScriptedWorker, token: str) -> None:
    short = settings.model_copy(update={"link_ttl_seconds": 1})
    with TestClient(create_app(ApiSettings(shared=short))) as client:
        job = complete_job(client, worker, token)
        url = job["images"][0]["url"]
        deadline = time.monotonic() + 60
        while (response := client.get(url)).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)

        assert (response.status_code, response.json()["code"]) == (403, "link_refused")
        assert "expired" in response.json()["detail"]
        # The owner's key still gives access.
        assert client.get(url, headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_link_to_a_deleted_job_is_not_found(client: TestClient, worker: ScriptedWorker, token: str) -> None:
    job = complete_job(client, worker, token)
    client.delete(f"/v1/jobs/{job['id']}", headers={"Authorization": f"Bearer {token}"})

    assert client.get(job["images"][0]["url"]).status_code == 404


def test_a_link_from_one_process_works_on_another(
    settings: SharedSettings, worker: ScriptedWorker, token: str
) -> None:
    with (
        api_process(settings.redis_url, settings.data) as (api, _),
        api_process(settings.redis_url, settings.data) as (other_api, _),
    ):
        mine = {"Authorization": f"Bearer {token}"}
        id = api.post("/v1/txt2img", json={"prompt": "x"}, headers=mine).json()["id"]
        data = worker.complete(worker.claim())
        urls = [c.get(f"/v1/jobs/{id}", headers=mine).json()["images"][0]["url"] for c in (api, other_api)]
        crossed = [
            (client, url.replace(str(source.base_url).rstrip("/"), ""))
            for client, source, url in ((other_api, api, urls[0]), (api, other_api, urls[1]))
        ]

        assert [client.get(path).content for client, path in crossed] == [data, data]


def test_the_link_secret_can_be_configured(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker, token: str
) -> None:
    given = SharedSettings(redis_url=settings.redis_url, data=settings.data, link_secret="s" * 32)
    with TestClient(create_app(ApiSettings(shared=given))) as client:
        url = complete_job(client, worker, token)["images"][0]["url"]
        assert client.get(url).status_code == 200
    assert not queue.connection.exists("darkroom:link_secret")
    with TestClient(create_app(ApiSettings(shared=settings))) as client:
        assert client.get(url).status_code == 403
