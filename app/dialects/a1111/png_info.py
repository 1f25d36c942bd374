"""Reads the parameters inside a file, as the web UI's `png-info` does. Decodes no pixel, fetches nothing."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from app.dialects.a1111.infotext import read_infotext
from app.inputs.base64_text import decode_base64, decode_data_url
from app.inputs.decoder import ImageDecoder
from app.inputs.texts.exif import USER_COMMENT
from app.inputs.texts.files import read_texts
from contracts.requests.strict_model import StrictModel

#: The keyword of the text of parameters in a PNG file.
PARAMETERS = "parameters"
#: What the web UI calls the same text in a JPEG or WebP file.
_COMMENT = "exif comment"


class A1111PngInfoRequest(StrictModel):
    """A file whose parameters are to be read."""

    image: str = Field(min_length=1, description="The PNG, JPEG or WebP file, in base64 or as a `data:` URL.")


class A1111PngInfo(BaseModel):
    """The parameters inside a file."""

    info: str = Field(description="The text of parameters; empty if the file has none.")
    items: dict[str, str] = Field(description="All texts of the file, by their keywords.")
    parameters: dict[str, Any] = Field(description="The fields of the text, by the names of the web UI.")


def read_png_info(request: A1111PngInfoRequest, decoder: ImageDecoder) -> A1111PngInfo:
    """Return the parameters and the texts in a file.

    Raises:
        InvalidRequest: the text is not base64.
        ImageTooLarge: the file has more bytes than images may have.
        NotAnImage: it is not a PNG, JPEG or WebP file.
    """
    text = request.image
    decode = decode_data_url if text[:5].lower() == "data:" else decode_base64
    data = decode("image", text, decoder)
    items = dict(read_texts(data, "image"))
    comment = items.pop(USER_COMMENT, None)
    if comment is not None:
        items[_COMMENT] = comment
    info = items.pop(PARAMETERS, comment or "")
    return A1111PngInfo(info=info, items=items, parameters=read_infotext(info) if info else {})
