"""Image files: decoded in one normal form, encoded with their metadata."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw

from tests.support.images import encode_image
from worker.generation.inputs import decode_image, decode_mask
from worker.generation.results.outputs import encode_image as encode_output

TEXTS = {"darkroom": json.dumps({"seed": 7}), "parameters": "ein Kreis, 丸\nSteps: 3, Seed: 7"}


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.int16)


def test_transparent_pixels_of_an_image_become_white() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode_image(encode_image(image), (8, 8)).getpixel((0, 0)) == (255, 255, 255)


def test_transparent_pixels_of_a_mask_become_black() -> None:
    mask = Image.new("LA", (8, 8), (255, 0))
    mask.putpixel((3, 3), (255, 255))
    read = decode_mask(encode_image(mask), (8, 8))
    assert read.mode == "L"
    assert (read.getpixel((0, 0)), read.getpixel((3, 3))) == (0, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    white = Image.new("RGB", (8, 8), "white").convert(mode)
    image = decode_image(encode_image(white, "JPEG" if mode == "CMYK" else "PNG"), (8, 8))
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_an_image_is_shown_upright_as_its_orientation_says() -> None:
    image = Image.new("RGB", (8, 4), "blue")
    image.paste("red", (0, 0, 4, 4))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by 90° clockwise
    upright = decode_image(encode_image(image, exif=exif), (4, 8))
    assert (upright.getpixel((2, 1)), upright.getpixel((2, 6))) == ((255, 0, 0), (0, 0, 255))


def test_a_palette_is_the_same_mask_as_its_colors() -> None:
    colors = Image.effect_noise((16, 16), 90).convert("RGB").quantize(16)
    as_palette = decode_mask(encode_image(colors), (16, 16))
    assert as_palette.tobytes() == decode_mask(encode_image(colors.convert("RGB")), (16, 16)).tobytes()


def test_images_are_scaled_to_the_outputs_size() -> None:
    data = encode_image(Image.new("RGB", (40, 30), "red"))
    assert decode_image(data, (64, 48)).size == (64, 48)
    assert decode_mask(data, (64, 48)).size == (64, 48)


def test_a_scaled_mask_does_not_ring() -> None:
    mask = Image.new("L", (16, 16), 0)
    ImageDraw.Draw(mask).rectangle((8, 0, 15, 15), fill=255)
    scaled = _pixels(decode_mask(encode_image(mask), (64, 64)))
    assert scaled[:, :28].max() == 0
    assert scaled[:, 36:].min() == 255


def test_png_has_the_metadata_in_text_chunks() -> None:
    data = encode_output(Image.new("RGB", (8, 8)), "png", 95, TEXTS)
    with Image.open(io.BytesIO(data)) as image:
        assert image.text == TEXTS  # type: ignore[attr-defined]


@pytest.mark.parametrize("file_format", ["jpeg", "webp"])
def test_jpeg_and_webp_have_the_metadata_in_exif(file_format: str) -> None:
    data = encode_output(Image.new("RGB", (8, 8)), file_format, 95, TEXTS)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == file_format.upper()
        exif = image.getexif()
    assert exif[ExifTags.Base.ImageDescription] == TEXTS["darkroom"]
    comment = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be") == TEXTS["parameters"]


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("length", [10_000, 60_000])
def test_metadata_with_long_prompts_fits_into_the_file(file_format: str, length: int) -> None:
    texts = {"darkroom": json.dumps({"prompt": "x" * length}), "parameters": "卵" * 30_000}
    data = encode_output(Image.new("RGB", (8, 8)), file_format, 95, texts)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        if file_format == "png":
            assert image.text == texts  # type: ignore[attr-defined]
        else:
            assert image.getexif()[ExifTags.Base.ImageDescription] == texts["darkroom"]


def test_a_jpeg_omits_metadata_that_does_not_fit() -> None:
    texts = {"darkroom": "x" * 100_000, "parameters": "y"}
    data = encode_output(Image.new("RGB", (8, 8)), "jpeg", 95, texts)
    with Image.open(io.BytesIO(data)) as image:
        assert len(image.getexif()) == 0


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_the_same_image_and_metadata_give_the_same_bytes(file_format: str) -> None:
    image = Image.effect_noise((32, 32), 50).convert("RGB")
    first = encode_output(image, file_format, 90, TEXTS)
    assert encode_output(image.copy(), file_format, 90, dict(TEXTS)) == first


def test_lower_quality_makes_a_smaller_file() -> None:
    image = Image.effect_noise((64, 64), 50).convert("RGB")
    sizes = [len(encode_output(image, "jpeg", quality, TEXTS)) for quality in (30, 95)]
    assert sizes[0] < sizes[1]
