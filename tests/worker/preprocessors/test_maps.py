"""Control images of models: none takes more memory than was planned, and what is transparent is white."""

from __future__ import annotations

import pytest
import torch

from contracts.catalogue.rows.networks import MapKind
from contracts.memory.sizes.networks import SCRATCH_BYTES
from tests.support.combinations import ALL
from tests.support.preprocessor_models import PreprocessorFolders, photo
from worker.preprocessors.maps import ControlMap, on_white
from worker.runtime.memory_tracker import MemoryTracker

CPU = torch.device("cpu")
MODELS: list[tuple[MapKind, str]] = [
    ("depth", "dpt"),
    ("segmentation", "segformer"),
    ("segmentation", "upernet"),
    ("segmentation", "upernet on swin"),
    ("pose", "vitpose"),
]


@pytest.mark.parametrize(("kind", "name"), MODELS if ALL else [MODELS[2], MODELS[4]])
def test_a_model_takes_no_more_memory_than_was_planned(
    kind: MapKind, name: str, folders: PreprocessorFolders
) -> None:
    control, tracker = (
        ControlMap(folders.find(name), kind, photo((512, 256)), {"confidence": 0.3}),
        MemoryTracker(CPU, 2**40),
    )
    control.load(CPU)
    with tracker.running(0):
        control.make()
    assert tracker.peak_bytes is not None
    assert control.planned_bytes / 4 < tracker.peak_bytes + SCRATCH_BYTES < control.planned_bytes * 1.05


def test_what_is_transparent_is_white_before_the_model_sees_it() -> None:
    image = photo()
    image.putalpha(0)
    assert on_white(image, (30, 20)).getextrema() == ((255, 255),) * 3
