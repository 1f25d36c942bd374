"""Textual inversions by their headers: layouts, families, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.errors import AdapterRefused
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.adapters.inversion_files import InversionFacts, read_inversion
from contracts.weights.adapters.inversion_models import find_family
from tests.support.trained import only_trained_families

Arrays = dict[str, npt.NDArray[np.float32]]


def _vectors(count: int = 1, width: int = 64) -> npt.NDArray[np.float32]:
    return np.ones((count, width), np.float32)


def _read(folder: Path, arrays: Arrays) -> InversionFacts:
    save_file(arrays, folder / "one.safetensors")
    return read_inversion(folder / "one.safetensors")


@pytest.mark.parametrize(
    ("arrays", "vectors", "parts", "word"),
    [
        ({"emb_params": _vectors(3)}, 3, ["clip_l"], ""),
        ({"clip_l": _vectors(), "clip_g": _vectors()}, 1, ["clip_l", "clip_g"], ""),
        ({"clip_l": _vectors(2)}, 2, ["clip_l"], ""),
        ({"<cat-toy>": np.ones(64, np.float32)}, 1, ["clip_l"], "cat-toy"),
        ({"midjourney_style": _vectors(75)}, 75, ["clip_l"], "midjourney_style"),
    ],
)
def test_known_layouts_are_described(
    arrays: Arrays, vectors: int, parts: list[str], word: str, tmp_path: Path
) -> None:
    facts = _read(tmp_path, arrays)
    assert (facts.vectors, list(facts.widths), facts.word) == (vectors, parts, word)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"string_to_param": _vectors()}, "part of a .pt file .* save its vectors with safetensors"),
        ({"string_to_param.*": _vectors()}, "part of a .pt file"),
        ({"clip_g": _vectors()}, "none for clip_l; SDXL needs both"),
        ({"clip_l": _vectors(2), "clip_g": _vectors(3)}, "equally many vectors: clip_l has 2, clip_g has 3"),
        ({"clip_l": _vectors(), "t5": _vectors()}, r"vectors for T5 \(t5\)"),
        ({"a": _vectors(), "b": _vectors()}, r"it has 2 \(a, b\)"),
        ({"emb_params": _vectors(76)}, "has 76 vectors"),
        ({"emb_params": np.ones((1, 1, 64), np.float32)}, "must be a matrix"),
        ({"emb_params": np.ones((1, 64), np.int32)}, "floating point, got I32"),
        ({"unet.to_q.lora_A.weight": _vectors()}, "cannot be a word of a prompt"),
    ],
)
def test_a_file_that_no_encoder_can_read_is_refused_with_the_reason(
    arrays: Arrays, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        _read(tmp_path, arrays)


def test_a_pickle_is_never_opened_and_the_remedy_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.pt").write_bytes(b"PK\x03\x04" + b"0" * 64)
    with pytest.raises(AdapterRefused, match=r"a \.pt or \.bin file is never opened: save its vectors with"):
        read_inversion(tmp_path / "one.pt")


@pytest.fixture
def catalogue() -> Catalogue:
    return read_catalogue(BUILT_IN_CATALOGUE)


def test_a_pair_is_for_sdxl_and_vectors_of_clip_l_alone_for_the_family_whose_encoder_they_fit(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    assert find_family(_read(tmp_path, {"clip_l": _vectors(), "clip_g": _vectors()}), catalogue) == (
        "sdxl",
        ["shapes-sdxl"],
    )
    alone = _read(tmp_path, {"emb_params": _vectors()})
    assert find_family(alone, catalogue) == ("sd15", ["shapes-sd15"])
    assert find_family(alone, catalogue, "flux") == ("flux", ["shapes-flux", "shapes-kontext"])
    assert find_family(alone, only_trained_families(catalogue)) == ("flux", ["shapes-flux"])
    with pytest.raises(AdapterRefused, match="the catalogue has no model of family sd15"):
        find_family(alone, only_trained_families(catalogue), "sd15")


@pytest.mark.parametrize(
    ("arrays", "family", "reason"),
    [
        ({"emb_params": _vectors(width=768)}, None, "have 768 values, and shapes-sd15 reads vectors of 64"),
        ({"emb_params": _vectors()}, "sdxl", "it has vectors for clip_l; sdxl takes others"),
        (
            {"clip_l": _vectors(), "clip_g": _vectors(width=1280)},
            None,
            "64 and 1280 values, and shapes-sdxl reads",
        ),
    ],
)
def test_a_file_for_no_model_here_is_refused_with_the_widths(
    arrays: Arrays, family: str | None, reason: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        find_family(_read(tmp_path, arrays), catalogue, family)
