"""Finds the program that wrote the texts of a file, and has them read. Reads no file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.inputs.texts.exif import IMAGE_DESCRIPTION, MAKE, MODEL, USER_COMMENT
from app.inputs.texts.xmp import USER_COMMENT as XMP_USER_COMMENT
from app.png_info.darkroom import FindInput, read_receipt
from app.png_info.draft import Draft
from app.png_info.draw_things import read_comment
from app.png_info.invokeai import read_metadata
from app.png_info.view import ImageParameters
from app.png_info.web_ui import read_parameters
from contracts.catalogue.catalogue import Catalogue

_RECEIPT, _PARAMETERS, _INVOKEAI = "darkroom", "parameters", "invokeai_metadata"
_OLD_INVOKEAI = ("sd-metadata", "Dream")
_COMFYUI = ("workflow", "prompt")
#: Why texts of some programs are left alone.
_IS_WORKFLOW = "is a workflow of ComfyUI: a graph of nodes, which is not a request; open the file in ComfyUI"
_IS_OLD = "was written by InvokeAI before version 3, whose format is not read"
_IS_UNREADABLE = "cannot be read; the file may have been changed or cut off"


def read_request(texts: Mapping[str, str], catalogue: Catalogue, find: FindInput) -> ImageParameters:
    """Return what the texts of a file say, as a request; what cannot be one is named."""
    draft = next(_drafts(texts, catalogue, find), None)
    workflows = _workflows(texts)
    left = dict.fromkeys(workflows, _IS_WORKFLOW) | {name: _IS_OLD for name in _OLD_INVOKEAI if name in texts}
    if draft is None:
        left |= {name: _IS_UNREADABLE for name in (_RECEIPT, _INVOKEAI) if name in texts}
        empty = Draft("comfyui", not_read=left).settle(catalogue, texts)
        program = "comfyui" if workflows else "invokeai" if len(left) > 0 and _RECEIPT not in left else None
        return empty.model_copy(update={"program": program, "request": None, "n": None, "missing": []})
    draft.not_read |= left
    return draft.settle(catalogue, texts)


def _drafts(texts: Mapping[str, str], catalogue: Catalogue, find: FindInput) -> Iterator[Draft]:
    """Yield what each program's reader makes of the texts; what says most comes first."""
    comment = texts.get(USER_COMMENT)
    found = (
        read_receipt(texts.get(_RECEIPT) or texts.get(IMAGE_DESCRIPTION), find),
        read_metadata(texts.get(_INVOKEAI), catalogue),
        read_comment(texts.get(XMP_USER_COMMENT) or comment, catalogue),
        read_parameters(texts.get(_PARAMETERS), catalogue, surely=True),
        read_parameters(comment, catalogue, surely=False),
    )
    yield from (draft for draft in found if draft is not None)


def _workflows(texts: Mapping[str, str]) -> list[str]:
    """Names of the texts that are ComfyUI's: keywords of PNG, or how tags of EXIF begin."""
    named = [name for name in _COMFYUI if texts.get(name, "").lstrip()[:1] == "{"]
    tagged = [name for name in (MAKE, MODEL) if texts.get(name, "").partition(":")[0].lower() in _COMFYUI]
    return named + tagged
