"""FLUX.1, Chroma and Lumina-Image 2.0 at full width, one block of each kind, as published GGUF files have them.

Here, since diffusers converts these layouts at the widths of 3072 and 2304 only: a file has 100 to 300 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.weights.counts.parameter_counts import count_files
from contracts.weights.formats.gguf import KINDS
from tests.support.gguf_headers import entry, header
from tests.support.released_layouts import released
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
#: Family -> its small checkpoint, the class of the transformer, and what of its configuration is wide.
_WIDE: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "flux": (
        "shapes-flux",
        diffusers.FluxTransformer2DModel,
        {
            "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 128, "num_attention_heads": 24,
            "joint_attention_dim": 4096, "pooled_projection_dim": 768, "axes_dims_rope": [16, 56, 56],
            "in_channels": 64, "guidance_embeds": True,
        },
    ),
    "chroma": (
        "tiny-chroma",
        diffusers.ChromaTransformer2DModel,
        {
            "attention_head_dim": 128, "num_attention_heads": 24, "joint_attention_dim": 4096,
            "axes_dims_rope": [16, 56, 56], "approximator_num_channels": 64, "approximator_hidden_dim": 5120,
        },
    ),
    "lumina2": (
        "tiny-lumina2",
        diffusers.Lumina2Transformer2DModel,
        {
            "hidden_size": 2304, "num_layers": 1, "num_attention_heads": 24, "num_kv_heads": 8,
            "axes_dim_rope": [32, 32, 32], "cap_feat_dim": 2304, "ffn_dim_multiplier": 0.1, "multiple_of": 256,
        },
    ),
}  # fmt: skip


def _shapes_of(family: str, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of the release."""
    if family == "flux":
        return dict(_flux_shapes())
    with torch.device("meta"):
        transformer = _WIDE[family][1].from_config(config)
    return {name: tuple(tensor.shape) for name, tensor in released(family, transformer.state_dict()).items()}


def _flux_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
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
    return "F16" if shape[-1] % 256 else "Q5_K" if "linear2" in name else "Q4_K"


def _write(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Random bytes in every tensor."""
    entries, end = [], 0
    for name, shape in shapes.items():
        kind = _kind(name, shape)
        _, block_values, block_bytes, _ = KINDS[_NUMBERS[kind]]
        entries.append(entry(name, shape[::-1], _NUMBERS[kind], end))
        size = int(np.prod(shape)) // block_values * block_bytes
        end += -(-size // 32) * 32
    values = np.random.default_rng(0).standard_normal(end // 4, dtype=np.float32)
    file.write_bytes(header(entries) + values.tobytes())


def _write_config(folder: Path, source: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """The small checkpoint's folder with the configuration of a wide transformer, which is returned."""
    (folder / "transformer").mkdir(parents=True)
    for part in source.iterdir():
        if part.name != "transformer":
            (folder / part.name).symlink_to(part)
    config: dict[str, Any] = json.loads((source / "transformer" / "config.json").read_text(encoding="utf-8"))
    config |= changes
    (folder / "transformer" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return config


@pytest.mark.parametrize("family", _WIDE)
def test_a_published_layout_is_taken_apart_as_diffusers_does_and_takes_the_planned_bytes(
    family: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    file, folder = tmp_path / f"{family}-Q4_K_S.gguf", tmp_path / "config"
    model, transformer_class, changes = _WIDE[family]
    source = (catalogue.root / catalogue.model(model).source).resolve()
    _write(file, _shapes_of(family, _write_config(folder, source, changes)))
    others = ("text_encoder", "text_encoder_2", "vae")
    ours = load_file_components(SingleFile(file), get_family(family), folder, torch.bfloat16, None, others)
    theirs = transformer_class.from_single_file(
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
    planned = count.values * 2 + count.packed.bytes
    # Lumina-Image's file has a norm that no layer takes.
    assert 0 <= planned - sum(tensor.nbytes for tensor in loaded.values()) <= 8 * 2


def _bytes(tensor: Any) -> torch.Tensor:
    plain: torch.Tensor = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    return plain.contiguous().view(torch.uint8)
