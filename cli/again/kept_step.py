"""Makes one step again from the latents that a job has kept, instead of from the start, and compares it."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.again.comparison import Claim, differing_weights, reasons_to_differ
from cli.client import Json, ServiceError
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.provenance.kept_latents import needed_steps, read_latents, refusal, step_name, write_latents
from contracts.provenance.receipts.merkle import hash_leaf
from contracts.requests.parameters import JobParameters
from contracts.weights.formats.header_text import NotSafetensors


@dataclass(frozen=True)
class KeptStep:
    """A step that is made again.

    Attributes:
        number: of the step, counted from 1.
        steps: of the image.
        claimed: hash of its latents after the step, as signed.
        fields: what its request has beside those of the image.
    """

    number: int
    steps: int
    claimed: str
    fields: Json


def choose_step(path: Path, parameters: JobParameters, claimed: Sequence[str], index: int) -> KeptStep:
    """Compare the latents that were kept with the signed hashes, and choose a random step to make again.

    Args:
        path: the file of the job's latents.
        claimed: hashes of the image's latents after each step.
        index: of the image in its job.

    Raises:
        ServiceError: the file holds other latents, or a step of this job cannot be made again from any.
    """
    reason = refusal(parameters)
    if reason is not None:
        raise ServiceError(f"{path}: {reason}: verify without --latents")
    try:
        header, contents = read_latents(path.read_bytes())
    except OSError as error:
        raise ServiceError(f"{path}: {error.strerror}") from error
    except NotSafetensors as error:
        raise ServiceError(f"{path} {error}") from error
    for step, sha256 in enumerate(claimed, 1):
        content = contents.get(step_name(step), b"")
        row_bytes = len(content) // parameters.num_images
        if hash_leaf(content[index * row_bytes : (index + 1) * row_bytes]) != sha256:
            raise ServiceError(f"{path}: the latents after step {step} are not those of the receipt")
    step = random.SystemRandom().randint(1, len(claimed))
    needed = needed_steps(step, SCHEDULERS[parameters.scheduler].steps_before or 0)
    fields: Json = {"step": step}
    if needed:
        fields["latents"] = base64.b64encode(write_latents(header, contents, needed)).decode()
    return KeptStep(step, len(claimed), claimed[step - 1], {"check_step": fields})


def compare_step(claim: Claim, step: KeptStep, receipt: Json, index: int) -> str:
    """Compare what the step has made; returns what to tell where it is the same.

    Args:
        receipt: of the job that made it again.

    Raises:
        ServiceError: it is not the same, or cannot be compared on this device.
    """
    weights, reasons = differing_weights(claim.receipt, receipt), reasons_to_differ(claim, receipt)
    checked = receipt["checked_step"]
    if checked["steps"] != step.steps:
        raise ServiceError(
            f"not the same: step {min(checked['steps'], step.steps) + 1}, which only one of the two has"
        )
    same = checked["sha256"][index] == step.claimed
    if same and not weights:
        return f"same bytes, step {step.number} of {step.steps}, made again from the latents that were kept"
    told = f"; what differs here: {', '.join([*weights, *reasons])}" if weights or reasons else ""
    if same or weights or not reasons:
        raise ServiceError(f"not the same: step {step.number}{told}")
    raise ServiceError(
        f"step {step.number} has other bytes{told}. Latents have no tolerance: verify without --latents, which "
        "compares pixels"
    )
