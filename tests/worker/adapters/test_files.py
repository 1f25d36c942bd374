"""LoRA files: fetched from the storage once, checked by hash, evicted least recently used."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.requests.entry_parameters import LoraParameters
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.adapters import generate_with_lora, make_short_job, own_adapters
from tests.support.jobs import complete_job, decode_pixels, fail_job, make_job
from tests.support.weights import write_adapter
from worker.adapters.files import Limits, LoraFiles
from worker.pool.pool import Pool


def _upload(storage: Storage, file: Path, name: str = "mine") -> LoraParameters:
    """Store a file as the API stores an upload."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    key = f"inputs/{sha256}.0a1b2c3d.safetensors"
    storage.write_file(key, file)
    return LoraParameters(name=name, key=key, sha256=sha256, values=1)


@pytest.fixture
def uploads(catalogue: Catalogue, storage: Storage, tmp_path: Path) -> list[LoraParameters]:
    """Three adapters of the same size in the storage."""
    loras = []
    for seed in range(3):
        path = tmp_path / f"{seed}.safetensors"
        write_adapter(path, "sdxl", catalogue.root / "shapes-sdxl", seed=seed)
        loras.append(_upload(storage, path))
    return loras


def _with(lora: LoraParameters, catalogue: Catalogue) -> JobParameters:
    return make_short_job(catalogue, "sdxl").model_copy(update={"loras": (lora,)})


def test_an_uploaded_adapter_has_the_same_effect_as_one_of_the_catalogue(
    catalogue: Catalogue, pool: Pool, storage: Storage, tmp_path: Path
) -> None:
    file = Path(catalogue.lora("sdxl-lora").source)
    lora = _upload(storage, file)
    own = generate_with_lora(pool, storage, "sdxl", "sdxl-lora")
    with own_adapters(pool, "sdxl", LoraFiles(catalogue, storage, tmp_path / "loras")):
        files, receipt = complete_job(_with(lora, catalogue), pool, storage)
    assert (decode_pixels(files[0]) == own).all()
    assert [(one.id, one.sha256) for one in receipt.loras] == [("mine", lora.sha256)]


def test_two_files_with_the_same_name_are_two_adapters(
    catalogue: Catalogue, pool: Pool, storage: Storage, uploads: list[LoraParameters], tmp_path: Path
) -> None:
    """Each owner has names of its own, and may use one again for another file."""
    with own_adapters(pool, "sdxl", LoraFiles(catalogue, storage, tmp_path / "loras")):
        first, second = (complete_job(_with(lora, catalogue), pool, storage)[0] for lora in uploads[:2])
        assert first != second
        assert complete_job(_with(uploads[0], catalogue), pool, storage)[0] == first


def test_a_file_is_fetched_once(
    catalogue: Catalogue, storage: Storage, uploads: list[LoraParameters], tmp_path: Path
) -> None:
    lora_files = LoraFiles(catalogue, storage, tmp_path / "loras")
    path = lora_files.locate(uploads[0])
    storage.clear("inputs/")
    assert lora_files.locate(uploads[0]) == path
    assert lora_files.fingerprint(path) == uploads[0].sha256
    assert [file.name for file in (tmp_path / "loras").iterdir()] == [path.name]


def test_files_are_evicted_least_recently_used_first(
    catalogue: Catalogue, storage: Storage, uploads: list[LoraParameters], tmp_path: Path
) -> None:
    size = len(storage.read(uploads[0].key or ""))
    lora_files = LoraFiles(catalogue, storage, tmp_path / "loras", Limits(file_bytes=2 * size))
    first, second = lora_files.locate(uploads[0]), lora_files.locate(uploads[1])
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    lora_files.locate(uploads[0])  # used again: the other is the oldest now
    lora_files.locate(uploads[2])
    assert first.exists()
    assert not second.exists()


def test_a_missing_or_damaged_file_fails_its_job_but_not_the_next(
    catalogue: Catalogue, pool: Pool, storage: Storage, uploads: list[LoraParameters], tmp_path: Path
) -> None:
    gone, damaged, whole = uploads
    storage.delete(gone.key or "")
    storage.write(damaged.key or "", b"something else")
    with own_adapters(pool, "sdxl", LoraFiles(catalogue, storage, tmp_path / "loras")):
        for lora, code, reason in (
            (gone, FailureCode.LORA_MISSING, "no longer stored"),
            (damaged, FailureCode.LORA_DAMAGED, "damaged"),
        ):
            error = fail_job(_with(lora, catalogue), pool, storage)
            assert (error.code, error.retryable) == (code, False)
            assert reason in error.message
        complete_job(_with(whole, catalogue), pool, storage)
    assert len(list((tmp_path / "loras").iterdir())) == 1


def test_a_fetched_file_that_the_disk_has_damaged_is_fetched_again(
    catalogue: Catalogue, storage: Storage, uploads: list[LoraParameters], tmp_path: Path
) -> None:
    lora_files = LoraFiles(catalogue, storage, tmp_path / "loras")
    path = lora_files.locate(uploads[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert lora_files.locate(uploads[0]) == path
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"", b"x" * 1000, None])
def test_a_damaged_file_of_the_catalogue_is_called_damaged(
    catalogue: Catalogue, pool: Pool, tmp_path: Path, content: bytes | None
) -> None:
    row, file = catalogue.lora("sdxl-lora"), tmp_path / "lora.safetensors"
    file.write_bytes((catalogue.root / row.source).read_bytes()[:-100] if content is None else content)
    damaged = catalogue.model_copy(update={"loras": (row.model_copy(update={"source": str(file)}),)})
    with own_adapters(pool, "sdxl", LoraFiles(damaged)) as adapters, pytest.raises(JobFailed) as failure:
        adapters.load([LoraParameters(name=row.id, scale=1.0)])
    assert failure.value.code is FailureCode.LORA_DAMAGED


@pytest.mark.parametrize("is_row_removed", [True, False])
def test_a_lora_of_the_catalogue_that_is_removed_while_its_job_waits_fails_the_job_only(
    catalogue: Catalogue, pool: Pool, storage: Storage, tmp_path: Path, is_row_removed: bool
) -> None:
    job = make_job(catalogue, "sdxl", loras=[{"name": "sdxl-lora"}])
    others = tuple(row for row in catalogue.loras if row.id != "sdxl-lora")
    gone = catalogue.lora("sdxl-lora").model_copy(update={"source": str(tmp_path / "gone.safetensors")})
    later = catalogue.model_copy(update={"loras": others if is_row_removed else (*others, gone)})
    with own_adapters(pool, "sdxl", LoraFiles(later)):
        error = fail_job(job, pool, storage)
        assert (error.code, error.retryable) == (FailureCode.LORA_MISSING, False)
        assert "sdxl-lora" in error.message
        complete_job(make_short_job(catalogue, "sdxl"), pool, storage)


def test_a_controlnet_that_is_removed_while_its_job_waits_fails_the_job_only(
    catalogue: Catalogue, storage: Storage
) -> None:
    job = make_job(catalogue, "sdxl", Mode.CONTROLNET)
    pool = Pool(catalogue.model_copy(update={"controlnets": ()}), device="cpu")
    error = fail_job(job, pool, storage)
    assert error.code == FailureCode.MODEL_LOAD_FAILED
    complete_job(make_short_job(catalogue, "sdxl"), pool, storage)
