"""A network from the header of its file: its architecture, scale and memory. Loads nothing.

Architectures: ESRGAN (Wang et al., arXiv 1809.00219) in the layouts of ESRGAN, BSRGAN and Real-ESRGAN, and Compact
(`SRVGGNetCompact` of Real-ESRGAN, arXiv 2107.10833); LaMa (arXiv 2109.07161).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts.catalogue.rows.networks import EraserSpec, NetworkSpec, PreprocessorSpec, UpscalerSpec
from contracts.errors import CatalogueError
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import Tensor, read_header
from contracts.weights.preprocessor_models import read_preprocessor

#: Channels that each layer of an ESRGAN's dense blocks adds, in all published files.
_GROWTH = 32
#: LaMa's first layer, which is given the image and its mask.
_LAMA_FIRST = "model.1.ffc.convl2l.weight"
#: Networks of gray or transparent images are not supported.
_CHANNELS = 3
_Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class UpscalerFacts:
    """An upscaler, by its file's header.

    Attributes:
        architecture: `ESRGAN` or `Compact`.
        scale: how many times as wide and high as its input its output is.
        radius: pixels around an input pixel that its output depends on.
        multiple: of which the sides of its input must be.
        values: of its weights.
        pixel_values: an upper bound of the values that it holds at once for each pixel of its input.
    """

    architecture: str
    scale: int
    radius: int
    multiple: int
    values: int
    pixel_values: int


def read_upscaler(file: Path) -> UpscalerFacts:
    """Read what kind of upscaler a file holds.

    Raises:
        CatalogueError: it is not a safetensors file, or holds another kind of network.
    """
    tensors = _read_tensors(file)
    try:
        facts = _read_esrgan(tensors) or _read_compact(tensors)
    except (
        KeyError,
        IndexError,
        ValueError,
        StopIteration,
        ZeroDivisionError,
    ):  # tensors that do not belong together
        facts = None
    if facts is None:
        raise CatalogueError("it is not an upscaler of RGB images of the architectures ESRGAN and Compact")
    return facts


@dataclass(frozen=True)
class EraserFacts:
    """An eraser, by its file's header.

    Attributes:
        architecture: `LaMa`.
        values: of its weights.
        pixel_values: an upper bound of the values that it holds at once for each pixel of its input.
    """

    architecture: str
    values: int
    pixel_values: int


def read_eraser(file: Path) -> EraserFacts:
    """Read what kind of eraser a file holds.

    Raises:
        CatalogueError: it is not a safetensors file, or holds another kind of network.
    """
    tensors = _read_tensors(file)
    first = next((tensor for name, tensor in tensors.items() if name.endswith(_LAMA_FIRST)), None)
    if first is None or len(first.shape) != 4 or first.shape[1:] != (4, 7, 7):
        raise CatalogueError("it is not an eraser of the architecture LaMa")
    values = sum(tensor.values for tensor in tensors.values())
    return EraserFacts("LaMa", values, 6 * first.shape[0] + 8 * _CHANNELS)


def check_network_row(row: NetworkSpec, file: Path) -> None:
    """Check that a row's file holds the network that the row says.

    Raises:
        CatalogueError: it does not, or cannot be read.
    """
    if isinstance(row, EraserSpec):
        read_eraser(file)
    if isinstance(row, PreprocessorSpec):
        read_preprocessor(file, row.kind)
    if isinstance(row, UpscalerSpec):
        facts = read_upscaler(file)
        if facts.scale != row.scale:
            raise CatalogueError(
                f"its scale is {facts.scale}, and the row says {row.scale}: set scale = {facts.scale}"
            )


def _read_tensors(file: Path) -> _Tensors:
    try:
        return read_header(file).tensors
    except (NotSafetensors, OSError) as error:
        raise CatalogueError(f"{file.name} {getattr(error, 'strerror', None) or error}") from None


def _read_esrgan(tensors: _Tensors) -> UpscalerFacts | None:
    old = "model.0.weight" in tensors and any(".RDB1." in name for name in tensors)
    new = "conv_first.weight" in tensors and "conv_last.weight" in tensors
    if not old and not new:
        return None
    if old:
        last = max(int(name.split(".")[1]) for name in tensors if re.match(r"model\.\d+\.", name))
        first, final, doublings = "model.0.weight", f"model.{last}.weight", (last - 4) // 3
    else:
        first, final = "conv_first.weight", "conv_last.weight"
        doublings = len({found[0] for name in tensors if (found := re.match(r"(upconv|conv_up)\d", name))})
    features, taken = tensors[first].shape[:2]
    given = tensors[final].shape[0]
    shuffle = math.isqrt(taken // given)
    growth = next(tensor.shape[0] for name, tensor in tensors.items() if re.search(r"(rdb|RDB)1\.conv1\.", name))
    if given != _CHANNELS or taken != given * shuffle**2 or growth != _GROWTH:
        return None
    blocks = len({found[0] for name in tensors if (found := re.match(r".*?\.(\d+)\.(rdb|RDB)1\.", name))})
    enlarged = 2**doublings
    # Of the last layers: their input and output; or in a dense block, what its layers add to each other.
    pixel_values = max(2 * features * enlarged**2, 5 * features + 8 * _GROWTH) // shuffle**2
    return UpscalerFacts(
        architecture="ESRGAN",
        scale=enlarged // shuffle,
        radius=(15 * blocks + 4) * shuffle,
        multiple=shuffle,
        values=sum(tensor.values for tensor in tensors.values()),
        pixel_values=pixel_values + 3 * _CHANNELS * enlarged**2 // shuffle**2,
    )


def _read_compact(tensors: _Tensors) -> UpscalerFacts | None:
    if "body.0.weight" not in tensors or "body.1.weight" not in tensors:
        return None
    last = max(int(name.split(".")[1]) for name in tensors if re.match(r"body\.\d+\.", name))
    features, taken = tensors["body.0.weight"].shape[:2]
    shuffled = tensors[f"body.{last}.bias"].shape[0]
    scale = math.isqrt(shuffled // taken)
    if taken != _CHANNELS or scale * scale * taken != shuffled:
        return None
    return UpscalerFacts(
        architecture="Compact",
        scale=scale,
        radius=last // 2 + 1,
        multiple=1,
        values=sum(tensor.values for tensor in tensors.values()),
        pixel_values=max(3 * features, features + 3 * shuffled) + _CHANNELS,
    )
