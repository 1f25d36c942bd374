"""PixArt-α gives, bit for bit, what a direct call of its pipeline gives; its checkpoints name an older class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.errors import CatalogueError, InvalidRequest
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.storage import Storage
from tests.support.bare_diffusers import paint
from tests.support.jobs import decode_pixels, generate_pixels, make_job, run_jobs
from tests.support.untrained.pixart import ALPHA, with_pixart_alpha
from worker.checkpoints.rehearsal import rehearse_model
from worker.families import get_family
from worker.pool.pool import Pool


@pytest.fixture(scope="module")
def alpha(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return with_pixart_alpha(read_catalogue(BUILT_IN_CATALOGUE), tmp_path_factory.mktemp("alpha"))


@pytest.fixture(scope="module")
def alpha_pool(alpha: Catalogue) -> Pool:
    return Pool(alpha, device="cpu")


def _paint(catalogue: Catalogue, scheduler: str, **call: Any) -> Any:
    exact = {"prompt": "a red circle", "use_resolution_binning": False, "clean_caption": False}
    folder = Path(catalogue.model(ALPHA).source)
    return np.asarray(paint(folder, "PixArtAlphaPipeline", {**exact, **call}, scheduler=scheduler, seed=7))


def test_jobs_that_share_their_calls_equal_direct_calls_bit_for_bit(
    alpha: Catalogue, alpha_pool: Pool, storage: Storage
) -> None:
    """Of two aspects, which the transformer is told, and of two guidances."""
    calls: list[dict[str, Any]] = [
        {"width": width, "height": 64, "guidance_scale": guidance, "num_inference_steps": 3, **texts}
        for width, guidance, texts in (
            (64, 4.5, {"negative_prompt": "a blue square"}),
            (96, 1.0, {}),
            (64, 3.0, {}),
        )
    ]
    jobs = [make_job(alpha, "pixart-alpha", **call) for call in calls]

    results = run_jobs(jobs, alpha_pool, storage)

    for call, result in zip(calls, results, strict=True):
        own = decode_pixels(storage.read(result.stored[0].key))
        assert np.array_equal(own, _paint(alpha, "dpmpp_2m", **call, max_sequence_length=120))


def test_one_step_is_made_with_every_kind_of_scheduler(
    alpha: Catalogue, alpha_pool: Pool, storage: Storage
) -> None:
    """diffusers itself fails for those whose step has one result."""
    call: dict[str, Any] = {"width": 64, "height": 64, "guidance_scale": 1.0, "num_inference_steps": 1}
    job = make_job(alpha, "pixart-alpha", scheduler="euler", **call)
    assert np.array_equal(generate_pixels(job, alpha_pool, storage), _paint(alpha, "euler", **call))
    for scheduler in ("dpmpp_2m", "unipc"):
        other = make_job(alpha, "pixart-alpha", scheduler=scheduler, **call)
        assert generate_pixels(other, alpha_pool, storage).std() > 1


def test_it_reads_120_tokens(alpha: Catalogue) -> None:
    assert make_job(alpha, "pixart-alpha").max_sequence_length == 120
    with pytest.raises(InvalidRequest, match="max_sequence_length"):
        make_job(alpha, "pixart-alpha", max_sequence_length=121)


def test_a_transformer_of_other_conditions_is_refused_before_it_is_loaded(
    alpha: Catalogue, tmp_path: Path
) -> None:
    row = alpha.model(ALPHA)
    folder = tmp_path / "beta"
    folder.mkdir()
    for part in Path(row.source).iterdir():
        if part.name != "transformer":
            (folder / part.name).symlink_to(part)
    (folder / "transformer").mkdir()
    config = json.loads((Path(row.source) / "transformer" / "config.json").read_text())
    changed = {**config, "sample_size": 64, "use_additional_conditions": True}
    (folder / "transformer" / "config.json").write_text(json.dumps(changed))
    with pytest.raises(
        CatalogueError, match="use_additional_conditions of the transformer is True, but must be False"
    ):
        rehearse_model(alpha, row, get_family("pixart-alpha"), folder)
