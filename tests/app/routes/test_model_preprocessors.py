"""Control images that a model makes, over HTTP: a job, refused with the remedy, listed, and run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from contracts.catalogue.reader import read_catalogue
from contracts.errors import CatalogueError
from contracts.queue.client import JobQueue
from contracts.requests.parameters import JobParameters
from contracts.requests.plain.preprocessing import PreprocessParameters
from contracts.settings import SharedSettings
from tests.support.images import to_data_url

CATALOGUE = """default_model = "xl"
[[models]]
id = "xl"
family = "sdxl"
source = "org/xl"
[[controlnets]]
id = "nearness"
family = "sdxl"
source = "org/nearness"
[[preprocessors]]
id = "depth"
source = "org/depth-model"
kind = "depth"
[[preprocessors]]
id = "people"
source = "org/pose-model"
kind = "pose"
"""
PHOTO = to_data_url(Image.new("RGB", (90, 60), "red"))
BODY = {"image": PHOTO, "preprocess": "depth"}


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> SharedSettings:
    (tmp_path / "catalogue.toml").write_text(CATALOGUE, encoding="utf-8")
    return SharedSettings(redis_url=redis_url, data=tmp_path / "data", catalogue=tmp_path / "catalogue.toml")


def test_a_preprocessor_that_is_a_model_runs_in_a_job_and_again_in_another_size(
    client: TestClient, queue: JobQueue
) -> None:
    answer = client.post("/v1/preprocess", json=BODY, headers={"Idempotency-Key": "once"})
    same = client.post("/v1/preprocess", json=BODY, headers={"Idempotency-Key": "once"})
    job = answer.json()
    assert (answer.status_code, job["task"], job["model"]) == (202, "preprocess", "depth")
    assert same.json()["id"] == job["id"]
    stored = queue.fetch(job["id"]).parameters
    assert isinstance(stored, PreprocessParameters)
    assert (stored.width, stored.height, stored.needs) == (96, 64, ["preprocessor:depth"])

    again = client.post(f"/v1/jobs/{job['id']}/rerun", json={"preprocess_options": {"resolution": 120}}).json()
    larger = queue.fetch(again["id"]).parameters
    assert isinstance(larger, PreprocessParameters)
    assert (larger.width, larger.height, larger.image) == (180, 120, stored.image)


def test_all_options_are_stored_with_the_job_also_those_that_were_left_out(
    client: TestClient, queue: JobQueue
) -> None:
    options = {"confidence": 0.5}
    job = client.post("/v1/preprocess", json=BODY | {"preprocess": "people", "preprocess_options": options}).json()
    stored = queue.fetch(job["id"]).parameters
    assert isinstance(stored, PreprocessParameters)
    assert stored.preprocess_options == {"confidence": 0.5, "resolution": 64}


def test_what_is_refused_names_the_field_and_the_remedy(client: TestClient, subtests: pytest.Subtests) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"image": None}, "image", "required"),
        ({"preprocess_options": {"sigma": 2}}, "preprocess_options.sigma", "not an option of depth"),
        (
            {"preprocess": "people", "preprocess_options": {"confidence": 2}},
            "preprocess_options.confidence",
            "0–1",
        ),
        ({"preprocess_options": {"resolution": 4096}}, "preprocess_options.resolution", "64–2048"),
        ({"image": to_data_url(Image.new("RGB", (900, 100)))}, "image", "crop it"),
        ({"task": "preprocess", "preprocess": "canny"}, "preprocess", "needs no job"),
        ({"task": "preprocess", "preprocess": "nearness"}, "preprocess", "GET /v1/preprocessors"),
        ({"steps": 4}, "steps", ""),
    ]
    for changes, field, text in cases:
        with subtests.test(changes=changes, field=field, text=text):
            answer = client.post("/v1/preprocess", json=BODY | changes)
            assert answer.status_code == 422
            problems = answer.json()["errors"]
            assert field in [problem["field"] for problem in problems]
            assert text in str(problems)


CONTROL = {"controlnet": "nearness", "image": PHOTO, "preprocess": "people"}


def test_a_control_that_names_a_model_has_its_image_made_in_its_own_job(
    client: TestClient, queue: JobQueue
) -> None:
    body = {"prompt": "a tree", "width": 512, "height": 512, "controls": [CONTROL]}
    answer = client.post("/v1/controlnet", json=body)
    assert answer.status_code == 202, answer.json()
    stored = queue.fetch(answer.json()["id"]).parameters
    assert isinstance(stored, JobParameters)
    (control,) = stored.controls
    assert (control.preprocess, control.source, control.is_made_in_job) == ("people", None, True)
    assert control.preprocess_options == {"confidence": 0.3, "resolution": 512}
    assert "preprocessor:people" in stored.needs
    assert stored.record_version == 3, "releases that know no such control read versions up to 2"
    drawn = control.model_copy(update={"preprocess": None, "source": None})
    without_map = stored.model_copy(update={"controls": (drawn,)})
    assert stored.pace_key == f"{without_map.pace_key} map people", "what the map takes is learned of such jobs"

    again = client.post(f"/v1/jobs/{answer.json()['id']}/rerun", json={}).json()
    rerun = queue.fetch(again["id"]).parameters
    assert isinstance(rerun, JobParameters)
    assert rerun.controls == stored.controls


def test_a_control_whose_image_no_model_can_make_is_refused(client: TestClient, subtests: pytest.Subtests) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"preprocess": "nearness"}, "controls.0.preprocess", "GET /v1/preprocessors"),
        ({"preprocess_options": {"sigma": 2}}, "controls.0.preprocess_options.sigma", "not an option of people"),
        ({"image": to_data_url(Image.new("RGB", (900, 100)))}, "controls.0.image", "crop it"),
    ]
    for changes, field, text in cases:
        with subtests.test(changes=changes, field=field, text=text):
            answer = client.post("/v1/controlnet", json={"prompt": "a tree", "controls": [CONTROL | changes]})
            assert answer.status_code == 422
            assert text in next(one["message"] for one in answer.json()["errors"] if one["field"] == field)


def test_the_list_says_which_preprocessors_run_in_jobs(client: TestClient) -> None:
    *others, depth, people = client.get("/v1/preprocessors").json()["data"]
    assert {row["runs"] for row in others} == {"request"}
    assert (depth["id"], depth["runs"], depth["ready"]) == ("depth", "job", False)
    assert [option["id"] for option in depth["options"]] == ["resolution"]
    assert [option["id"] for option in people["options"]] == ["confidence", "resolution"]
    assert (depth["title"], people["title"]) == (
        "Depth map: brighter where things are nearer",
        "Pose of one person, drawn as OpenPose does",
    )


@pytest.mark.parametrize(
    ("line", "text"),
    [('source = "a.safetensors"', "must be a folder"), ('id = "canny"', "needs no model"), ('id = "xl"', "twice")],
)
def test_a_row_that_cannot_be_one_is_refused_by_the_reader(tmp_path: Path, line: str, text: str) -> None:

    start, row, _ = CATALOGUE.split("[[preprocessors]]")
    name = line.split(" ")[0]
    kept = [one for one in row.strip().splitlines() if not one.startswith(name)]
    file = tmp_path / "other.toml"
    file.write_text("\n".join([start, "[[preprocessors]]", *kept, line]), encoding="utf-8")
    with pytest.raises(CatalogueError, match=text):
        read_catalogue(file)
