"""The `parameters` line of a file, read as the web UI's users read it and sent back, makes the same image."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.storage import Storage
from tests.support.jobs import complete_job, make_job
from worker.pool.pool import Pool

#: Name in the line -> field of a request.
FIELDS = {
    "Steps": "num_inference_steps",
    "Sampler": "scheduler",
    "CFG scale": "guidance_scale",
    "Seed": "seed",
    "True cfg scale": "true_cfg_scale",
    "Guidance rescale": "guidance_rescale",
    "Max sequence length": "max_sequence_length",
    "Long prompt": "long_prompt",
    "Speed": "speed",
    "Prompt 2": "prompt_2",
    "Prompt 3": "prompt_3",
}
PAIRS = {
    "Original size": "original_size",
    "Crops coords top left": "crops_coords_top_left",
    "Target size": "target_size",
}
LONG = "very nice detailed picture " * 20


def read_line(text: str) -> dict[str, Any]:
    """The fields of a request that a `parameters` line describes."""
    *lines, last = text.split("\n")
    prompt, _, negative = "\n".join(lines).partition("\nNegative prompt: ")
    found = dict(re.findall(r'\s*([\w ]+):\s*("(?:\\.|[^"\\])+"|[^,]*)(?:,|$)', last))
    width, height = found["Size"].split("x")
    fields = {"prompt": prompt, "width": int(width), "height": int(height)}
    fields |= {"negative_prompt": negative} if negative else {}
    fields |= {field: _value(found[name]) for name, field in FIELDS.items() if name in found}
    fields |= {"clip_skip": int(found["Clip skip"]) - 1} if "Clip skip" in found else {}
    return fields | {field: [*map(int, found[name].split("x"))] for name, field in PAIRS.items() if name in found}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def pixels_and_line(file: bytes) -> tuple[bytes, str]:
    with Image.open(io.BytesIO(file)) as image:
        return image.tobytes(), str(image.text["parameters"])  # type: ignore[attr-defined]


CASES: list[tuple[str, dict[str, Any]]] = [
    ("sdxl", {"prompt": "a (red:1.9) circle, [blue] \\ <lora:sdxl-lora:1> BREAK AND :)",
              "negative_prompt": "(star)"}),
    ("sdxl", {"prompt": "a (red:1.9) circle <lora:sdxl-lora:0.123456789>", "prompt_syntax": "a1111"}),
    ("sdxl", {"prompt": "a circle BREAK [blue]", "negative_prompt": LONG, "prompt_syntax": "a1111"}),
    ("sdxl", {"prompt": "a circle", "prompt_2": 'a "star", red: x', "clip_skip": 1, "guidance_rescale": 0.5,
              "original_size": (48, 32), "crops_coords_top_left": (8, 4), "target_size": (32, 48),
              "loras": [{"name": "sdxl-lora", "scale": 0.5}]}),
    ("sdxl", {"prompt": LONG + "a star", "long_prompt": "truncate", "num_inference_steps": 8, "speed": "fast"}),
    ("sd3", {"prompt": LONG, "prompt_3": "a (star:1.3)", "max_sequence_length": 40, "prompt_syntax": "a1111"}),
    ("flux", {"prompt": "a [circle]", "true_cfg_scale": 2.5, "negative_prompt": "a (star)"}),
]  # fmt: skip


@pytest.mark.parametrize(("family", "fields"), CASES)
def test_the_line_of_a_file_sent_back_makes_the_same_image(
    family: str, fields: dict[str, Any], catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    (file,), _ = complete_job(make_job(catalogue, family, **{"num_inference_steps": 2, **fields}), pool, storage)
    pixels, line = pixels_and_line(file)

    (again,), _ = complete_job(
        make_job(catalogue, family, prompt_syntax="a1111", **read_line(line)), pool, storage
    )

    assert pixels_and_line(again) == (pixels, line)
