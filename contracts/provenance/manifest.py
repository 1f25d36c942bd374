"""The signed claims about an image: that a model made it, its receipt, and the image that it started from.

C2PA 2.2 (actions, digital source types) and IPTC's photo metadata 2023.2, which other tools read. Signs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from contracts.requests.fields import PROMPT_FIELDS

RECEIPT_LABEL = "org.darkroom.receipt"
#: The label of the ingredient that an image was made from.
SOURCE_LABEL = "source"
_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
PromptDetail = Literal["text", "hash"]


def source_type(*, has_source: bool) -> str:
    """Return IPTC's term: made by a model from nothing, or from another image."""
    return _SOURCE_TYPES + ("compositeWithTrainedAlgorithmicMedia" if has_source else "trainedAlgorithmicMedia")


def make_manifest(
    receipt: Mapping[str, Any], pixels_sha256: str, version: str, prompts: PromptDetail, *, has_source: bool
) -> dict[str, Any]:
    """Return the manifest of an image, for c2pa's builder.

    Args:
        receipt: of one image, as its file has it.
        pixels_sha256: see `contracts.provenance.pixels`.
        prompts: `hash`: the signed receipt has prompts' SHA-256 in their place.
        has_source: whether an ingredient `SOURCE_LABEL` is added: the image that it started from.
    """
    agent, kind = {"name": "Darkroom", "version": version}, source_type(has_source=has_source)
    made = {"action": "c2pa.created", "digitalSourceType": kind, "softwareAgent": agent}
    if has_source:
        opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": [SOURCE_LABEL]}}
        actions = [opened, {**made, "action": "c2pa.edited"}]
    else:
        actions = [made]
    shown = dict(receipt) if prompts == "text" else without_prompts(receipt)
    return {
        "claim_generator_info": [agent],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            {"label": RECEIPT_LABEL, "data": {**shown, "pixels_sha256": pixels_sha256}},
        ],
    }


def without_prompts(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """Return a receipt with `sha256:…` in place of each prompt, and nothing else that has their words."""
    parameters = dict(receipt["parameters"])
    for field in PROMPT_FIELDS:
        if parameters.get(field) is not None:
            parameters[field] = f"sha256:{hashlib.sha256(str(parameters[field]).encode()).hexdigest()}"
    parameters.pop("prompt_chunks", None)
    return {**receipt, "parameters": parameters}


def iptc_xmp(*, has_source: bool) -> bytes:
    """Return an XMP packet with IPTC's `DigitalSourceType`, which search engines and editors read."""
    kind = source_type(has_source=has_source)
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'Iptc4xmpExt:DigitalSourceType="{kind}"/></rdf:RDF></x:xmpmeta>'
    ).encode()


def read_receipt(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the receipt that a manifest holds; None if it holds none."""
    for assertion in manifest.get("assertions", ()):
        if assertion.get("label") == RECEIPT_LABEL:
            data = assertion["data"]
            return dict(json.loads(data) if isinstance(data, str) else data)
    return None
