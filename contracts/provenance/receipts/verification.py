"""Reads and checks the signed receipt of an image file. Asks no other host, and makes no image again."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from contracts.provenance.image_data import hash_image_data
from contracts.provenance.pixels import hash_pixels
from contracts.provenance.receipts.claims import SIGNATURE
from contracts.provenance.receipts.keys import Jwk
from contracts.provenance.receipts.merkle import merkle_root
from contracts.provenance.receipts.signatures import check_signature
from contracts.provenance.verification import Verdict


@dataclass(frozen=True)
class ReceiptVerification:
    """The result of checking a signed receipt.

    Attributes:
        verdict: as of Content Credentials.
        problems: what is not as it was signed; empty unless `changed`.
        key_id: of the key that signed.
        receipt: how the image was made, with `pixels_sha256`; None unless it is as it was signed.
        claims: what was signed beside it.
    """

    verdict: Verdict
    problems: tuple[str, ...] = ()
    key_id: str = ""
    receipt: Mapping[str, Any] | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> Sequence[str]:
        """Hashes of the latents after each step; empty where the file does not say."""
        return [str(leaf) for leaf in self.claims.get("latents", {}).get("sha256", ())]


def verify_receipt(path: Path, keys: Sequence[Jwk]) -> ReceiptVerification:
    """Check the receipt of a file.

    Args:
        path: a PNG, JPEG or WebP file.
        keys: public keys to trust.

    Raises:
        OSError: the file cannot be read, or is of another kind.
    """
    return verify_receipt_of(path.read_bytes(), keys)


def verify_receipt_of(data: bytes, keys: Sequence[Jwk]) -> ReceiptVerification:
    """Check the receipt in the bytes of a file; see `verify_receipt`."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            texts, is_lossless = _texts_of(image), image.format == "PNG"
            pixels = hash_pixels(image) if SIGNATURE in texts and is_lossless else None
    except (OSError, SyntaxError, ValueError):
        # What cannot be decoded has credentials that say so, or none.
        return ReceiptVerification("unsigned")
    if SIGNATURE not in texts:
        return ReceiptVerification("unsigned")
    signature = check_signature(texts[SIGNATURE], keys)
    if not signature.is_valid or signature.claims is None:
        return ReceiptVerification("changed", ("the signature",))
    claims, text = signature.claims, texts.get("darkroom", "")
    problems = []
    if claims.get("receipt_sha256") != hashlib.sha256(text.encode()).hexdigest():
        problems.append("the receipt")
    if is_lossless and claims.get("pixels_sha256") != pixels:
        problems.append("the pixels")
    if not is_lossless and claims.get("image_data_sha256") != hash_image_data(data):
        problems.append("the image")
    latents = claims.get("latents", {})
    if merkle_root(latents.get("sha256", ())) != latents.get("merkle_root"):
        problems.append("the hashes of its steps")
    if problems:
        return ReceiptVerification("changed", tuple(problems), signature.key_id)
    receipt = {**json.loads(text), "pixels_sha256": claims["pixels_sha256"]}
    return ReceiptVerification(
        "trusted" if signature.is_known else "intact", (), signature.key_id, receipt, claims
    )


def _texts_of(image: Image.Image) -> Mapping[str, str]:
    """The receipt and its signature, where the file has them."""
    if image.format == "PNG":
        image.load()  # text may follow the pixels
        texts = getattr(image, "text", {})
        return {name: str(texts[name]) for name in ("darkroom", SIGNATURE) if name in texts}
    exif = image.getexif()
    tags = {"darkroom": ExifTags.Base.ImageDescription, SIGNATURE: ExifTags.Base.ImageHistory}
    return {name: str(exif[tag]) for name, tag in tags.items() if tag in exif}
