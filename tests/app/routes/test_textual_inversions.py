"""Textual inversions over HTTP: uploaded, named by prompts, counted, visible to their owners, and removed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save

from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore, Scope
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import Storage

PAIR = save({"clip_l": np.ones((3, 64), np.float32), "clip_g": np.ones((3, 64), np.float32)})
TOY = save({"<cat-toy>": np.ones((1, 64), np.float32)})


def _add(client: TestClient, data: bytes = PAIR, name: str = "look", **fields: Any) -> Any:
    files = {"file": ("Bad Hands.safetensors", data)}
    return client.post("/v1/textual-inversions", files=files, data={"name": name, **fields} if name else fields)


def _job(client: TestClient, prompt: str, **fields: Any) -> Any:
    return client.post("/v1/txt2img", json={"prompt": prompt, **fields})


def _problems(response: Any) -> dict[str, str]:
    assert response.status_code == 422, response.text
    return {problem["field"]: problem["message"] for problem in response.json()["errors"]}


def test_an_upload_is_described_listed_and_removed(client: TestClient, storage: Storage) -> None:
    added = _add(client)
    assert added.status_code == 201, added.text
    shown = added.json()
    assert {name: shown[name] for name in ("id", "family", "models", "vectors", "widths", "sha256")} == {
        "id": "look", "family": "sdxl", "models": ["shapes-sdxl"], "vectors": 3,
        "widths": {"clip_l": 64, "clip_g": 64}, "sha256": hashlib.sha256(PAIR).hexdigest(),
    }  # fmt: skip
    assert client.get("/v1/textual-inversions").json()["data"] == [shown]
    assert client.get("/v1/models/shapes-sdxl").json()["textual_inversions"] == ["look"]
    assert client.get("/v1/models/shapes-flux").json()["textual_inversions"] == []
    assert _add(client).status_code == 200
    assert _add(client, name="").json()["id"] == "bad-hands"
    assert client.delete("/v1/textual-inversions/look").status_code == 204
    assert client.delete("/v1/textual-inversions/look").status_code == 404


def test_another_file_of_the_name_or_a_name_of_the_operators_is_a_conflict(client: TestClient) -> None:
    _add(client)
    assert _add(client, save({"emb_params": np.ones((1, 64), np.float32)})).status_code == 409
    assert _add(client, name="shapes-sdxl").status_code == 409


def test_an_unusable_file_is_refused_with_the_reason_and_not_stored(
    client: TestClient, storage: Storage, subtests: pytest.Subtests
) -> None:
    for data, reason in [
        (b"PK\x03\x04" + b"0" * 64, "never opened: save its vectors with safetensors"),
        (save({"string_to_param": np.ones((1, 64), np.float32)}), "is part of a .pt file"),
        (
            save({"emb_params": np.ones((1, 768), np.float32)}),
            "have 768 values, and shapes-sd15 reads vectors of 64",
        ),
        (save({"emb_params": np.full((1, 64), np.nan, np.float32)}), "contains NaN"),
    ]:
        with subtests.test(data=data, reason=reason):
            response = _add(client, data)
            assert (response.status_code, response.json()["code"]) == (422, "adapter_refused")
            assert reason in response.json()["detail"]
            assert storage.find("inputs/") == []


def test_a_family_that_takes_none_or_is_named_twice_is_refused(client: TestClient) -> None:
    assert "family" in _problems(_add(client, family="sd3"))
    assert "family" in _problems(
        client.post(
            "/v1/textual-inversions?family=flux",
            files={"file": ("a.safetensors", TOY)},
            data={"family": "sdxl"},
        )
    )


def test_a_job_has_the_content_of_the_words_in_its_prompts_and_their_tokens_count(
    client: TestClient, queue: JobQueue
) -> None:
    _add(client)
    accepted = _job(client, "a LOOK on blue", textual_inversions=[{"name": "look"}])
    assert accepted.status_code == 202, accepted.text
    uses = accepted.json()["prompt_tokens"]
    plain = _job(client, "a LOOK on blue").json()
    assert [uses[name]["given"] for name in uses] == [6, 6]
    (one,) = queue.fetch(accepted.json()["id"]).parameters.textual_inversions
    assert (one.name, one.words, one.vectors, one.sha256) == (
        "look", ("look",), 3, hashlib.sha256(PAIR).hexdigest(),
    )  # fmt: skip
    assert queue.fetch(plain["id"]).parameters.textual_inversions == ()


def test_in_the_web_uis_syntax_a_word_of_the_prompt_is_enough(client: TestClient, queue: JobQueue) -> None:
    _add(client)
    _add(client, TOY, "toy")
    for prompt, names in (
        ("a (look:1.3)", ["look"]),
        ("looks", []),
        ("a toy", []),  # made for Stable Diffusion 1
    ):
        id = _job(client, prompt, prompt_syntax="a1111", negative_prompt="blurry").json()["id"]
        assert [one.name for one in queue.fetch(id).parameters.textual_inversions] == names
    id = _job(client, "x", prompt_syntax="a1111", negative_prompt="<look>").json()["id"]
    assert [one.name for one in queue.fetch(id).parameters.textual_inversions] == ["look"]
    id = _job(client, "a <cat-toy>", prompt_syntax="a1111", model="shapes-sd15").json()["id"]
    assert [one.name for one in queue.fetch(id).parameters.textual_inversions] == ["toy"]


def test_one_that_is_unknown_for_another_model_or_in_no_prompt_is_refused(client: TestClient) -> None:
    _add(client)
    listed = [{"name": "look"}]
    field = "textual_inversions.0.name"
    assert "unknown" in _problems(_job(client, "a look", textual_inversions=[{"name": "other"}]))[field]
    assert "no prompt has the word 'look'" in _problems(_job(client, "a circle", textual_inversions=listed))[field]
    assert "sdxl" in _problems(_job(client, "a look", model="shapes-flux", textual_inversions=listed))[field]
    refused = _problems(_job(client, "a look", model="shapes-sd3", textual_inversions=listed))
    assert "not supported" in refused["textual_inversions"]
    assert (
        "repeats look"
        in _problems(_job(client, "a look", textual_inversions=listed * 2))["textual_inversions.1.name"]
    )


def test_a_removed_one_stays_for_jobs_accepted_with_it_and_a_rerun_needs_it_again(
    client: TestClient, queue: JobQueue, storage: Storage
) -> None:
    _add(client)
    id = _job(client, "a look", textual_inversions=[{"name": "look"}]).json()["id"]
    assert client.post(f"/v1/jobs/{id}/rerun").status_code == 202
    client.delete("/v1/textual-inversions/look")
    (one,) = queue.fetch(id).parameters.textual_inversions
    assert one.key is not None
    assert storage.exists(one.key)
    assert client.post(f"/v1/jobs/{id}/rerun").status_code == 422


def test_the_web_uis_list_has_them_by_their_words(client: TestClient) -> None:
    _add(client)
    _add(client, TOY, "toy")
    lists = client.get("/sdapi/v1/embeddings").json()
    assert {word: (one["shape"], one["vectors"]) for word, one in lists["loaded"].items()} == {"look": (128, 3)}
    assert list(lists["skipped"]) == ["toy", "cat-toy"]


@pytest.fixture
def clients(settings: SharedSettings, queue: JobQueue) -> Iterator[Callable[[str], TestClient]]:
    """Makes a client with a new key for an owner."""
    with TestClient(create_app(ApiSettings(shared=settings, require_keys=True))) as client:

        def make(owner: str) -> TestClient:
            _, secret = ApiKeyStore(queue.connection).create(owner, scopes=[Scope.GENERATE])
            made = TestClient(client.app)
            made.headers["Authorization"] = f"Bearer {secret}"
            return made

        yield make


def test_an_upload_is_visible_to_its_owner_only(clients: Callable[[str], TestClient]) -> None:
    mine, other = clients("me"), clients("other")
    assert _add(mine).status_code == 201
    assert [row["id"] for row in mine.get("/v1/textual-inversions").json()["data"]] == ["look"]
    assert other.get("/v1/textual-inversions").json()["data"] == []
    assert "unknown" in str(_problems(_job(other, "a look", textual_inversions=[{"name": "look"}])))
