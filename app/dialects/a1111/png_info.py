"""Reads the parameters inside a PNG file, as the web UI's `png-info` does. Decodes no pixel, fetches nothing."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from app.dialects.a1111.infotext import read_infotext
from app.dialects.a1111.png_text import is_png, read_texts
from app.inputs.base64_text import decode_base64, decode_data_url
from app.inputs.decoder import ImageDecoder
from contracts.errors import NotAnImage
from contracts.requests.fields import StrictModel

#: The keyword of the text of parameters in a PNG file.
PARAMETERS = "parameters"


class A1111PngInfoRequest(StrictModel):
    """A file whose parameters are to be read."""

    image: str = Field(min_length=1, description="The PNG file, in base64 or as a `data:` URL.")


class A1111PngInfo(BaseModel):
    """The parameters inside a file."""

    info: str = Field(description="The text of parameters; empty where there is none.")
    items: dict[str, str] = Field(description="All texts of the file, by their keywords.")
    parameters: dict[str, Any] = Field(description="The fields of the text, by the names of the web UI.")


def read_png_info(request: A1111PngInfoRequest, decoder: ImageDecoder) -> A1111PngInfo:
    """Return what a file says of itself.

    Raises:
        InvalidRequest: the text is not base64.
        ImageTooLarge: the file has more bytes than images may have.
        NotAnImage: it is not a PNG file.
    """
    text = request.image
    decode = decode_data_url if text[:5].lower() == "data:" else decode_base64
    data = decode("image", text, decoder)
    if not is_png(data):
        raise NotAnImage("image", "is not a PNG file, and parameters are read from PNG files only")
    items = dict(read_texts(data))
    info = items.pop(PARAMETERS, "")
    return A1111PngInfo(info=info, items=items, parameters=read_infotext(info) if info else {})
