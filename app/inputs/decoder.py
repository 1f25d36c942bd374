"""Decodes untrusted images in processes of their own, which no other route shares.

Small images and large ones have separate processes, so that a large one never keeps the small ones waiting, and
at most one large image is in memory; control images are made in another, one at a time. Behind each kind a few
images wait, and owners take turns (`lane.py`). Does not know where the bytes come from, nor how an image is
decoded (`codec/`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.inputs.codec.decoded_image import DecodedImage
from app.inputs.codec.fill import join_files
from app.inputs.codec.limits import Limits
from app.inputs.lane import DecoderLane
from app.inputs.process import DecoderProcessFailed
from contracts.errors import FieldProblem, ImageTooLarge, InvalidRequest, NotAnImage
from contracts.requests.images.preprocessing import Options

#: Decoded size up to which an image is small: 4 megapixels in color.
_SMALL_BYTES = 16 * 2**20
#: What making a control image takes beside decoding: OpenCV, numpy, and up to 13 copies of 4 megapixels.
_PREPROCESSING_BYTES = 768 * 2**20
#: What two files in one piece have beside their bytes.
_FRAME_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class InputImage(DecodedImage):
    """A decoded image with its name.

    Attributes:
        sha256: names the image: hash of the bytes received, or of `data` for a mask.
    """

    sha256: str


class _Deferred(Exception):
    """An image that is left to the processes for large ones."""


class ImageDecoder:
    """Decoder with limits on an image, its time and the queue. Any thread may call it; `close` it at the end."""

    def __init__(
        self, limits: Limits, *, processes: int = 2, max_waiting: int = 8, timeout_seconds: float = 30.0
    ) -> None:
        """Start nothing yet: the processes start with the first images.

        Args:
            processes: that decode small images; one more decodes large ones, and one makes control images.
            max_waiting: images that may wait for the processes of each kind.
            timeout_seconds: for decoding one image, or making one control image, without waiting.
        """
        self.max_bytes, self.max_pixels = limits.max_bytes, limits.max_pixels
        self._timeout_seconds = timeout_seconds
        self._small = DecoderLane(limits, processes, max_waiting, timeout_seconds)
        self._large = DecoderLane(limits, 1, max_waiting, timeout_seconds)
        self._preprocessing = DecoderLane(limits, 1, max_waiting, timeout_seconds, _PREPROCESSING_BYTES)

    def decode(self, data: bytes, field: str, owner: str = "") -> InputImage:
        """Check and decode an owner's image, and return its stored form; errors name `field`.

        Raises:
            ImageTooLarge: over a limit of bytes, sides, pixels, memory or time.
            NotAnImage: not an image, a truncated one, or one of another format.
            TooManyImages: as many images as may wait are waiting already.
        """
        return _named(self._run("decode", data, field, owner), data)

    def decode_with_hole(self, data: bytes, field: str, owner: str = "") -> tuple[InputImage, InputImage | None]:
        """As `decode`, and the mask that is white where the image is transparent; None where it is opaque."""
        decoded = self._run("decode_with_hole", data, field, owner)
        image = _named(replace(decoded, white=None, hole=b""), data)
        if not decoded.hole:
            return image, None
        return image, _mask(replace(decoded, data=decoded.hole, mask_source="what is transparent in image"))

    def decode_mask(self, data: bytes, field: str, owner: str = "") -> InputImage:
        """Decode a mask: white, or drawn on transparent, where the image is to be regenerated.

        Raises:
            InvalidRequest: it would change no pixel.
            ImageTooLarge, NotAnImage, TooManyImages: as `decode`.
        """
        return _mask(self._run("decode_mask", data, field, owner))

    def decode_alpha_mask(self, data: bytes, field: str, owner: str = "") -> InputImage:
        """Decode an image whose transparent part is to be regenerated, as the mask that is white there.

        Raises:
            InvalidRequest: no part of the image is transparent.
            ImageTooLarge, NotAnImage, TooManyImages: as `decode`.
        """
        return _mask(self._run("decode_alpha_mask", data, field, owner))

    def decode_inverted_mask(self, data: bytes, field: str, owner: str = "") -> InputImage:
        """As `decode_mask`, for a mask that is black where the image is to be regenerated."""
        return _mask(self._run("decode_inverted_mask", data, field, owner))

    def fill(self, image: bytes, mask: bytes, field: str, owner: str = "") -> InputImage:
        """Fill a decoded image with its surroundings where its mask is white; `field` is that of the image.

        One whose mask has another size stays as it is, for that to be refused.

        Raises:
            ImageTooLarge: it would be too large to be stored, or takes too long.
            TooManyImages: as `decode`.
        """
        filled = self._run("fill", join_files(image, mask), field, owner, files=2)
        return _named(filled, filled.data)

    def preprocess(self, image: bytes, name: str, options: Options, field: str, owner: str = "") -> InputImage:
        """Return the control image that a preprocessor makes of a decoded image; `field` is that of the image.

        It is named by its own bytes.

        Args:
            options: every option of the preprocessor, valid.

        Raises:
            ImageTooLarge: the image or what is made of it is over a limit of bytes, memory or time.
            NotAnImage, TooManyImages: as `decode`.
        """
        request = {"task": "preprocess", "name": name, "options": dict(options)}
        made = self._exchange(self._preprocessing, request, image, field, owner)
        return _named(made, made.data)

    def too_many_bytes(self, field: str) -> ImageTooLarge:
        """Return the error for an image over the limit of bytes."""
        message = f"is larger than {self.max_bytes} bytes"
        return ImageTooLarge(field, message, f"up to {self.max_bytes} bytes")

    def close(self) -> None:
        """End the processes."""
        self._small.close()
        self._large.close()
        self._preprocessing.close()

    def _run(self, task: str, data: bytes, field: str, owner: str, files: int = 1) -> DecodedImage:
        if len(data) > files * self.max_bytes + _FRAME_BYTES * (files > 1):
            raise self.too_many_bytes(field)
        if not data:
            raise NotAnImage(field, "is empty: a file of 0 bytes; send the image's own bytes")
        try:
            return self._exchange(self._small, {"task": task, "defer_bytes": _SMALL_BYTES}, data, field, owner)
        except _Deferred:
            return self._exchange(self._large, {"task": task, "defer_bytes": None}, data, field, owner)

    def _exchange(
        self, lane: DecoderLane, request: Mapping[str, Any], data: bytes, field: str, owner: str
    ) -> DecodedImage:
        try:
            reply, content = lane.run(request, data, owner)
        except DecoderProcessFailed as failed:
            if failed.timed_out:
                message = f"takes over {self._timeout_seconds:g} s to decode; scale it down, or save it again"
                raise ImageTooLarge(field, message, "an image that decodes faster") from None
            raise NotAnImage(field, "cannot be decoded; save it again in another format") from None
        match reply["result"]:
            case "deferred":
                raise _Deferred
            case "too_large":
                raise ImageTooLarge(field, reply["message"], reply["allowed"])
            case "unreadable":
                raise NotAnImage(field, reply["message"])
            case "empty_mask":
                raise InvalidRequest([FieldProblem(field, reply["message"])])
        return DecodedImage.from_reply(reply, content)


def _named(image: DecodedImage, name_of: bytes) -> InputImage:
    """Name an image by the hash of these bytes."""
    return InputImage(**vars(image), sha256=hashlib.sha256(name_of).hexdigest())


def _mask(image: DecodedImage) -> InputImage:
    """Return a mask, which is named by its own bytes: the same file may also be an image."""
    return _named(replace(image, stored_format="png", color_profile=None, hole=b""), image.data)
