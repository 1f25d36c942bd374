"""A control image of depths: a model of transformers on the whole image, as transformers' pipeline runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from contracts.jobs.receipt import Weights
from contracts.requests.plain.preprocessing import PreprocessParameters
from contracts.weights.depth_models import DepthFacts, read_depth_model
from worker.checkpoints.components import check_loaded
from worker.generation.outputs import JobResult
from worker.networks.images import SCRATCH_BYTES, VALUE_BYTES, Pixels, require_finite
from worker.pool.fetcher import load_errors_as_job_failed
from worker.tasks.attempt import Attempt
from worker.tasks.plain_task import PlainTask

#: The first layer of the fusion has no earlier one to add: these exist and are not used, and files leave them out.
_UNUSED = "neck.fusion_stage.layers.0.residual_layer1."


def make_depth_map(attempt: Attempt) -> JobResult:
    """Run one attempt; see `worker.tasks.runs.Run`."""
    task = _DepthMap(attempt)
    return task.plain.run(task.compute)


class _DepthMap:
    def __init__(self, attempt: Attempt) -> None:
        parameters = attempt.flight.job.parameters
        if not isinstance(parameters, PreprocessParameters):
            raise TypeError(f"{parameters.task} is not a control image")
        self.plain = PlainTask(attempt)
        self._attempt, self._parameters = attempt, parameters

    def compute(self) -> JobResult:
        parameters, task, device = self._parameters, self.plain, self._attempt.pool.device
        folder, weights, facts = load_errors_as_job_failed(parameters.model, self._find)
        image = on_white(task.read_image(parameters.image), (parameters.width, parameters.height))
        processor = load_errors_as_job_failed(parameters.model, lambda: load_processor(folder))
        given = processor(images=image, return_tensors="pt")
        size = (int(given["pixel_values"].shape[-2]), int(given["pixel_values"].shape[-1]))
        plan = f"at {size[1]} × {size[0]} pixels"
        task.reserve([(plan, planned_bytes(facts, size, image.size))])
        model = load_errors_as_job_failed(parameters.model, lambda: load_model(folder, device))
        task.timer.end_stage("load")

        made: list[Pixels] = []
        task.steps(1)
        task.step(lambda: made.append(depth_of(model, processor, given, image.size)))
        task.timer.end_stage("preprocess")
        return task.finish(parameters, [Image.fromarray(made[0]).convert("RGB")], weights, [])

    def _find(self) -> tuple[Path, Weights, DepthFacts]:
        """The model's folder, and what it holds."""
        folder, weights = self._attempt.pool.fetcher.network(f"preprocessor:{self._parameters.model}")
        return folder, weights, read_depth_model(folder)


def on_white(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image in this size, transparent parts white, as other preprocessors see it."""
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", size, "white"), image).convert("RGB")
    return image


def planned_bytes(facts: DepthFacts, given: tuple[int, int], made: tuple[int, int]) -> int:
    """The most device memory that a model takes for an input and a map of these sides, in pixels."""
    values = facts.values + given[0] * given[1] * facts.pixel_values + 3 * made[0] * made[1]
    return values * VALUE_BYTES + SCRATCH_BYTES


def load_processor(folder: Path) -> Any:
    """What scales and normalizes images for the model, through Pillow whether torchvision is installed or not."""
    return AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)


def load_model(folder: Path, device: torch.device) -> Any:
    """Load a depth model in float32, for inference.

    Raises:
        CatalogueError: weights are missing, of another shape, or belong to no layer.
        Exception: whatever transformers raises for damaged files.
    """
    model, found = AutoModelForDepthEstimation.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    missing = [name for name in found["missing_keys"] if not name.startswith(_UNUSED)]
    check_loaded("the preprocessor", {**found, "missing_keys": missing})
    return model.to(device).eval()


def depth_of(model: Any, processor: Any, given: Any, size: tuple[int, int]) -> Pixels:
    """The depths of an image (height, width) of 0…255, as transformers' pipeline (5.23) shows them.

    Args:
        given: what the processor made of the image.
        size: width and height of the map.

    Raises:
        JobFailed: the output is not finite.
    """
    with torch.inference_mode():
        output = model(**given.to(model.device))
        (made,) = processor.post_process_depth_estimation(output, [size[::-1]])
    depth = made["predicted_depth"]
    require_finite(depth, "preprocessor")
    values = depth.cpu().numpy()
    span = values.max() - values.min()
    if span == 0:  # an image without depth: the pipeline would divide by zero
        return np.zeros(values.shape, np.uint8)
    pixels: Pixels = ((values - values.min()) / span * 255).astype(np.uint8)
    return pixels
