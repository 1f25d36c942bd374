"""Makes control images from ordinary ones, with OpenCV on one thread: the same image and options, the same bytes.

Runs in a decoder process of its own. Sources: J. Canny 1986; H. Winnemöller et al., "XDoG", 2012; and, for what
options mean, https://github.com/huggingface/controlnet_aux. Knows neither fields nor files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from PIL import Image

from contracts.catalogue.rows.preprocessors import RESOLUTION
from contracts.requests.images.preprocessing import Options, map_size

#: 8 bits a channel, (height, width, 3), RGB. OpenCV's functions are not typed for numpy's.
_Pixels = Any
#: (height, width) or (height, width, 3); 8 bits, or any numbers, to be clipped to 0–255.
_Values = Any


def make_map(image: Image.Image, name: str, options: Options) -> Image.Image:
    """Return the control image that a preprocessor makes of an upright image in sRGB; transparent parts are white.

    Args:
        options: every option of the preprocessor, valid.

    Raises:
        MemoryError
    """
    cv2.setNumThreads(1)
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != mode:  # else it would be copied
        image = image.convert(mode)
    size = map_size(image.size, int(options[RESOLUTION.id]))
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", size, "white"), image).convert("RGB")
    own = {id: value for id, value in options.items() if id != RESOLUTION.id}
    try:
        result = np.clip(_MAKERS[name](np.asarray(image), **own), 0, 255).astype(np.uint8)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        raise
    return Image.fromarray(result if result.ndim == 3 else cv2.merge([result] * 3))


def _gray(pixels: _Pixels) -> _Values:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def _blurred(pixels: _Values, sigma: float) -> _Values:
    return cv2.GaussianBlur(pixels, (0, 0), sigma)


def _canny(pixels: _Pixels, *, low_threshold: int, high_threshold: int) -> _Values:
    return cv2.Canny(_gray(pixels), low_threshold, high_threshold)


def _lineart(pixels: _Pixels, *, sigma: float, intensity_threshold: float) -> _Values:
    darker = np.full(pixels.shape[:2], 255, np.float32)
    for channel in cv2.split(pixels):  # one at a time, to take less memory
        levels = channel.astype(np.float32)
        np.minimum(darker, _blurred(levels, sigma) - levels, out=darker)
    np.maximum(darker, 0, out=darker)
    drawn = darker[darker > intensity_threshold]
    return darker * (127 / max(16.0, float(np.median(drawn)) if drawn.size else 16.0))


def _scribble(pixels: _Pixels, *, threshold: float) -> _Values:
    levels = _gray(pixels).astype(np.float32)
    difference = _blurred(levels, 5.0) - _blurred(levels, 0.5)
    return np.where(255 - np.minimum(255 - difference, 255) > threshold, 255, 0)


def _threshold(pixels: _Pixels, *, threshold: int) -> _Values:
    return cv2.threshold(_gray(pixels), threshold, 255, cv2.THRESH_BINARY)[1]


def _invert(pixels: _Pixels) -> _Pixels:
    return 255 - pixels


def _blur(pixels: _Pixels, *, sigma: float) -> _Values:
    return _blurred(pixels, sigma)


def _tile(pixels: _Pixels, *, factor: float) -> _Values:
    small = cv2.resize(pixels, _divided(pixels, factor), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def _color(pixels: _Pixels, *, cell: int) -> _Values:
    small = cv2.resize(pixels, _divided(pixels, cell), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, pixels.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def _gray_levels(pixels: _Pixels, *, gamma: float) -> _Values:
    return np.rint(255 * (_gray(pixels) / np.float32(255)) ** np.float32(gamma))


def _shuffle(pixels: _Pixels, *, seed: int, distance: int) -> _Values:
    random = np.random.default_rng(seed)
    height, width = pixels.shape[:2]

    def places(length: int) -> _Values:
        coarse = random.random((height // distance + 2, width // distance + 2), dtype=np.float32)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        least, most = float(smooth.min()), float(smooth.max())
        return (smooth - least) * ((length - 1) / max(most - least, 1e-6))

    return cv2.remap(pixels, places(width), places(height), cv2.INTER_LINEAR)


def _divided(pixels: _Pixels, divisor: float) -> tuple[int, int]:
    height, width = pixels.shape[:2]
    return max(1, round(width / divisor)), max(1, round(height / divisor))


_MAKERS: Mapping[str, Callable[..., _Values]] = {
    "canny": _canny,
    "lineart": _lineart,
    "scribble": _scribble,
    "threshold": _threshold,
    "invert": _invert,
    "blur": _blur,
    "tile": _tile,
    "color": _color,
    "gray": _gray_levels,
    "shuffle": _shuffle,
}
