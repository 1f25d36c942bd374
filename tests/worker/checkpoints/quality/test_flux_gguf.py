"""FLUX.1 at its full width, one block of each kind, in the layout of published GGUF files.

Here, since diffusers converts that layout at the width of 3072 only: the file has 300 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from contracts.catalogue.reader import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.counts.parameter_counts import count_files
from contracts.weights.formats.gguf import KINDS
from tests.support.gguf_headers import entry, header
from worker.checkpoints.one_file.original_layout import load_file_components
from worker.checkpoints.one_file.single_file import SingleFile
from worker.families import get_family

WIDTH = 3072
#: Layer -> its outputs and inputs.
_LAYERS = {
    "img_in": (WIDTH, 64), "txt_in": (WIDTH, 4096), "vector_in.in_layer": (WIDTH, 768),
    "vector_in.out_layer": (WIDTH, WIDTH), "time_in.in_layer": (WIDTH, 256), "time_in.out_layer": (WIDTH, WIDTH),
    "guidance_in.in_layer": (WIDTH, 256), "guidance_in.out_layer": (WIDTH, WIDTH),
    "single_blocks.0.linear1": (7 * WIDTH, WIDTH), "single_blocks.0.linear2": (WIDTH, 5 * WIDTH),
    "single_blocks.0.modulation.lin": (3 * WIDTH, WIDTH), "final_layer.linear": (64, WIDTH),
    "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH),
}  # fmt: skip
_DOUBLE = {
    "mod.lin": (6 * WIDTH, WIDTH), "attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH),
    "mlp.0": (4 * WIDTH, WIDTH), "mlp.2": (WIDTH, 4 * WIDTH),
}  # fmt: skip
_NUMBERS = {kind: number for number, (kind, *_) in KINDS.items()}


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    streams = {
        f"double_blocks.0.{side}_{name}": shape for side in ("img", "txt") for name, shape in _DOUBLE.items()
    }
    for name, shape in {**_LAYERS, **streams}.items():
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[:1]
    for block in ("double_blocks.0.img_attn", "double_blocks.0.txt_attn", "single_blocks.0"):
        yield f"{block}.norm.query_norm.scale", (128,)
        yield f"{block}.norm.key_norm.scale", (128,)


def _kind(name: str, shape: tuple[int, ...]) -> str:
    """As in a Q4_K_S file: a mixture, with what is small in float32."""
    if len(shape) == 1:
        return "F32"
    return "F16" if name.startswith("img_in") else "Q5_K" if "linear2" in name else "Q4_K"


def _write(file: Path) -> None:
    """Random bytes in every tensor."""
    entries, end = [], 0
    for name, shape in _shapes():
        kind = _kind(name, shape)
        _, block_values, block_bytes, _ = KINDS[_NUMBERS[kind]]
        entries.append(entry(name, shape[::-1], _NUMBERS[kind], end))
        size = int(np.prod(shape)) // block_values * block_bytes
        end += -(-size // 32) * 32
    values = np.random.default_rng(0).standard_normal(end // 4, dtype=np.float32)
    file.write_bytes(header(entries) + values.tobytes())


def _write_config(folder: Path, source: Path) -> None:
    """The small FLUX.1's folder with the configuration of a wide transformer."""
    (folder / "transformer").mkdir(parents=True)
    for part in source.iterdir():
        if part.name != "transformer":
            (folder / part.name).symlink_to(part)
    config: dict[str, Any] = json.loads((source / "transformer" / "config.json").read_text(encoding="utf-8"))
    config |= {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 128, "num_attention_heads": 24}
    config |= {"joint_attention_dim": 4096, "pooled_projection_dim": 768, "axes_dims_rope": [16, 56, 56]}
    config |= {"in_channels": 64, "guidance_embeds": True}
    (folder / "transformer" / "config.json").write_text(json.dumps(config), encoding="utf-8")


def test_a_published_layout_is_taken_apart_as_diffusers_does_and_takes_the_planned_bytes(tmp_path: Path) -> None:
    file, folder = tmp_path / "flux1-Q4_K_S.gguf", tmp_path / "config"
    source = read_catalogue(BUILT_IN_CATALOGUE).root / "shapes-flux"
    _write(file)
    _write_config(folder, source.resolve())
    others = ("text_encoder", "text_encoder_2", "vae")
    ours = load_file_components(SingleFile(file), get_family("flux"), folder, torch.bfloat16, None, others)
    theirs = diffusers.FluxTransformer2DModel.from_single_file(
        str(file),
        quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=torch.bfloat16),
        config=str(folder),
        subfolder="transformer",
        dtype=torch.bfloat16,
    )
    loaded, expected = ours["transformer"].state_dict(), theirs.state_dict()
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert getattr(loaded[name], "quant_type", None) == getattr(tensor, "quant_type", None), name
        assert torch.equal(_bytes(loaded[name]), _bytes(tensor)), name
    count = count_files([file])
    tensors = (*ours["transformer"].parameters(), *ours["transformer"].buffers())
    assert count.values * 2 + count.packed.bytes == sum(tensor.nbytes for tensor in tensors)


def _bytes(tensor: Any) -> torch.Tensor:
    plain: torch.Tensor = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    return plain.contiguous().view(torch.uint8)
