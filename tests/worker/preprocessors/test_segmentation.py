"""Segmentations: the classes that transformers finds, in the colors of ADE20K."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.weights.preprocessor_models import read_preprocessor
from tests.support.combinations import ALL
from tests.support.preprocessor_models import PreprocessorFolders, photo
from worker.preprocessors.depth import prepare
from worker.preprocessors.loading import Prepared, load_model, load_processor
from worker.preprocessors.maps import ControlMap
from worker.preprocessors.segmentation import COLORS, class_map

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["segformer", "upernet", *["upernet on swin"] * ALL])
def test_the_classes_are_those_that_transformers_finds(name: str, folders: PreprocessorFolders) -> None:
    folder, image = folders.find(name), photo()
    model, processor = load_model(folder, read_preprocessor(folder, "segmentation"), CPU), load_processor(folder)
    given = prepare(processor, image)
    with torch.inference_mode():
        (expected,) = processor.post_process_semantic_segmentation(model(**given), [image.size[::-1]])
    found = class_map(Prepared(model, processor, given, image.size, {}))
    assert len(np.unique(found)) > 3
    assert np.array_equal(found, expected)

    control = ControlMap(folder, "segmentation", image, {})
    control.load(CPU)
    assert np.array_equal(np.asarray(control.make()), COLORS[expected])


def test_each_class_has_the_color_that_controlnets_know() -> None:
    assert COLORS.shape == (150, 3)
    wall, building, sky, person, flag = (COLORS[number].tolist() for number in (0, 1, 2, 12, 149))
    assert (wall, building, sky) == ([120, 120, 120], [180, 120, 120], [6, 230, 230])
    assert (person, flag) == ([150, 5, 61], [92, 0, 255])
