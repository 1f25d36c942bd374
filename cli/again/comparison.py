"""What differs between an image and the same one made again, and whether rounding explains it. Makes none."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.client import Json, ServiceError

if TYPE_CHECKING:
    from contracts.provenance.receipts.verification import ReceiptVerification

#: What of a receipt names weights.
_WEIGHTS = (
    "model",
    "refiner",
    "cascade",
    "upscaler",
    "loras",
    "controlnets",
    "control_maps",
    "vae",
    "ip_adapters",
    "image_encoders",
    "textual_inversions",
)


@dataclass(frozen=True)
class Claim:
    """An image file and what is said of it.

    Attributes:
        receipt: how it was made.
        signed: its signed receipt; `unsigned` where only Content Credentials hold the receipt.
    """

    path: Path
    receipt: Json
    signed: ReceiptVerification


@dataclass(frozen=True)
class MadeAgain:
    """The image as it was made again.

    Attributes:
        receipt: of the job that made it.
        pixels_sha256: of the image.
    """

    file: bytes
    receipt: Json
    pixels_sha256: str


def compare(claim: Claim, made: MadeAgain, steps: str | None) -> str:
    """Compare; returns what to tell where they are the same.

    Args:
        steps: `1` to compare one random step, `all`, or None for the pixels alone.

    Raises:
        ServiceError: they differ by more than rounding, or weights are others than the receipt names.
    """
    has_same_pixels = made.pixels_sha256 == claim.receipt["pixels_sha256"]
    step = None if steps is None else _differing_step(steps, claim.signed.steps, made.file)
    if not has_same_pixels or step is not None:
        return _explain(claim, made, step)
    weights = differing_weights(claim.receipt, made.receipt)
    if weights:
        told = "the pixels are the same, but the receipt names other weights than those used here"
        raise ServiceError(f"{told}: {', '.join(weights)}")
    return "the same pixels" if steps is None else _same_steps(steps, len(claim.signed.steps))


def _explain(claim: Claim, made: MadeAgain, step: int | None) -> str:
    """Say that the bytes differ by rounding alone, where they may; raises ServiceError where they may not.

    Args:
        step: the first of those compared whose latents differ; None: none does, or none was compared.
    """
    from PIL import Image

    from contracts.provenance.receipts.step_comparison import WITHIN_ERROR, is_within_error

    receipt, reasons = claim.receipt, reasons_to_differ(claim, made.receipt)
    weights = differing_weights(receipt, made.receipt)
    if reasons and not weights and receipt["parameters"].get("output_format") == "png":
        with Image.open(claim.path) as claimed, Image.open(io.BytesIO(made.file)) as image:
            if is_within_error(claimed, image, receipt["dtype"]):
                return f"{WITHIN_ERROR}; what differs here: {', '.join(reasons)}"
    told = [*weights, *reasons]
    reason = f"; what differs here: {', '.join(told)}" if told else ", with the same weights and versions"
    if step is not None:
        raise ServiceError(f"not the same: step {step}{reason}")
    raise ServiceError(f"repeated, the image has other pixels{reason}")


def reasons_to_differ(claim: Claim, made: Json) -> list[str]:
    """Return why an honest image may have other bytes here; `made` is the receipt of the new job."""
    from contracts.provenance.receipts.step_comparison import differing

    claims = claim.signed.claims
    placed = {"placement": claims["placement"]} if "placement" in claims else {}
    joined = ["calls joined with other jobs"] if claims.get("joined") else []
    return [*differing({**claim.receipt, **placed}, made), *joined]


def differing_weights(claimed: Json, made: Json) -> list[str]:
    """Return the fields of two receipts that name weights of another content."""
    return [name for name in _WEIGHTS if _contents(claimed.get(name)) != _contents(made.get(name))]


def _contents(weights: Any) -> list[str]:
    """The hash of each weights in a field of a receipt, which has one, several or none."""
    every = [one for one in (weights if isinstance(weights, list) else [weights]) if one is not None]
    return [one.get("preprocessor", one)["sha256"] for one in every]  # a control map names what made it


def _differing_step(which: str, claimed: Sequence[str], file: bytes) -> int | None:
    """The first step whose latents differ; raises ServiceError where the service that made it again names none."""
    from contracts.provenance.receipts.step_comparison import first_difference
    from contracts.provenance.receipts.verification import verify_receipt_of

    made = verify_receipt_of(file, []).steps
    if not made:
        raise ServiceError(
            "the service that repeated it does not sign receipts, so its steps are not known: set "
            "DARKROOM_RECEIPTS=signed there"
        )
    count = max(len(claimed), len(made))
    steps = range(1, count + 1) if which == "all" else [random.SystemRandom().randint(1, count)]
    return first_difference(claimed, made, steps)


def _same_steps(which: str, count: int) -> str:
    from contracts.provenance.receipts.step_comparison import SAME_BYTES

    return f"{SAME_BYTES}, {'after each' if which == 'all' else 'after one'} of {count} step{'s' * (count > 1)}"
