"""Trains the small upscaler: Compact, two times, on drawn scenes and their halves. Writes models/upscalers/.

Unlike the other stages it takes minutes, so that it keeps no checkpoints.
"""

import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from models.training.data.captions import draw_scene
from models.training.data.drawing import render

SCALE = 2
_FEATURES, _LAYERS = 16, 6
_STEPS, _BATCH, _RATE = 4000, 32, 3e-3
#: Side of the parts of halved scenes that it is trained on, and the least deviation of their values: in plain ones
#: there is nothing to learn.
_PART, _LEAST_DEVIATION = 12, 0.05
_FOLDER = Path(__file__).resolve().parents[2] / "upscalers"


class Compact(nn.Module):
    """`SRVGGNetCompact` of Real-ESRGAN (arXiv 2107.10833) with PReLU, by the names of its published files."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, _FEATURES, 3, padding=1), nn.PReLU(_FEATURES)]
        for _ in range(_LAYERS):
            layers += [nn.Conv2d(_FEATURES, _FEATURES, 3, padding=1), nn.PReLU(_FEATURES)]
        layers.append(nn.Conv2d(_FEATURES, 3 * SCALE**2, 3, padding=1))
        self.body = nn.ModuleList(layers)

    def forward(self, image: Tensor) -> Tensor:
        """Values (batch, 3, height, width) of 0…1 to twice the height and width."""
        made = image
        for layer in self.body:
            made = layer(made)
        enlarged = functional.interpolate(image, scale_factor=SCALE, mode="nearest")
        return functional.pixel_shuffle(made, SCALE) + enlarged


def draw_pairs(count: int, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Scenes (count, 3, 64, 64) of 0…1, and the same drawn at half the size."""
    scenes = [np.asarray(render(draw_scene(rng), rng)) for _ in range(count)]
    large = torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).float() / 255
    return functional.avg_pool2d(large, SCALE), large


def psnr(made: Tensor, wanted: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of values of 0…1."""
    return float(-10 * (made.clamp(0, 1) - wanted).pow(2).mean().log10())


def cut_parts(small: Tensor, large: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of pairs in which there is something to see."""

    def cut(images: Tensor, side: int) -> Tensor:
        parts = images.unfold(2, side, side).unfold(3, side, side)
        return parts.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, side, side)

    edge = small.shape[-1] // _PART * _PART
    given, wanted = (
        cut(small[..., :edge, :edge], _PART),
        cut(large[..., : edge * SCALE, : edge * SCALE], _PART * SCALE),
    )
    seen = given.flatten(1).std(1) > _LEAST_DEVIATION
    return given[seen], wanted[seen]


def train() -> None:
    """Train, compare with bicubic, and write the file."""
    torch.manual_seed(0)
    network = Compact()
    given, wanted = cut_parts(*draw_pairs(2048, random.Random(0)))
    optimizer = torch.optim.Adam(network.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        chosen = torch.randint(0, len(given), (_BATCH,))
        loss = (network(given[chosen]) - wanted[chosen]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    small, large = draw_pairs(64, random.Random(1))
    with torch.no_grad():
        made = network(small)
    bicubic = functional.interpolate(small, scale_factor=SCALE, mode="bicubic")
    print(f"{psnr(made, large):.1f} dB; bicubic {psnr(bicubic, large):.1f} dB")
    _FOLDER.mkdir(exist_ok=True)
    weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
    save_file(weights, _FOLDER / "shapes-compact-2x.safetensors", {"scale": str(SCALE)})
