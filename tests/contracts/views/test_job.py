"""A job record is shown to clients as a view, in every state."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from redis import Redis

from contracts.auth.signed_links import LinkSigner
from contracts.jobs.records import ImageRecord, JobRecord, JobState, Position
from contracts.requests.schema import Priority
from contracts.settings import SharedSettings
from contracts.views.job import view_job
from contracts.views.links import Links
from contracts.views.lists import ListView
from tests.support.parameters import parameters

SIGNER = LinkSigner(Redis(), SharedSettings(link_secret=SecretStr("s" * 32)), None)
LINKS = Links("https://images.example/base", SIGNER)
IMAGE = ImageRecord(key="results/a/0.png", width=64, height=32, seed=0, format="png", sha256="ab", size_bytes=9)


def record(**changes: Any) -> JobRecord:
    fields = {
        "id": "a1", "state": JobState.QUEUED, "parameters": parameters(), "owner": "local",
        "priority": Priority.NORMAL, "created_at": 1_700_000_000.25,
    }  # fmt: skip
    return JobRecord(**(fields | changes))


def test_times_are_rfc_3339_in_utc() -> None:
    shown = view_job(record(finished_at=1_700_000_001.0), LINKS).model_dump(mode="json")

    assert shown["created_at"] == "2023-11-14T22:13:20.250000Z"
    assert shown["finished_at"] == "2023-11-14T22:13:21Z"
    assert shown["started_at"] is None


@pytest.mark.parametrize("state", JobState)
def test_only_possible_actions_are_linked(state: JobState) -> None:
    links = view_job(record(state=state), LINKS).links

    assert links["self"] == "https://images.example/base/v1/jobs/a1"
    assert ("cancel" in links) == (not state.is_final)


def test_images_are_numbered_by_position() -> None:
    view = view_job(record(state=JobState.COMPLETED, images=[IMAGE, IMAGE]), LINKS, encoded=["AA", None])

    shown = view.model_dump(mode="json")["images"]
    assert [urlsplit(image["url"]).path.rsplit("/", 1)[1] for image in shown] == ["0", "1"]
    assert shown[0]["b64_json"] == "AA"
    assert "b64_json" not in shown[1]
    assert "key" not in shown[0]


def test_the_first_in_line_has_nobody_ahead() -> None:
    view = view_job(record(), LINKS, position=Position(ahead=0, eta_seconds=2.5))

    assert view.queue is not None
    assert (view.queue.position, view.queue.ahead) == (1, 0)
    assert view.progress.eta_seconds == 2.5


def test_a_list_has_the_form_of_a_page() -> None:
    assert ListView(data=["a"]).model_dump() == {
        "object": "list",
        "data": ["a"],
        "has_more": False,
        "next_cursor": None,
    }
