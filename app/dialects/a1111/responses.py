"""Images, progress and errors as the web UI's clients read them, made from our own. Does not parse requests."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.dialects.a1111.controlnet import A1111DetectRequest
from app.dialects.a1111.options import A1111OptionsRequest
from app.dialects.a1111.png_info import PARAMETERS, A1111PngInfoRequest
from app.dialects.a1111.samplers import names_of
from app.dialects.a1111.schema import A1111Img2ImgRequest, A1111Request, A1111Txt2ImgRequest
from app.error_handlers import Dialect, cut
from app.errors import Failure
from app.inputs.texts.png import read_texts
from app.middleware.request_id import HEADER
from contracts.errors import MAX_PROBLEMS, FieldProblem
from contracts.jobs.events import Preview
from contracts.jobs.records import JobRecord, Position
from contracts.left_out_fields import OrLeftOut
from contracts.requests.any_parameters import require_diffusion
from contracts.views.job import JobView

#: Progress of a job before its first step: clients take 0 for a service that has nothing to do.
_STARTED = 0.01


class A1111Images(BaseModel):
    """The finished images of a call."""

    images: list[str] = Field(
        description="The PNG files in base64, with their parameters inside; empty with `send_images: false`."
    )
    parameters: dict[str, Any] = Field(description="The request's own fields, without its images.")
    info: str = Field(
        description="JSON as text: `seed`, `all_seeds`, `infotexts`, other parameters, and `job`, the job's id."
    )


class A1111Done(BaseModel):
    """An empty object: the call has done what it does."""


class A1111State(BaseModel):
    """Which of your jobs runs."""

    skipped: bool = Field(False, description="Always false: a skipped job has ended.")
    interrupted: bool = Field(False, description="Always false: an interrupted job has ended.")
    stopping_generation: bool = Field(False, description="Always false, as `interrupted`.")
    job: str = Field("", description="Id of your most recently started running job; empty while none runs.")
    job_count: int = Field(0, description="Number of your running jobs.")
    job_timestamp: str = Field(
        "0", description="When it was started: `YYYYMMDDhhmmss` in UTC; `0` while none runs."
    )
    job_no: int = Field(0, description="Always 0.")
    sampling_step: int = Field(0, description="Steps that it has completed.")
    sampling_steps: int = Field(0, description="Its total number of steps.")


class A1111Progress(BaseModel):
    """The progress of your running job that was started last."""

    progress: float = Field(description="Fraction that is done, 0 to 1; 0 while nothing runs.")
    eta_relative: float = Field(description="Estimated seconds until it ends; 0 while this cannot be estimated.")
    state: A1111State = Field(description="Which job this is about, and how many of yours are running.")
    current_image: str | None = Field(
        description="The last preview, a JPEG in base64; null without one, or with `skip_current_image`."
    )
    textinfo: str | None = Field(None, description="Always null.")


class A1111ErrorDetail(BaseModel):
    """One thing wrong with one field."""

    loc: list[str | int] = Field(description="Where it is: `body`, and the path of the field.")
    msg: str = Field(description="What is wrong with it, and what is allowed.")
    type: str = Field("value_error", description="Always `value_error`.")
    ctx: OrLeftOut[dict[str, Any]] = Field(
        None,
        description="`allowed`: the values that would have been accepted, or their range; left out without them.",
    )


class A1111Error(BaseModel):
    """Error in the format of the web UI."""

    error: str = Field(description="Kind of error; stable, for programs.")
    detail: str | list[A1111ErrorDetail] = Field(
        description="What is wrong; for invalid fields one entry each, up to 50."
    )
    body: str = Field("", description="Always empty.")
    errors: str = Field(description="All problems in one text, for people.")


def answer_images(request: A1111Request, record: JobRecord, view: JobView) -> A1111Images:
    """Return the answer for a completed job; `request` is without its images."""
    files = [image.b64_json for image in view.images if image.b64_json is not None]
    texts = [read_texts(base64.b64decode(file)).get(PARAMETERS, "") for file in files]
    return A1111Images(
        images=files if request.send_images else [],
        parameters=request.model_dump(mode="json", exclude_none=True),
        info=json.dumps(_info(record, texts)),
    )


def _info(record: JobRecord, texts: Sequence[str]) -> dict[str, Any]:
    ours, receipt = require_diffusion(record.parameters), record.receipt
    sampler, schedule_type = names_of(ours.scheduler)
    negative, count = ours.negative_prompt or "", ours.num_images
    return {
        "prompt": ours.prompt,
        "all_prompts": [ours.prompt] * count,
        "negative_prompt": negative,
        "all_negative_prompts": [negative] * count,
        "seed": ours.seed,
        "all_seeds": ours.seeds,
        "subseed": ours.seed,
        "all_subseeds": ours.seeds,
        "subseed_strength": 0,
        "width": ours.width,
        "height": ours.height,
        "sampler_name": sampler,
        "scheduler": schedule_type,
        "cfg_scale": ours.guidance_scale,
        "steps": ours.num_inference_steps,
        "batch_size": count,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": ours.model,
        "sd_model_hash": None if receipt is None else receipt.model.sha256[:10],
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": ours.strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": list(texts),
        "styles": [],
        "job_timestamp": _stamp(record.started_at),
        "clip_skip": (ours.clip_skip or 0) + 1,
        "is_using_inpainting_conditioning": False,
        "version": "darkroom",
        "job": record.id,
    }


def answer_progress(
    running: Sequence[JobRecord], position: Position | None, preview: Preview | None
) -> A1111Progress:
    """Return the progress of the first of an owner's running jobs."""
    if not running:
        return A1111Progress(progress=0.0, eta_relative=0.0, state=A1111State(), current_image=None)
    job = running[0]
    eta = None if position is None else position.eta_seconds
    return A1111Progress(
        progress=max(job.progress.fraction, _STARTED),
        eta_relative=eta or 0.0,
        state=A1111State(
            job=job.id,
            job_count=len(running),
            job_timestamp=_stamp(job.started_at),
            sampling_step=job.progress.step,
            sampling_steps=job.progress.steps,
        ),
        current_image=None if preview is None else preview.url.partition(",")[2],
    )


def _stamp(seconds: float | None) -> str:
    return "0" if seconds is None else time.strftime("%Y%m%d%H%M%S", time.gmtime(seconds))


def render_error(failure: Failure, request_id: str) -> JSONResponse:
    """Render a failure as the web UI and FastAPI do."""
    detail: str | list[A1111ErrorDetail] = cut(failure.detail)
    if failure.problems:
        detail = [_detail(problem) for problem in failure.problems[:MAX_PROBLEMS]]
    answer = A1111Error(error=failure.row.code, detail=detail, errors=cut(failure.detail))
    headers = {**failure.headers, HEADER: request_id}
    if failure.row.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Basic realm="darkroom", Bearer realm="darkroom"'
    return JSONResponse(answer.model_dump(mode="json"), failure.row.status, headers=headers)


def _detail(problem: FieldProblem) -> A1111ErrorDetail:
    path: list[str | int] = [int(step) if step.isdecimal() else step for step in problem.field.split(".")]
    message = problem.message
    if problem.allowed is not None:
        message = f"{message} (allowed: {problem.allowed})"  # clients show this text only
    return A1111ErrorDetail(
        loc=["body", *path],
        msg=cut(f"{problem.field}: {message}"),
        ctx=None if problem.allowed is None else {"allowed": problem.allowed},
    )


_BODIES = (
    A1111Txt2ImgRequest,
    A1111Img2ImgRequest,
    A1111OptionsRequest,
    A1111PngInfoRequest,
    A1111DetectRequest,
)
#: Below both prefixes of the web UI's API.
A1111 = (
    Dialect("/sdapi/", render_error, "application/json", A1111Error, _BODIES),
    Dialect("/controlnet/", render_error, "application/json", A1111Error),
)
