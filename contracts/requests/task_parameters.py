"""What the queue, the records and the workers ask of a job's parameters, whatever its task runs.

`parameters.py` has those of diffusion models; `any_parameters.py` lists all kinds. Knows no catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol


class JobTask(StrEnum):
    """Task of a job: those of `Task`, which run on diffusion models, and those that run other networks."""

    TXT2IMG = "txt2img"
    IMG2IMG = "img2img"
    INPAINT = "inpaint"
    CONTROLNET = "controlnet"
    EDIT = "edit"
    UPSCALE = "upscale"
    ERASE = "erase"
    PREPROCESS = "preprocess"
    TRAINING = "training"


class TaskParameters(Protocol):
    """Stored parameters of a job, as seen by code that does not know the task."""

    @property
    def task(self) -> StrEnum:
        """A value of `JobTask`."""

    @property
    def model(self) -> str:
        """Id of the catalogue row that the job runs on; the ids of models, upscalers, … differ from each other.

        Its queue, its place among the models that a worker changes between, logs and metrics go by it.
        """

    @property
    def seed(self) -> int:
        """Seed of torch's shared random generators while the job runs."""

    @property
    def seeds(self) -> Sequence[int | None]:
        """Seed of each file that the job returns; None for one that is not made from noise."""

    @property
    def num_images(self) -> int:
        """Images that are made together; each may be several files."""

    @property
    def pixels(self) -> int:
        """Pixels of all of these."""

    @property
    def batchable(self) -> bool | None:
        """Whether its calls may be joined with those of other jobs; None: the worker's settings say."""

    @property
    def private_texts(self) -> Sequence[str]:
        """Texts of the client that no line of the log may have: prompts."""

    @property
    def expected_steps(self) -> int:
        """Steps of its progress, as far as they are known before it runs; at least 1."""

    @property
    def needs(self) -> list[str]:
        """What a worker must have prepared, by the names of `Catalogue.rows_by_need`."""

    @property
    def inputs(self) -> list[str]:
        """Storage keys of what it reads, without repetition; they are kept as long as the job."""

    @property
    def max_result_bytes(self) -> int:
        """The most bytes that its results take in the storage."""

    @property
    def record_version(self) -> int:
        """The lowest version of records that a release must know to read them (`contracts.jobs.records`)."""

    @property
    def step_kind(self) -> tuple[object, ...]:
        """What the seconds of one of its steps are learned for."""

    @property
    def work(self) -> dict[str, Any]:
        """How much it computes, from which the scripts predict its seconds (`predicted_seconds` in accounts.lua).

        `pace` and `model`: names under which seconds are learned, of jobs alike and of all on this row;
        `image_steps`: steps, of every image; `megapixel_steps`: the same, times megapixels; `images`; `joins`:
        equal for jobs that may share calls of the denoiser, and empty for one that shares none; with `seeded`,
        they share them only on workers that join calls of jobs with a named seed.
        """

    def for_log(self) -> dict[str, str | int]:
        """What a line of the log and a span say of it: `model`, `task` and numbers; no prompt, no private text."""
