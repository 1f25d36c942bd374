"""Trains the small eraser: LaMa with few features, on scenes whose shape is masked. Writes models/erasers/.

It needs the package spandrel, which has the architecture. Minutes, so that it keeps no checkpoints.
"""

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import save_file
from torch import Tensor

from models.training.data.captions import draw_scene
from models.training.data.drawing import EDGE_PIXELS, PALETTE, render, render_silhouette
from worker.checkpoints.networks import build_lama

_FEATURES, _BLOCKS = 8, 2
_STEPS, _BATCH, _RATE = 1500, 16, 2e-3
_FOLDER = Path(__file__).resolve().parents[2] / "erasers"


def draw_erasures(count: int, rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """Scenes (count, 3, 64, 64) of 0…1, masks (count, 1, 64, 64) over their shapes, and what is behind these."""
    scenes, masks, wanted = [], [], []
    for _ in range(count):
        scene = draw_scene(rng)
        ground = Image.new("RGB", (EDGE_PIXELS, EDGE_PIXELS), PALETTE[scene.background])
        silhouette = render_silhouette(scene).convert("L").filter(ImageFilter.MaxFilter(rng.choice((5, 7, 9))))
        mask = silhouette.point(lambda value: 255 * (value > 0))
        if rng.random() < 0.5:  # the box around it, as people select
            box = mask.getbbox()
            if box is not None:
                ImageDraw.Draw(mask).rectangle(box, fill=255)
        scenes.append(np.asarray(render(scene)))
        masks.append(np.asarray(mask)[..., None])
        wanted.append(np.asarray(ground))
    images = (torch.from_numpy(np.stack(one)).permute(0, 3, 1, 2).float() / 255 for one in (scenes, masks, wanted))
    return tuple(images)  # type: ignore[return-value]


def train() -> None:
    """Train, say how far the result is off, and write the file."""
    torch.manual_seed(0)
    network = build_lama(_FEATURES, _BLOCKS).train()
    scenes, masks, wanted = draw_erasures(1024, random.Random(0))
    optimizer = torch.optim.Adam(network.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        chosen = torch.randint(0, len(scenes), (_BATCH,))
        made = network(scenes[chosen], masks[chosen])
        loss = ((made - wanted[chosen]).abs() * masks[chosen]).sum() / masks[chosen].sum() / 3
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    scenes, masks, wanted = draw_erasures(64, random.Random(1))
    with torch.no_grad():
        off = (network(scenes, masks) - wanted).abs() * masks
    print(f"{float(off.sum() / masks.sum() / 3 * 255):.1f} levels of 255 off inside the masks")
    _FOLDER.mkdir(exist_ok=True)
    weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
    save_file(weights, _FOLDER / "shapes-lama.safetensors")
