"""Bodies in progress share a budget, in which nobody's requests can take the room of everybody's."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.errors import Busy
from app.main import create_app
from app.parsing.byte_budget import FREE_BYTES, ByteBudget
from app.settings import ApiSettings
from contracts.settings import SharedSettings
from tests.support.images import data_url, encode_solid
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import wait_until

MIB = 2**20


def test_bytes_are_refused_once_the_budget_is_spent_and_accepted_again_when_some_are_released() -> None:
    budget = ByteBudget(4 * MIB, MIB)
    with ExitStack() as stack:
        for owner in "ab":
            stack.enter_context(budget.reserve(owner)).add(2 * MIB)
        with budget.reserve("c") as third, pytest.raises(Busy, match="try again in 2 s"):
            third.add(MIB)
    assert budget.reserved_bytes == 0
    with budget.reserve("c") as third:
        third.add(2 * MIB)


def test_one_owner_gets_half_of_the_budget() -> None:
    budget = ByteBudget(4 * MIB, MIB)
    with budget.reserve("a") as first, budget.reserve("a") as second, budget.reserve("b") as other:
        first.add(2 * MIB)
        with pytest.raises(Busy, match="your request bodies"):
            second.add(MIB)
        other.add(2 * MIB)


def test_small_requests_are_served_while_the_budget_is_spent() -> None:
    budget = ByteBudget(MIB, MIB)
    with budget.reserve("a") as large, budget.reserve("a") as small:
        large.add(MIB)
        small.add(FREE_BYTES)


def test_the_largest_body_fits_a_budget_that_is_smaller() -> None:
    with ByteBudget(1, MIB).reserve("a") as largest:
        largest.add(MIB)


IMAGE = data_url(encode_solid("RGB", (64, 64), "red"))
LARGE = b'{"prompt": "' + b"a" * 200_000 + b'"}'


@pytest.fixture
def small(settings: SharedSettings) -> Iterator[TestClient]:
    """A client of an API that can hold one body of 200 kB."""
    limits = ApiSettings(shared=settings, max_bodies_bytes=250_000, max_body_bytes=250_000)
    with TestClient(create_app(limits), raise_server_exceptions=False) as client:
        yield client


def body_memory(client: TestClient) -> ByteBudget:
    """The API's own budget."""
    assert isinstance(client.app, FastAPI)
    budget: ByteBudget = client.app.state.services.body_memory
    return budget


@contextmanager
def occupied(client: TestClient) -> Iterator[None]:
    """While other requests hold all bytes of the budget."""
    with body_memory(client).reserve("somebody else") as reservation:
        reservation.add(250_000 + FREE_BYTES)
        yield


def test_every_body_counts_and_is_given_back(small: TestClient, subtests: pytest.Subtests) -> None:
    for path in ["/v1/txt2img", "/v1/plan", "/v1/uploads", "/v1/images/generations", "/v1/images/edits"]:
        with subtests.test(path=path):
            kind = {"Content-Type": "image/png" if path.endswith("uploads") else "application/json"}
            with occupied(small):
                refused = small.post(path, content=LARGE, headers=kind)
                served = small.post(path, content=b'{"width": "wide"}', headers=kind)

            assert refused.status_code == 503
            assert refused.headers["Retry-After"] == "2"
            assert "busy" in refused.text
            assert served.status_code != 503
            assert small.post(path, content=LARGE, headers=kind).status_code in (415, 422)
            assert body_memory(small).reserved_bytes == 0


def test_a_form_counts_too(small: TestClient) -> None:
    files = {"image": ("a.png", LARGE, "image/png")}
    with occupied(small):
        assert small.post("/v1/images/edits", data={"prompt": "a"}, files=files).status_code == 503
    assert small.post("/v1/images/edits", data={"prompt": "a"}, files=files).status_code == 415


def test_lora_files_in_progress_share_disk_space(settings: SharedSettings) -> None:
    limits = ApiSettings(
        shared=settings, max_spooled_bytes=200_000, max_lora_bytes=200_000, max_controlnet_bytes=200_000
    )
    app = create_app(limits)
    with TestClient(app) as client:
        space = app.state.services.spool_space
        with space.reserve("somebody else") as reservation:
            reservation.add(250_000 + FREE_BYTES)
            refused = client.post(
                "/v1/loras?name=a", content=b"x" * 150_000, headers={"Content-Type": "application/octet-stream"}
            )

    assert refused.status_code == 503
    assert space.reserved_bytes == 0


@pytest.mark.parametrize("path", ["/v1/img2img", "/v1/images/edits"])
def test_a_body_is_given_back_while_its_client_waits_for_the_job(
    client: TestClient, worker: ScriptedWorker, path: str
) -> None:
    budget = body_memory(client)
    body = {"prompt": "a", "image": IMAGE + "\n" * 200_000, "strength": 0.5}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, path, json=body, headers={"Prefer": "wait=60"})
        wait_until(lambda: client.get("/v1/jobs").json()["data"])
        wait_until(lambda: budget.reserved_bytes == 0)
        assert not answer.done()
        worker.complete(worker.claim())

        assert answer.result(60).status_code == 200
