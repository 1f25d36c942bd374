"""Reads and checks the Content Credentials of an image file, and the receipt in them. Asks no other host."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import c2pa
from PIL import Image

from contracts.provenance.manifest import read_receipt
from contracts.provenance.pixels import hash_pixels

#: `trusted`: intact, and the signer's root is among those given; `intact`: nothing was changed, by a signer that
#: nobody vouches for; `changed`: the file is not as it was signed; `unsigned`: it has no credentials.
Verdict = Literal["trusted", "intact", "changed", "unsigned"]
_STARTS = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg", b"RIFF": "image/webp"}
_STATES: Mapping[str, Verdict] = {"Trusted": "trusted", "Valid": "intact"}


@dataclass(frozen=True)
class Verification:
    """The result of checking a file.

    Attributes:
        problems: C2PA's codes of what is wrong; empty unless `changed`.
        signer: the name in the certificate that signed.
        receipt: how the image was made, as it was signed; None: not by Darkroom.
        same_pixels: whether its pixels are those of the receipt; None where the format does not keep them all, or
            nothing says what they were.
    """

    verdict: Verdict
    problems: tuple[str, ...] = ()
    signer: str = ""
    receipt: Mapping[str, Any] | None = None
    same_pixels: bool | None = None


def verify(path: Path, root: str | None) -> Verification:
    """Check a file.

    Args:
        path: a PNG, JPEG or WebP file.
        root: certificate to trust beside the library's list, PEM.

    Raises:
        OSError: the file cannot be read, or is of another kind.
    """
    data = path.read_bytes()
    media_type = _media_type(data)
    trust = {} if root is None else {"trust": {"trust_anchors": root}}
    network = {"verify": {"ocsp_fetch": False, "remote_manifest_fetch": False, "verify_trust": root is not None}}
    try:
        with c2pa.Reader(
            media_type, io.BytesIO(data), context=c2pa.Context.from_dict({**trust, **network})
        ) as reader:
            state, report = reader.get_validation_state(), json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return Verification("unsigned")
    manifest = report["manifests"][report["active_manifest"]]
    receipt, signature = read_receipt(manifest), manifest.get("signature_info", {})
    verdict = _STATES.get(str(state), "changed")
    problems = tuple(status["code"] for status in report.get("validation_status", ()) if verdict == "changed")
    signer = str(signature.get("common_name") or signature.get("issuer") or "")
    return Verification(verdict, problems, signer, receipt, _compare_pixels(data, media_type, receipt))


def _media_type(data: bytes) -> str:
    """By the first bytes, since a damaged image must be read, too."""
    for start, kind in _STARTS.items():
        if data.startswith(start):
            return kind
    raise OSError("not a PNG, JPEG or WebP file")


def _compare_pixels(data: bytes, media_type: str, receipt: Mapping[str, Any] | None) -> bool | None:
    """Whether the file has the pixels of its receipt; None for JPEG and WebP, which may lose some."""
    expected = None if receipt is None else receipt.get("pixels_sha256")
    if expected is None or media_type != "image/png":
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            return bool(hash_pixels(image) == expected)
    except OSError:  # it is damaged
        return False
