"""What a signed receipt claims of an image file: how it was made, its pixels, its latents. Signs nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from contracts.jobs.receipt import Receipt
from contracts.provenance.receipts.merkle import merkle_root

#: Name of the signature among the texts of a file, beside `darkroom`, the receipt that it is of.
SIGNATURE = "darkroom_signature"


def make_claims(
    receipt: Receipt, index: int, text: str, image_data_sha256: str | None, steps: Sequence[str]
) -> dict[str, Any]:
    """Return the claims of one image's file.

    Args:
        receipt: of the job, with the hashes of its pixels.
        index: of the image.
        text: the receipt as the file has it.
        image_data_sha256: see `contracts.provenance.image_data`; None: the format keeps all pixels.
        steps: hashes of the latents after each step.
    """
    return {
        "receipt_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "pixels_sha256": receipt.pixels_sha256[index],
        **({} if image_data_sha256 is None else {"image_data_sha256": image_data_sha256}),
        "latents": {"merkle_root": merkle_root(steps), "sha256": list(steps)},
        # What may change the last bits of an honest image beside its receipt.
        "joined": receipt.joined,
        "placement": receipt.placement,
    }
