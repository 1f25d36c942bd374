"""OpenAI's files and batches, through its unmodified Python client: results, errors, owners, ends."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openai import ConflictError, NotFoundError, OpenAI, UnprocessableEntityError
from openai.types import Batch

from contracts.auth.api_keys import ApiKeyStore
from contracts.jobs.records import JobRecord, JobState
from contracts.queue import listing
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.storage import Storage
from contracts.uploads.retention import Retention
from tests.support.images import encode_solid
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import wait_until

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
Json = dict[str, Any]


def client_of(http: TestClient, api_key: str = "none") -> OpenAI:
    return OpenAI(base_url="http://testserver/v1", api_key=api_key, max_retries=0, http_client=http)


@pytest.fixture
def openai(client: TestClient) -> OpenAI:
    return client_of(client)


def line(custom_id: str, body: Json, url: str = GENERATIONS) -> Json:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def jsonl(*lines: Json) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in lines)


def create(openai: OpenAI, data: bytes, endpoint: Any = GENERATIONS, **fields: Any) -> Batch:
    file = openai.files.create(file=("requests.jsonl", data), purpose="batch")
    return openai.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **fields)


def wait_for(openai: OpenAI, batch: Batch, status: str) -> Batch:
    deadline = time.monotonic() + 120
    while (found := openai.batches.retrieve(batch.id)).status != status:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def lines_of(openai: OpenAI, file_id: str | None) -> dict[str, Json]:
    assert file_id is not None
    lines = [json.loads(text) for text in openai.files.content(file_id).text.splitlines()]
    by_id = {value["custom_id"]: value for value in lines}
    assert len(by_id) == len(lines)
    return by_id


def test_every_line_becomes_a_job_of_low_priority_and_a_line_of_results(
    openai: OpenAI, jobs: list[JobRecord]
) -> None:
    data = jsonl(
        line("one", {"prompt": "a red circle", "size": "64x96", "n": 2, "quality": "low", "seed": 7}),
        line("two", {"prompt": "a blue star", "response_format": "url"}),
        line("bad", {"prompt": "a red circle", "size": "68x64"}),
    )

    batch = create(openai, data, metadata={"project": "shapes"})
    assert (batch.status, batch.endpoint, batch.output_file_id) == ("validating", GENERATIONS, None)
    ended = wait_for(openai, batch, "completed")

    assert ended.request_counts is not None
    counts = ended.request_counts
    assert (counts.total, counts.completed, counts.failed) == (3, 2, 1)
    assert (ended.metadata, ended.errors) == ({"project": "shapes"}, None)
    times = (ended.created_at, ended.in_progress_at, ended.finalizing_at, ended.completed_at, ended.expires_at)
    moments = [moment or 0 for moment in times]
    assert all(moments)
    assert moments == sorted(moments)
    results = lines_of(openai, ended.output_file_id)
    assert results.keys() == {"one", "two"}
    one, two = results["one"]["response"], results["two"]["response"]
    assert (one["status_code"], one["request_id"], results["one"]["error"]) == (200, results["one"]["id"], None)
    assert (one["body"]["size"], one["body"]["quality"], len(one["body"]["data"])) == ("64x96", "low", 2)
    assert base64.b64decode(one["body"]["data"][0]["b64_json"]).startswith(b"\x89PNG")
    assert openai._client.get(two["body"]["data"][0]["url"]).content.startswith(b"\x89PNG")
    failed = lines_of(openai, ended.error_file_id)["bad"]
    assert (failed["response"]["status_code"], failed["error"]) == (422, None)
    assert failed["response"]["body"]["error"]["param"] == "size"
    assert {job.priority for job in jobs} == {"low"}
    assert {job.id for job in jobs} == {one["body"]["job"], two["body"]["job"]}


def test_a_line_that_does_not_suit_a_batch_fails_by_the_name_of_its_field(openai: OpenAI) -> None:
    unfit = {"stream": True, "priority": "high", "cancel_on_disconnect": True, "style": "vivid"}
    data = jsonl(*(line(name, {"prompt": "a star", name: value}) for name, value in unfit.items()))

    ended = wait_for(openai, create(openai, data), "completed")

    failed = lines_of(openai, ended.error_file_id)
    params = {id: failed[id]["response"]["body"]["error"]["param"] for id in failed}
    assert params == {name: name for name in unfit}
    assert ended.output_file_id is None


def test_edits_take_their_images_as_json(openai: OpenAI, jobs: list[JobRecord]) -> None:
    image = base64.b64encode(encode_solid("RGB", (64, 64), "blue")).decode()
    images = [{"image_url": f"data:image/png;base64,{image}"}]
    data = jsonl(line("e", {"prompt": "a star", "images": images}, EDITS))

    ended = wait_for(openai, create(openai, data, EDITS), "completed")

    assert lines_of(openai, ended.output_file_id)["e"]["response"]["status_code"] == 200
    assert [job.parameters.task for job in jobs] == ["img2img"]


def test_a_file_that_is_wrong_fails_with_the_numbers_of_its_lines(openai: OpenAI, queue: JobQueue) -> None:
    good = line("a", {"prompt": "a star"})
    data = jsonl(good, good) + b"{not json}\n" + jsonl(line("b", {"prompt": "x"}, "/v1/chat/completions"))

    failed = wait_for(openai, create(openai, data), "failed")

    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [(error.code, error.line, error.param) for error in failed.errors.data] == [
        ("duplicate_custom_id", 2, "custom_id"),
        ("invalid_json_line", 3, None),
        ("mismatched_endpoint", 4, "url"),
    ]
    assert failed.failed_at is not None
    assert not queue.connection.exists(keys.ALL_JOBS)


def test_a_long_batch_has_few_jobs_at_a_time_and_cancelling_it_tells_what_was_not_run(
    openai: OpenAI, queue: JobQueue, worker: ScriptedWorker
) -> None:
    batch = create(openai, jsonl(*(line(str(number), {"prompt": "a star"}) for number in range(100))))
    wait_until(lambda: count_jobs(queue) == 32)
    worker.complete(worker.claim_next())
    wait_until(lambda: count_jobs(queue) == 33)

    assert openai.batches.cancel(batch.id).status == "cancelling"
    ended = wait_for(openai, batch, "cancelled")

    states = [job.state for job in all_jobs(queue)]
    assert (states.count(JobState.COMPLETED), states.count(JobState.CANCELLED)) == (1, len(states) - 1)
    assert len(states) < 40
    output, errors = lines_of(openai, ended.output_file_id), lines_of(openai, ended.error_file_id)
    assert (len(output), len(errors), output.keys() & errors.keys()) == (1, 99, set())
    assert {value["error"]["code"] for value in errors.values()} == {"batch_cancelled"}
    assert ended.cancelling_at is not None
    with pytest.raises(ConflictError, match="cancelled"):
        openai.batches.cancel(batch.id)


def count_jobs(queue: JobQueue) -> int:
    return int(str(queue.connection.zcard(keys.ALL_JOBS)))


def all_jobs(queue: JobQueue) -> list[JobRecord]:
    return listing.list_jobs(queue, None, listing.Filter(), 100).jobs


def test_a_batch_ends_with_its_window(openai: OpenAI, queue: JobQueue) -> None:
    batch = create(openai, jsonl(line("a", {"prompt": "a star"})))
    assert batch.expires_at == batch.created_at + 86_400
    wait_until(lambda: count_jobs(queue))

    queue.connection.hset(keys.BATCH + batch.id, "expires_at", str(queue.now()))
    ended = wait_for(openai, batch, "expired")

    assert ended.expired_at is not None
    assert lines_of(openai, ended.error_file_id)["a"]["error"]["code"] == "batch_expired"
    assert all_jobs(queue)[0].state == JobState.CANCELLED


def test_files_and_batches_are_invisible_to_other_owners(client: TestClient, queue: JobQueue) -> None:
    store = ApiKeyStore(queue.connection)
    (_, mine), (_, other) = store.create("mine"), store.create("other")
    owner, stranger = client_of(client, mine), client_of(client, other)
    batch = create(owner, jsonl(line("a", {"prompt": "a star"})))

    for call in (
        lambda: stranger.files.retrieve(batch.input_file_id),
        lambda: stranger.files.content(batch.input_file_id),
        lambda: stranger.files.delete(batch.input_file_id),
        lambda: stranger.batches.retrieve(batch.id),
        lambda: stranger.batches.cancel(batch.id),
    ):
        with pytest.raises(NotFoundError):
            call()
    with pytest.raises(NotFoundError, match="does not exist"):
        stranger.batches.create(
            input_file_id=batch.input_file_id, endpoint="/v1/images/generations", completion_window="24h"
        )
    assert (stranger.files.list().data, stranger.batches.list().data) == ([], [])
    assert [file.id for file in owner.files.list()] == [batch.input_file_id]


def test_a_batch_ends_with_its_revoked_key(client: TestClient, queue: JobQueue) -> None:
    store = ApiKeyStore(queue.connection)
    (first, token), (_, second) = store.create("leaked", "team"), store.create("kept", "team")
    lines = [line(str(number), {"prompt": "a star"}) for number in range(40)]
    batch = create(client_of(client, token), jsonl(*lines))
    wait_until(lambda: count_jobs(queue))

    store.revoke(first.id)

    assert wait_for(client_of(client, second), batch, "cancelled").output_file_id is None


def test_lists_come_in_pages_that_the_client_walks_through(openai: OpenAI) -> None:
    made = [create(openai, b"\n") for _ in range(3)]

    assert [batch.id for batch in openai.batches.list(limit=2)] == [batch.id for batch in reversed(made)]
    found = [file.id for file in openai.files.list(limit=1, order="asc", purpose="batch")]
    assert found == [batch.input_file_id for batch in made]
    with pytest.raises(UnprocessableEntityError, match="is not the id of an entry") as refused:
        openai.batches.list(after="batch_none")
    assert refused.value.param == "after"


def test_a_file_can_be_read_and_deleted_and_its_bytes_count_until_then(
    openai: OpenAI, queue: JobQueue, retention: Retention, storage: Storage
) -> None:
    data = jsonl(line("a", {"prompt": "x" * 1000}))
    file = openai.files.create(
        file=("r.jsonl", data), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )

    found = openai.files.retrieve(file.id)
    assert (found.filename, found.bytes, found.purpose) == ("r.jsonl", len(data), "batch")
    assert found.expires_at == found.created_at + 3600
    assert openai.files.content(file.id).content == data
    assert queue.connection.hget(keys.STORED_BYTES, "local") == str(len(data))
    assert openai.files.delete(file.id).deleted
    with pytest.raises(NotFoundError):
        openai.files.content(file.id)
    retention.sweep()
    assert storage.find("inputs/") == []


def test_a_field_of_a_file_without_effect_is_refused(openai: OpenAI) -> None:
    refusals: list[tuple[Any, dict[str, Any], str]] = [
        ("fine-tune", {}, "purpose"),
        ("batch", {"expires_after": {"anchor": "created_at", "seconds": 5}}, "expires_after[seconds]"),
        ("batch", {"extra_body": {"name": "x"}}, "name"),
    ]
    for purpose, fields, param in refusals:
        with pytest.raises(UnprocessableEntityError) as refused:
            openai.files.create(file=("r.jsonl", b"{}"), purpose=purpose, **fields)
        assert refused.value.param == param
