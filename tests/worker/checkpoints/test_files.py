"""Content hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from contracts.hub.cache import RepositoryCache
from contracts.hub.client import HubFile
from worker.checkpoints.files import ContentHasher


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    for name, data in {
        "model_index.json": b"{}",
        "unet/config.json": b"{}",
        "unet/model.safetensors": b"weights",
        "unet/model.fp16.safetensors": b"half weights",
        "README.md": b"words",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_a_files_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"weights")
    assert ContentHasher().hash(tmp_path / "a.safetensors") == hashlib.sha256(b"weights").hexdigest()


def test_a_copied_folder_has_the_same_hash(checkpoint: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    assert ContentHasher().hash(copy) == ContentHasher().hash(checkpoint)


@pytest.mark.parametrize("name", ["unet/model.safetensors", "unet/config.json", "model_index.json"])
def test_a_folders_hash_changes_with_whatever_shapes_its_output(checkpoint: Path, name: str) -> None:
    hasher = ContentHasher()
    before = hasher.hash(checkpoint)
    (checkpoint / name).write_bytes(b"something else")
    assert hasher.hash(checkpoint) != before


def test_a_folders_hash_does_not_change_with_its_readme(checkpoint: Path) -> None:
    before = ContentHasher().hash(checkpoint)
    (checkpoint / "README.md").write_bytes(b"other words")
    assert ContentHasher().hash(checkpoint) == before


def test_only_the_chosen_variants_weights_count(checkpoint: Path) -> None:
    before = ContentHasher().hash(checkpoint, "fp16")
    (checkpoint / "unet" / "model.safetensors").write_bytes(b"other")
    assert ContentHasher().hash(checkpoint, "fp16") == before
    (checkpoint / "unet" / "model.fp16.safetensors").write_bytes(b"other")
    assert ContentHasher().hash(checkpoint, "fp16") != before


def test_an_unchanged_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"weights")
    hasher = ContentHasher()
    first = hasher.hash(path)
    status = path.stat()
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hasher.hash(path) == first
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert hasher.hash(path) == hashlib.sha256(b"WEIGHTS").hexdigest()


def test_a_blob_of_the_hubs_cache_is_known_by_its_name_only_once_that_was_verified(tmp_path: Path) -> None:
    cache, name = RepositoryCache(tmp_path, "org/name"), "ab" * 32
    blob, file = cache.blob(name), HubFile(8, "0" * 40, name)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"weights!")
    cache.link("1" * 40, "model.safetensors", file)
    link = cache.snapshot("1" * 40) / "model.safetensors"
    assert ContentHasher().hash(link) == hashlib.sha256(b"weights!").hexdigest()
    cache.mark_verified(name)
    assert ContentHasher().hash(link) == name
    blob.write_bytes(b"WEIGHTS!")
    os.utime(blob, ns=(0, 1))
    assert ContentHasher().hash(link) == hashlib.sha256(b"WEIGHTS!").hexdigest()


def test_what_other_rows_left_in_a_snapshot_does_not_count(checkpoint: Path) -> None:
    (checkpoint / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    (checkpoint / "unet" / "model.safetensors").rename(weights)
    before = ContentHasher().hash(checkpoint)
    for name in ("unet/diffusion_pytorch_model.fp16.safetensors", "whole.safetensors", "vae_1_0/config.json"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).write_bytes(b"of another row")
    assert ContentHasher().hash(checkpoint) == before
    weights.write_bytes(b"other weights")
    assert ContentHasher().hash(checkpoint) != before


def test_what_a_single_file_takes_from_its_configuration_counts(tmp_path: Path) -> None:
    file, encoder = tmp_path / "a.safetensors", tmp_path / "text_encoder" / "model.safetensors"
    encoder.parent.mkdir()
    file.write_bytes(b"denoiser")
    hashes = {ContentHasher().hash(file)}
    for content in (b"an encoder", b"another one"):
        encoder.write_bytes(content)
        hashes.add(ContentHasher().hash(file, beside=[encoder]))
    assert len(hashes) == 3
