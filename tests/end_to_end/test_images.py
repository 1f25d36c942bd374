"""Input images in every form, and output images in every format, over HTTP."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable

import numpy
import pytest
from PIL import Image, ImageCms

from tests.support.color_profiles import DISPLAY_P3, rgb_profile
from tests.support.images import draw_shape, encode_image, left_half_mask, to_base64, to_data_url
from tests.support.running_service import RunningService

STEPS = {"num_inference_steps": 2, "seed": 1}
#: A mask that regenerates the first rows.
CORNER = Image.new("L", (64, 64), 0)
CORNER.paste(255, (0, 0, 8, 8))


def by_raw_upload(service: RunningService, image: Image.Image) -> str:
    response = service.http.post("/v1/uploads", content=encode_image(image), headers={"content-type": "image/png"})
    assert response.status_code in (200, 201), response.text
    return str(response.json()["id"])


def by_multipart_upload(service: RunningService, image: Image.Image) -> str:
    response = service.http.post("/v1/uploads", files={"file": ("a.png", encode_image(image), "image/png")})
    assert response.status_code in (200, 201), response.text
    return str(response.json()["id"])


INPUT_FORMS: dict[str, Callable[[RunningService, Image.Image], str]] = {
    "data URL": lambda _, image: to_data_url(image),
    "bare base64": lambda _, image: to_base64(image),
    "raw upload": by_raw_upload,
    "multipart upload": by_multipart_upload,
}


def test_every_form_of_input_image_gives_the_same_result(service: RunningService) -> None:
    images = {
        form: service.bytes_of(service.run("img2img", image=refer(service, draw_shape()), **STEPS))
        for form, refer in INPUT_FORMS.items()
    }
    assert len(set(images.values())) == 1, images.keys()


def test_an_upload_is_described_and_has_the_same_id_twice(service: RunningService) -> None:
    answers = [
        service.http.post(
            "/v1/uploads", content=encode_image(draw_shape(side=80)), headers={"content-type": "image/png"}
        ).json()
        for _ in range(2)
    ]
    assert answers[0]["id"] == answers[1]["id"] == f"upload:{answers[0]['sha256']}"
    assert (answers[0]["width"], answers[0]["height"], answers[0]["format"]) == (80, 80, "png")


def unusual_images() -> dict[str, bytes]:
    """The same drawing in formats that a naive server gets wrong."""
    upright = draw_shape("circle", "red", "blue")
    rotated = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # displayed rotated by 270°, which undoes the rotation above
    grey = numpy.asarray(upright.convert("L"), numpy.uint16) * 257
    clear = upright.convert("RGBA")
    clear.putalpha(255)
    return {
        "palette": encode_image(upright.quantize(16)),
        "jpeg": encode_image(upright, "jpeg"),
        "webp": encode_image(upright, "webp"),
        "cmyk": encode_image(upright.convert("CMYK"), "jpeg"),
        "rgba": encode_image(clear),
        "16-bit grey": encode_image(Image.fromarray(grey)),
        "rotated": _with_exif(rotated, exif),
    }


def _with_exif(image: Image.Image, exif: Image.Exif) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", sorted(unusual_images()))
def test_images_of_every_kind_are_decoded_as_a_person_sees_them(service: RunningService, kind: str) -> None:
    """Outside of the mask, the image comes back as the service decoded it."""
    data = unusual_images()[kind]
    upload = service.http.post("/v1/uploads", content=data, headers={"content-type": "application/octet-stream"})
    returned = service.generate("inpaint", image=upload.json()["id"], mask_image=to_data_url(CORNER), **STEPS)
    wanted = draw_shape("circle", "red", "blue")
    if kind == "16-bit grey":
        wanted = wanted.convert("L").convert("RGB")
    difference = numpy.abs(numpy.asarray(returned, int) - numpy.asarray(wanted, int))[8:]
    assert difference.mean() < 7, difference.mean()


def test_the_untouched_part_of_a_photo_in_display_p3_has_the_colors_that_one_sees(service: RunningService) -> None:
    profile = rgb_profile(DISPLAY_P3, "Display P3")
    target, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    seen = Image.new("RGB", (64, 64), (40, 160, 80))
    photo = ImageCms.profileToProfile(seen, srgb, target, outputMode="RGB")
    assert photo is not None
    image = base64.b64encode(encode_image(photo, icc_profile=profile)).decode()

    job = service.run("inpaint", image=image, mask_image=to_data_url(CORNER), **STEPS)

    pixels = numpy.asarray(service.image_of(job).convert("RGB"), int)[8:]
    assert numpy.abs(pixels - (40, 160, 80)).max() <= 2
    (used, _) = job["receipt"]["parameters"]["input_images"]
    assert used["color_profile"] == "converted from Display P3 to sRGB"


@pytest.mark.parametrize(("fit", "left"), [("cover", (0, 255, 0)), ("pad", (255, 0, 0)), ("stretch", (255, 0, 0))])
def test_an_image_of_another_aspect_fills_the_output_as_fit_says(
    service: RunningService, fit: str, left: tuple[int, int, int]
) -> None:
    wide, mask = Image.new("RGB", (256, 64)), Image.new("L", (256, 64), 0)
    for index, color in enumerate(("red", "lime", "blue", "white")):
        wide.paste(color, (index * 64, 0, index * 64 + 64, 64))
    mask.paste(255, (128, 0, 136, 8))
    size = {"width": 128, "height": 64}

    job = service.run("inpaint", image=to_data_url(wide), mask_image=to_data_url(mask), fit=fit, **size, **STEPS)

    image = service.image_of(job).convert("RGB")
    assert image.size == (128, 64)
    assert image.getpixel((4, 32)) == left
    assert [use["fit"] for use in job["receipt"]["parameters"]["input_images"]] == [fit] * 2


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_every_output_format_contains_the_receipt(service: RunningService, output_format: str) -> None:
    job = service.run("txt2img", output_format=output_format, **STEPS)
    response = service.http.get(job["images"][0]["url"])
    assert response.headers["content-type"] == f"image/{output_format}"
    image = service.image_of(job)
    assert str(image.format).lower() == output_format == job["images"][0]["format"]
    if output_format == "png":
        receipt = image.info["darkroom"]
    else:
        exif = image.getexif()
        texts = [str(value) for value in (*exif.values(), *exif.get_ifd(0x8769).values())]
        receipt = next(text[text.index("{") :] for text in texts if "darkroom" in text or '"seed"' in text)
    assert json.loads(receipt)["seed"] == 1


def test_images_are_served_with_an_etag_as_immutable(service: RunningService) -> None:
    job = service.run("txt2img", **STEPS)
    first = service.http.get(job["images"][0]["url"])
    assert "immutable" in first.headers["cache-control"]
    again = service.http.get(job["images"][0]["url"], headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""


def test_images_are_returned_as_base64_if_requested(service: RunningService) -> None:
    job = service.run("txt2img", response_format="b64_json", **STEPS)
    assert base64.b64decode(job["images"][0]["b64_json"]) == service.bytes_of(job)


@pytest.mark.parametrize("model", ["shapes-sdxl", "shapes-sd3", "shapes-flux"])
def test_inpainting_changes_no_pixel_outside_the_mask(service: RunningService, model: str) -> None:
    source = draw_shape("circle", "red", "blue")
    image = service.generate(
        "inpaint",
        model=model,
        image=to_data_url(source),
        mask_image=to_data_url(left_half_mask()),
        strength=1.0,
        **STEPS,
    )
    before, after = numpy.asarray(source, int), numpy.asarray(image, int)
    assert (before[:, 32:] == after[:, 32:]).all()
    assert numpy.abs(before[:, :32] - after[:, :32]).mean() > 2
