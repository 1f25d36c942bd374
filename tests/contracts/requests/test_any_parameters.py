"""Stored parameters of any task: read by the task that they name, and refused by releases that do not know it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contracts.catalogue.families import Task
from contracts.jobs.failures import FailureCode
from contracts.jobs.record_reader import UnreadableJob
from contracts.jobs.records import RECORD_VERSION
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.requests.any_parameters import require_diffusion
from contracts.requests.parameters import JobParameters
from contracts.requests.plain.upscaling import UpscaleParameters
from contracts.requests.task_parameters import JobTask
from tests.support.parameters import parameters

UPSCALE = UpscaleParameters(
    task=JobTask.UPSCALE, model="double", image="inputs/a.png", scale=2, width=600, height=300
)


@pytest.mark.parametrize("one", [parameters(), UPSCALE], ids=["txt2img", "upscale"])
def test_a_job_is_read_as_it_was_written_whatever_its_task(queue: JobQueue, one: Any) -> None:
    record = queue.fetch(queue.submit(one).id)
    assert type(record.parameters) is type(one)
    assert record.parameters == one
    assert queue.connection.hmget(keys.JOB + record.id, "task", "model") == [one.task.value, one.model]


def test_a_record_of_a_task_without_prompt_has_a_version_that_earlier_releases_refuse(queue: JobQueue) -> None:
    versions = [
        queue.connection.hget(keys.JOB + queue.submit(one).id, "version") for one in (parameters(), UPSCALE)
    ]
    assert versions == ["1", str(RECORD_VERSION)]
    assert RECORD_VERSION == 3, "a release that knows no such task reads versions up to 2"


def test_a_task_of_a_later_release_is_one_job_that_fails(queue: JobQueue) -> None:
    id = queue.submit(UPSCALE).id
    stored = json.loads(UPSCALE.model_dump_json()) | {"task": "dream"}
    queue.connection.hset(keys.JOB + id, "parameters", json.dumps(stored))
    record = queue.fetch(id)
    assert isinstance(record, UnreadableJob)
    assert record.error is not None
    assert record.error.code is FailureCode.UNREADABLE
    assert "(parameters." in record.error.message
    assert "diffusion" not in record.error.message


def test_every_task_of_diffusion_models_is_a_task_of_jobs() -> None:
    assert {task.value for task in Task} < {task.value for task in JobTask}


def test_an_upscale_is_predicted_by_the_pixels_of_its_input() -> None:
    assert UPSCALE.work["megapixel_steps"] == pytest.approx(300 * 150 / 1e6)
    assert (UPSCALE.expected_steps, UPSCALE.needs) == (2, ["upscaler:double"])


def test_parameters_of_another_task_are_not_taken_for_those_of_a_diffusion_model() -> None:
    assert isinstance(require_diffusion(parameters()), JobParameters)
    with pytest.raises(TypeError, match="upscale"):
        require_diffusion(UPSCALE)
