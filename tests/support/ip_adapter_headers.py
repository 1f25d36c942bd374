"""IP-Adapter files of a few values, all zeros, for tests that read headers only; needs no torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path

Shapes = dict[str, tuple[int, ...]]

LAYERS: Shapes = {f"ip_adapter.{number}.to_{half}_ip.weight": (8, 6) for number in (1, 3) for half in "kv"}
PLAIN: Shapes = {
    "image_proj.proj.weight": (24, 10), "image_proj.proj.bias": (24,),
    "image_proj.norm.weight": (6,), "image_proj.norm.bias": (6,), **LAYERS,
}  # fmt: skip
PLUS: Shapes = {
    "image_proj.latents": (1, 16, 5), "image_proj.proj_in.weight": (5, 12), "image_proj.proj_out.weight": (6, 5),
    **LAYERS,
}  # fmt: skip
FULL: Shapes = {
    "image_proj.proj.0.weight": (12, 12), "image_proj.proj.2.weight": (6, 12), "image_proj.proj.3.weight": (6,),
    **LAYERS,
}  # fmt: skip
REDUX: Shapes = {
    "redux_up.weight": (18, 12), "redux_up.bias": (18,), "redux_down.weight": (6, 18), "redux_down.bias": (6,),
}  # fmt: skip


def write_file(path: Path, shapes: Shapes) -> Path:
    """Write a file with tensors of these shapes, all zeros."""
    entries, offset = {}, 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        entries[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))
    return path
