"""The shipped upscaler makes drawings larger, and better than interpolation does."""

from __future__ import annotations

import random

import torch
from torch.nn import functional

from contracts.catalogue.reader import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.networks import check_network_row, read_upscaler
from models.training.stages.upscaler import SCALE, draw_pairs, psnr
from worker.checkpoints.networks import load_network


def test_the_upscaler_is_closer_to_the_drawing_than_bicubic_interpolation() -> None:
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    row = catalogue.upscaler("shapes-upscaler")
    file = catalogue.root / row.source
    check_network_row(row, file)
    network = load_network(file, torch.device("cpu"), (read_upscaler(file).architecture,))
    small, large = draw_pairs(16, random.Random(7))
    with torch.no_grad():
        made = network(small)
    bicubic = functional.interpolate(small, scale_factor=SCALE, mode="bicubic")
    assert psnr(made, large) > psnr(bicubic, large) + 3
