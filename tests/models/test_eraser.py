"""The shipped eraser removes drawn shapes, and leaves the rest exactly as it is."""

from __future__ import annotations

import random

import torch

from contracts.catalogue.reader import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from models.training.stages.eraser import draw_erasures
from worker.checkpoints.networks import load_network


def test_the_eraser_fills_a_shape_with_its_background_and_changes_nothing_else() -> None:
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    file = catalogue.root / catalogue.eraser("shapes-eraser").source
    network = load_network(file, torch.device("cpu"), ("LaMa",))
    scenes, masks, wanted = draw_erasures(16, random.Random(7))
    with torch.no_grad():
        made = network(scenes, masks)
    levels = ((made - wanted).abs() * masks).sum() / masks.sum() / 3 * 255
    assert float(levels) < 5
    assert torch.equal(made * (1 - masks), scenes * (1 - masks))
