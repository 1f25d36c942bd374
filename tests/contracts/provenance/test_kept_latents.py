"""How much a job may keep."""

from __future__ import annotations

import pytest

from contracts.catalogue.reader import read_catalogue
from contracts.errors import InvalidRequest
from contracts.provenance.kept_latents import MAX_KEPT_BYTES, require_room
from contracts.requests.defaults import resolve
from contracts.requests.schema import Txt2ImgRequest
from contracts.settings import BUILT_IN_CATALOGUE


def test_a_job_that_could_keep_too_much_is_refused_with_what_it_may() -> None:
    model = read_catalogue(BUILT_IN_CATALOGUE).model("shapes-sdxl")
    request = Txt2ImgRequest(prompt="a star", width=1024, height=1024, num_inference_steps=16, num_images=8)
    job = resolve(request, model, {})
    kept = job.model_copy(update={"keep_latents": True})
    assert (job.kept_latents_bytes, kept.kept_latents_bytes) == (0, MAX_KEPT_BYTES)
    assert kept.max_result_bytes - job.max_result_bytes == MAX_KEPT_BYTES
    require_room(kept)
    require_room(job.model_copy(update={"num_inference_steps": 200}))
    with pytest.raises(InvalidRequest) as refused:
        require_room(kept.model_copy(update={"num_inference_steps": 17}))
    assert refused.value.problems[0].field == "keep_latents"
    assert kept.record_version == 3 > job.record_version
