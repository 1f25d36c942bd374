"""The configurations of a checkpoint that is prompted by a class, without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_checkpoint(folder: Path, **index: Any) -> None:
    """Write those of a DiT of 512 pixels; `index` are further entries of its `model_index.json`."""
    files = {
        "model_index.json": {
            "_class_name": "DiTPipeline",
            "transformer": ["diffusers", "Transformer2DModel"],
            **index,
        },
        "transformer/config.json": {"_class_name": "Transformer2DModel", "sample_size": 64},
        "vae/config.json": {"block_out_channels": [128, 256, 512, 512]},
        "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler"},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
