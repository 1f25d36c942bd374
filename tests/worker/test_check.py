"""`python -m worker.check --model`: a model is really loaded and makes an image, and what cannot is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Task
from contracts.jobs.failures import JobFailed
from contracts.settings import BUILT_IN_CATALOGUE
from tests.support.combinations import ALL
from worker.check import main
from worker.generation.trial import try_model, warm_up
from worker.pool.pool import Pool

MODELS = BUILT_IN_CATALOGUE.parent


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A checkpoint whose descriptions and headers are right, and whose values are not numbers."""
    folder = tmp_path / "damaged"
    shutil.copytree(MODELS / "shapes-sdxl", folder)
    file = next((folder / "unet").glob("*.safetensors"))
    save_file({name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(file).items()}, file)
    return folder


def test_a_model_that_loads_and_makes_no_image_is_refused_with_the_reason(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = tmp_path / "catalogue.toml"
    rows = {"good": MODELS / "shapes-sdxl", "bad": damaged}
    catalogue.write_text(
        'default_model = "good"\n'
        + "".join(f'[[models]]\nid = "{id}"\nfamily = "sdxl"\nsource = "{path}"\n' for id, path in rows.items()),
        encoding="utf-8",
    )
    monkeypatch.setenv("DARKROOM_CATALOGUE", str(catalogue))
    monkeypatch.setenv("DARKROOM_WORKER_DEVICE", "cpu")
    main(["--model", "good"])
    assert "good: loaded, and made an image" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["--model", "bad"])
    message = "bad makes no image: the model's output contains NaN or infinite values: its weights may be damaged"
    assert message in str(stopped.value.code)


def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DARKROOM_WORKER_DEVICE", "cuda:99")
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert str(stopped.value.code).startswith("darkroom: DARKROOM_WORKER_DEVICE=cuda:99 ")
    assert "\n" not in str(stopped.value.code)
    assert capsys.readouterr().out == ""


def test_models_of_every_task_are_tried_with_the_pictures_that_they_need(
    tools_pool: Pool, flux_tools: Catalogue
) -> None:
    tried = [row for row in flux_tools.models if Task.TXT2IMG not in row.tasks or row.family_spec.required_fields]
    assert {task for row in tried for task in row.tasks[:1]} >= {Task.INPAINT}
    needs = {(*row.tasks[:1], *sorted(row.family_spec.required_fields)): row for row in tried}
    for row in tried if ALL else needs.values():
        try_model(tools_pool, row.id)


def test_a_model_that_only_edits_is_warmed_up_too(tools_pool: Pool, flux_tools: Catalogue) -> None:
    """A worker that compiles would end at its start."""
    row = next(row for row in flux_tools.models if row.tasks == [Task.EDIT])
    warm_up(tools_pool, row.id)


def test_a_model_of_which_a_file_is_missing_is_named(tmp_path: Path, catalogue: Catalogue) -> None:
    folder = tmp_path / "half"
    shutil.copytree(MODELS / "shapes-sdxl", folder, ignore=shutil.ignore_patterns("unet"))
    row = catalogue.model("shapes-sdxl").model_copy(update={"source": str(folder)})
    pool = Pool(catalogue.model_copy(update={"models": (row,)}), device="cpu")
    with pytest.raises(JobFailed, match="it has no folder unet"):
        try_model(pool, "shapes-sdxl")
