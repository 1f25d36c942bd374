"""Checkpoints and LoRAs whose folders or files are symbolic links are what the links lead to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.hub.repository_files import RepositoryFiles, weights_below
from contracts.memory.sizes.extras import size_adapter
from contracts.memory.sizes.models import read_components
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.schema import Txt2ImgRequest
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.storage import Storage
from contracts.weights.row_files import check_row_files
from tests.support.jobs import complete_job
from worker.checkpoints.files import ContentHasher
from worker.pool.pool import Pool

MODELS = BUILT_IN_CATALOGUE.parent


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A FLUX.1 checkpoint with a T5 that it shares with others: a link to its folder."""
    folder, original = tmp_path / "linked", MODELS / "shapes-flux"
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns("text_encoder_2"))
    (folder / "text_encoder_2").symlink_to(original / "text_encoder_2")
    return folder


def test_a_checkpoint_of_linked_folders_has_the_same_files_sizes_and_hash(linked: Path) -> None:
    original = MODELS / "shapes-flux"
    assert set(RepositoryFiles.in_folder(linked).names) == set(RepositoryFiles.in_folder(original).names)
    hasher = ContentHasher()
    assert hasher.hash(linked) == hasher.hash(original)
    rows = [ModelSpec(id="one", family="flux", source=str(path)) for path in (linked, original)]
    catalogue = Catalogue(default_model="one", models=(rows[0],), root=linked.parent)
    check_row_files(catalogue, rows[0])
    first, second = (read_components(catalogue, row, 4) for row in rows)
    assert first == second


def test_a_job_of_a_checkpoint_of_linked_folders_completes_with_its_t5(linked: Path, storage: Storage) -> None:
    row = ModelSpec(id="one", family="flux", source=str(linked))
    pool = Pool(Catalogue(default_model="one", models=(row,), root=linked.parent), device="cpu")
    pool.rehearse("one")
    size = {"width": 64, "height": 64}
    request = Txt2ImgRequest(model="one", prompt="a red circle", seed=1, num_inference_steps=2, **size)
    job = resolve(request, check(request, pool.catalogue), {})
    _, receipt = complete_job(job, pool, storage)
    assert "text_encoder_2" in receipt.placement


def test_links_that_lead_back_end_and_linked_loras_are_found(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "deep" / "a.safetensors").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "part").symlink_to(tmp_path / "real")
    (tmp_path / "folder" / "up").symlink_to(tmp_path / "folder")
    (tmp_path / "real" / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "folder" / "gone").symlink_to(tmp_path / "nowhere")
    found = weights_below(tmp_path / "folder")
    assert tmp_path / "folder" / "part" / "deep" / "a.safetensors" in found
    assert len(found) < 20


def test_a_lora_in_a_linked_folder_is_sized(tmp_path: Path) -> None:
    file = sorted((MODELS / "loras").glob("*.safetensors"))[0]
    for name in ("real", "one"):
        (tmp_path / name).mkdir()
    (tmp_path / "real" / "l.safetensors").symlink_to(file)
    (tmp_path / "one" / "weights").symlink_to(tmp_path / "real")
    row = LoraSpec(id="l", family="sdxl", source=str(tmp_path / "one"))
    catalogue = Catalogue(
        default_model="m",
        models=(ModelSpec(id="m", family="sdxl", source=str(MODELS / "shapes-sdxl")),),
        loras=(row,),
        root=tmp_path,
    )
    size = size_adapter(catalogue, "l", 4)
    assert size is not None
    assert size.bytes > 0
