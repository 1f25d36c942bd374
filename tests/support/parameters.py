"""Job parameters for tests that need a job and no image."""

from __future__ import annotations

from typing import Any

from contracts.catalogue.families import Mode, Task
from contracts.requests.parameters import JobParameters


def parameters(**changes: Any) -> JobParameters:
    """A batchable 64 × 64 text-to-image job; keywords replace fields."""
    fields: dict[str, Any] = {
        "task": Task.TXT2IMG, "mode": Mode.TXT2IMG, "model": "shapes-sdxl", "prompt": "a red circle",
        "width": 64, "height": 64, "num_images": 1, "num_inference_steps": 4, "guidance_scale": 3.0,
        "seed": 0, "batchable": True, "scheduler": "euler", "output_format": "png", "output_quality": 95,
    }  # fmt: skip
    return JobParameters(**(fields | changes))
