"""GGUF files of families beside FLUX.1 and SD3, in their published layouts: bare diffusers' images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.memory.components import read_components
from contracts.storage import Storage
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.gguf_files import write_gguf
from tests.support.jobs import complete_job, decode_pixels, make_job
from worker.pool.pool import Pool

Tensors = dict[str, torch.Tensor]
SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 2}
#: diffusers' names of Z-Image's layers -> those of the release.
_RELEASED = {
    "all_final_layer.2-1.": "final_layer.", "all_x_embedder.2-1.": "x_embedder.", ".to_out.0.": ".out.",
    ".norm_k.": ".k_norm.", ".norm_q.": ".q_norm.",
}  # fmt: skip


def _as_released(tensors: Tensors) -> Tensors:
    """Z-Image's tensors as its release has them: queries, keys and values in one, and a norm of no use."""
    joined: Tensors = {"norm_final.weight": torch.ones(32)}
    for name, tensor in tensors.items():
        for own, released in _RELEASED.items():
            name = name.replace(own, released)
        part = re.fullmatch(r"(.*\.attention\.)to_([qkv])\.weight", name)
        if part is None:
            joined[name] = tensor
        elif part[2] == "q":
            base = name.removesuffix("to_q.weight")
            joined[f"{base}qkv.weight"] = torch.cat([tensors[f"{base}to_{one}.weight"] for one in "qkv"])
    return joined


@pytest.mark.parametrize(
    ("family", "class_name", "layout", "fields"),
    [
        ("qwen-image", "QwenImageTransformer2DModel", dict, {"true_cfg_scale": 3.0, "max_sequence_length": 64}),
        ("z-image", "ZImageTransformer2DModel", _as_released, {"guidance_scale": 3.0, "max_sequence_length": 64}),
    ],
)
def test_an_image_equals_that_of_bare_diffusers(
    family: str,
    class_name: str,
    layout: Any,
    fields: dict[str, Any],
    catalogue: Catalogue,
    tmp_path: Path,
    storage: Storage,
) -> None:
    folder, file = Path(catalogue.model(f"tiny-{family}").source), tmp_path / "model-Q8_0.gguf"
    write_gguf(file, layout(load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")))
    row = ModelSpec(id="packed", family=family, source=str(file), config=str(folder), defaults=SMALL)
    rows = with_checkpoint_limits(Catalogue(root=tmp_path, default_model="packed", models=(row,)))
    transformer = getattr(diffusers, class_name).from_single_file(
        str(file),
        quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=torch.float32),
        config=str(folder),
        subfolder="transformer",
        dtype=torch.float32,
    )
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, transformer=transformer, dtype=torch.float32)
    call = {**SMALL, **fields, "prompt": "a red circle", "negative_prompt": "a blue square"}
    theirs = pipeline(**call, generator=torch.Generator("cpu").manual_seed(7))
    job = make_job(rows, family, **call)
    files, receipt = complete_job(job, Pool(rows, device="cpu"), storage)
    assert np.array_equal(decode_pixels(files[0]), np.asarray(theirs.images[0]))
    assert receipt.model.quantization == rows.model("packed").quantization == "gguf-q8_0"
    planned = read_components(rows, rows.model("packed"), 4)
    assert planned is not None
    planned_bytes = next(part.bytes for part in planned.components if part.name == "transformer")
    loaded_bytes = sum(tensor.nbytes for tensor in (*transformer.parameters(), *transformer.buffers()))
    # The file's norm that no layer takes is counted, too.
    assert 0 <= planned_bytes - loaded_bytes <= 32 * 4
