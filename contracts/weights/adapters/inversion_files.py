"""Textual inversions by their headers: how many vectors for which text encoder. Loads no weights.

Layouts: `clip_l` and `clip_g` (SDXL), `clip_l` alone (FLUX.1), `emb_params` (AUTOMATIC1111, kohya), or one tensor
under the word itself (diffusers' `learned_embeds`). Refuses what no worker could use, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from contracts.errors import AdapterRefused
from contracts.prompts.tokens import WINDOW_TOKENS
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import Tensor, read_header

#: The vectors of the two CLIP encoders of a pair, and of the only one of a file that does not say which.
CLIP_L, CLIP_G = "clip_l", "clip_g"
_ANY_NAME = "emb_params"
_T5 = frozenset({"t5", "t5xxl", "t5_xxl"})
#: A tensor's name that can be a word of a prompt.
_WORD = re.compile(r"<?([^\W_][\w-]{0,63})>?")
_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
_CONVERT = "save its vectors with safetensors, as one tensor `emb_params` of vectors × width"


class InversionFacts(BaseModel):
    """Facts from the header of a textual inversion.

    Attributes:
        vectors: tokens of a prompt that its word takes.
        widths: `clip_l` or `clip_g` -> width of its vectors; one of them alone is `clip_l`.
        tensors: the same -> name of the tensor in the file.
        word: that the file itself names; empty where it names none.
    """

    model_config = ConfigDict(frozen=True)

    vectors: int
    widths: Mapping[str, int]
    tensors: Mapping[str, str]
    word: str = ""


def read_inversion(file: Path) -> InversionFacts:
    """Read the header of a textual inversion.

    Raises:
        AdapterRefused: it is not a safetensors file, not a textual inversion, or one that no encoder can read.
    """
    try:
        tensors = read_header(file).tensors
    except NotSafetensors as error:
        raise AdapterRefused(f"the file {error}; a .pt or .bin file is never opened: {_CONVERT}") from None
    names, word = _names(tensors)
    shapes = {part: _shape(tensors[name], name) for part, name in names.items()}
    counts = {vectors for vectors, _ in shapes.values()}
    if len(counts) > 1:
        given = ", ".join(f"{part} has {vectors}" for part, (vectors, _) in shapes.items())
        raise AdapterRefused(f"both encoders must be given equally many vectors: {given}")
    return InversionFacts(
        vectors=counts.pop(), widths={part: width for part, (_, width) in shapes.items()}, tensors=names, word=word
    )


def _names(tensors: Mapping[str, Tensor]) -> tuple[dict[str, str], str]:
    """Which tensor is for which encoder, and the word that the file names."""
    names = set(tensors)
    t5 = sorted(names & _T5)
    if t5:
        raise AdapterRefused(f"it has vectors for T5 ({t5[0]}), which are not supported; train it for CLIP alone")
    old = next((name for name in sorted(names) if name.startswith(("string_to_param", "string_to_token"))), None)
    if old is not None:
        raise AdapterRefused(f"{old[:80]} is part of a .pt file of the web UI: {_CONVERT}")
    if names == {CLIP_L, CLIP_G}:
        return {CLIP_L: CLIP_L, CLIP_G: CLIP_G}, ""
    if names == {CLIP_G}:
        raise AdapterRefused("it has vectors for clip_g and none for clip_l; SDXL needs both")
    if len(names) != 1:
        shown = ", ".join(name[:60] for name in sorted(names)[:3]) or "none"
        raise AdapterRefused(
            "the file is not a textual inversion, which has one tensor, or clip_l and clip_g; "
            f"it has {len(names)} ({shown})"
        )
    (name,) = names
    match = _WORD.fullmatch(name)
    if match is None:
        raise AdapterRefused(f"its tensor {name[:80]!r} has a name that cannot be a word of a prompt: {_CONVERT}")
    return {CLIP_L: name}, "" if name in (CLIP_L, _ANY_NAME) else match[1]


def _shape(tensor: Tensor, name: str) -> tuple[int, int]:
    """Vectors and their width."""
    shape = tensor.shape if len(tensor.shape) > 1 else (1, *tensor.shape)
    if len(shape) != 2 or tensor.dtype not in _FLOATS:
        raise AdapterRefused(
            f"{name[:80]} must be a matrix of vectors × width in floating point, got {tensor.dtype} "
            f"of the shape {list(tensor.shape)}"
        )
    vectors, width = shape
    if not 1 <= vectors <= WINDOW_TOKENS or not width:
        raise AdapterRefused(
            f"{name[:80]} has {vectors} vectors of {width} values; CLIP reads 1 to {WINDOW_TOKENS} of them"
        )
    return vectors, width
