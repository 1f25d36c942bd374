"""The latents that a job keeps on request: a safetensors file, a tensor (images, …) for each step.

Knows its name in the storage, its limit, its tensors' names, and which of them a step is made again from. Computes
no latents.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable, Mapping, Sequence

from contracts.catalogue.schedulers import SCHEDULERS
from contracts.errors import FieldProblem, InvalidRequest
from contracts.requests.parameters import JobParameters
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import Header, Tensor, read_header_of

#: The most that a job may keep, by what its latents can take at most.
MAX_KEPT_BYTES = 256 * 2**20


def latents_key(job_id: str, attempt: int) -> str:
    """Return the storage key of the latents that an attempt at a job has kept; they go with its images."""
    return f"images/{job_id}/{attempt}/latents.safetensors"


def step_name(step: int) -> str:
    """Return the name of the tensor of what a step has made, counted from 1 over all stages."""
    return f"step.{step:03}"


def require_room(parameters: JobParameters) -> None:
    """Refuse a job that could keep too much; raises InvalidRequest."""
    size = parameters.kept_latents_bytes
    if size > MAX_KEPT_BYTES:
        message = (
            f"could keep up to {size} bytes, and a job may keep {MAX_KEPT_BYTES}; "
            "ask for fewer steps, fewer images or a smaller size"
        )
        raise InvalidRequest([FieldProblem("keep_latents", message, "width × height × images × steps ≤ 2^27")])


def first_step(step: int, steps_before: int) -> int:
    """Return the first step that is computed to make a step again, counted from 1; those before it are not."""
    return max(1, step - steps_before)


def needed_steps(step: int, steps_before: int) -> range:
    """Return the steps whose latents one is made again from; none for the first, which are made from noise."""
    first = first_step(step, steps_before)
    return range(first - 1, step) if first > 1 else range(0)


def refusal(parameters: JobParameters) -> str | None:
    """Return why no step of this job can be made again from kept latents, as the end of a sentence; else None."""
    cause = None
    if len(parameters.stages) > 1:
        cause = "several stages"
    elif parameters.speed != "exact":
        cause = f"speed {parameters.speed}"
    elif parameters.guidance is not None and parameters.guidance.momentum:
        cause = "guidance.momentum"
    elif SCHEDULERS[parameters.scheduler].steps_before is None:
        cause = f"scheduler {parameters.scheduler}"
    return cause and f"with {cause} a step depends on all steps before it, so it is checked from the start"


def read_latents(data: bytes) -> tuple[Header, Mapping[str, bytes]]:
    """Return the header of a file in memory, and the bytes of each tensor; raises NotSafetensors."""
    header = read_header_of(io.BytesIO(data), len(data))
    return header, {name: data[tensor.begin : tensor.end] for name, tensor in header.tensors.items()}


def write_latents(header: Header, contents: Mapping[str, bytes], steps: Iterable[int]) -> bytes:
    """Return a file with the tensors of some steps of another one."""
    names, entries, end = [step_name(step) for step in steps], {}, 0
    for name in names:
        tensor, begin = header.tensors[name], end
        end += len(contents[name])
        entries[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # so that values are aligned
    return struct.pack("<Q", len(text)) + text + b"".join(contents[name] for name in names)


def latents_problem(data: bytes, steps: Sequence[int], images: int) -> str | None:
    """Return what is wrong with the file that a step is to be made from, as the end of a sentence.

    Args:
        steps: whose latents it must have, and no others.
        images: of the job.
    """
    names = [step_name(step) for step in steps]
    try:
        header = read_header_of(io.BytesIO(data), len(data))
    except NotSafetensors as error:
        return str(error)
    if sorted(header.tensors) != names:
        return f"must have exactly the tensors {', '.join(names)}"
    if len({(tensor.shape, tensor.dtype) for tensor in header.tensors.values()}) > 1:
        return "must have tensors of one shape and data type"
    return _tensor_problem(header.tensors[names[0]], images)


def _tensor_problem(tensor: Tensor, images: int) -> str | None:
    if tensor.dtype not in ("F32", "F16", "BF16"):
        return f"must be of F32, F16 or BF16, got {tensor.dtype}"
    if tensor.shape[:1] != (images,):
        return f"must have the latents of {images} images, got shape {list(tensor.shape)}"
    return None
