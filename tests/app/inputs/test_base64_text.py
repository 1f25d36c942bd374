"""Long texts are decoded piece by piece: it makes no difference where one ends, and others may run in between."""

from __future__ import annotations

import base64
import random

import pytest

from app.inputs.base64_text import decode_base64
from app.inputs.codec.limits import Limits
from app.inputs.decoder import ImageDecoder
from contracts.errors import InvalidRequest

#: No multiple of three, so that the text ends with padding; more than one piece.
DATA = random.Random(3).randbytes(2_000_003)
TEXT = base64.b64encode(DATA).decode()


@pytest.fixture(scope="module")
def decoder() -> ImageDecoder:
    return ImageDecoder(Limits(max_bytes=2**22, max_side=64, max_pixels=4096, max_decoded_bytes=4096))


@pytest.mark.parametrize("shift", range(4))
def test_a_text_of_several_pieces_is_decoded_wherever_they_end(decoder: ImageDecoder, shift: int) -> None:
    assert decode_base64("image", "\n" * shift + TEXT, decoder) == DATA
    assert decode_base64("image", " " * shift + TEXT.rstrip("="), decoder) == DATA


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{TEXT}{TEXT}", "padding"),
        (f"{TEXT}\n{' ' * 2**20}{TEXT}", "more characters follow the padding"),
        (f"{TEXT[:-8]}*{TEXT[-7:]}", "Only base64 data is allowed"),
        (f"{TEXT[:-8]}é{TEXT[-7:]}", "outside ASCII"),
        (f"{TEXT[:-8]}A", "its length is not possible"),
    ],
)
def test_what_is_wrong_in_a_later_piece_is_found(decoder: ImageDecoder, text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        decode_base64("image", text, decoder)
