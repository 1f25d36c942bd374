"""Every form of image reference, and the error for each invalid one."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from app.inputs.codec.limits import Limits
from app.inputs.decoder import ImageDecoder
from app.inputs.image import store_image
from app.inputs.reader import InputReader
from contracts.errors import ImageTooLarge, InvalidRequest, NotAnImage
from contracts.queue.client import JobQueue
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.schema import ControlNetRequest, Img2ImgRequest, InpaintRequest
from contracts.storage import Storage
from contracts.uploads import images as uploads
from contracts.uploads.retention import Retention
from tests.support.images import data_url, encode_solid, to_base64

RED = encode_solid("RGB", (32, 16), "red")
LIMITS = Limits(max_bytes=10_000, max_side=4096, max_pixels=1_000_000, max_decoded_bytes=4_000_000)
TEXT = base64.b64encode(RED).decode()
MASK = base64.b64encode(encode_solid("L", (32, 16), 255)).decode()


@pytest.fixture(scope="module")
def decoder() -> Iterator[ImageDecoder]:
    with closing(ImageDecoder(LIMITS)) as decoder:
        yield decoder


@pytest.fixture
def reader(decoder: ImageDecoder, queue: JobQueue, storage: Storage, retention: Retention) -> InputReader:
    return InputReader(decoder, queue, storage, retention, "local")


def img2img(image: str) -> Img2ImgRequest:
    return Img2ImgRequest(prompt="x", image=image)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"data:image/png;base64,{TEXT}",
        f"DATA:application/octet-stream;charset=x;BASE64,{TEXT}",
        f"data:;base64,{TEXT}",
        "\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)) + "\r\n",
    ],
)
def test_bytes_in_the_request_are_read(reader: InputReader, text: str) -> None:
    (found,) = reader.read(img2img(text)).values()

    assert (found.stored.width, found.stored.height) == (32, 16)
    assert found.decoded is not None


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("extra", range(3))
def test_base64_for_urls_and_without_padding_is_read(reader: InputReader, format: str, extra: int) -> None:
    data = encode_solid("RGB", (32, 16), "red", format) + b"\xff" * extra  # each length of padding
    text = base64.urlsafe_b64encode(data).decode().rstrip("=")

    for form in (text, f"data:image/png;base64,{text}", base64.b64encode(data).decode()):
        (found,) = reader.read(img2img(form)).values()
        assert (found.stored.width, found.stored.height) == (32, 16)


def test_reading_does_not_store_images(reader: InputReader, storage: Storage) -> None:
    inputs = reader.read(img2img(TEXT))
    assert storage.find("inputs/") == []

    reader.store(inputs)

    image = inputs["image"]
    assert image.decoded is not None
    assert storage.read(image.stored.key) == image.decoded.data
    assert storage.find("inputs/") == [image.stored.key]


def test_the_same_bytes_are_written_once(
    decoder: ImageDecoder, storage: Storage, retention: Retention, tmp_path: Path
) -> None:
    image = decoder.decode(RED, "image")
    path = tmp_path / "storage" / store_image(storage, retention, image, 60)
    written = path.stat().st_mtime_ns

    assert tmp_path / "storage" / store_image(storage, retention, image, 60) == path

    assert path.stat().st_mtime_ns == written


def test_the_same_bytes_in_two_fields_have_one_key(reader: InputReader) -> None:
    control = {"controlnet": "c", "image": TEXT}
    request = ControlNetRequest.model_validate({"prompt": "x", "image": TEXT, "controls": [control]})

    image, hint = reader.read(request).values()

    assert image.stored.key == hint.stored.key


def test_the_same_bytes_as_an_image_and_as_a_mask_are_two_files(reader: InputReader) -> None:
    canvas = Image.new("RGBA", (32, 16))
    canvas.paste((90, 0, 0, 255), (4, 2, 10, 8))
    text = to_base64(canvas)
    request = InpaintRequest.model_validate({"prompt": "x", "image": text, "mask_image": text})

    inputs = reader.read(request)

    assert inputs["image"].stored.key != inputs["mask_image"].stored.key
    assert inputs["mask_image"].stored.white == (4, 2, 10, 8)
    assert inputs["mask_image"].stored.mask_source == "what is drawn on transparent"


def test_a_mask_named_by_its_upload_is_read_as_a_mask(
    reader: InputReader, decoder: ImageDecoder, queue: JobQueue, storage: Storage, retention: Retention
) -> None:
    black = decoder.decode(encode_solid("L", (32, 16), 0), "file")
    store_image(storage, retention, black, 60)
    upload, _ = uploads.remember(queue.connection, "local", black, ttl_seconds=60)
    request = InpaintRequest.model_validate({"prompt": "x", "image": TEXT, "mask_image": upload.id})

    with pytest.raises(InvalidRequest, match="mask_image: changes no pixel: it is black everywhere"):
        reader.read(request)


def test_what_was_done_about_a_color_profile_is_known_of_uploads_too(
    reader: InputReader, decoder: ImageDecoder, queue: JobQueue, storage: Storage, retention: Retention
) -> None:
    image = decoder.decode(encode_solid("RGB", (32, 16), "red", icc_profile=b"broken"), "file")
    store_image(storage, retention, image, 60)
    upload, _ = uploads.remember(queue.connection, "local", image, ttl_seconds=60)

    (found,) = reader.read(img2img(upload.id)).values()

    assert upload.color_profile == found.stored.color_profile == "ignored: the color profile is broken"


def test_when_another_request_registers_the_same_image_first_its_key_counts(
    reader: InputReader, storage: Storage, retention: Retention
) -> None:
    inputs = reader.read(img2img(TEXT))
    (late,) = inputs.values()
    assert late.decoded is not None
    first = retention.retain(late.decoded.sha256, 60)

    assert not reader.store(inputs)
    assert not storage.exists(late.stored.key)

    again = reader.read(img2img(TEXT))
    assert [image.stored.key for image in again.values()] == [first]
    assert reader.store(again)
    assert storage.exists(first)


def test_every_image_of_a_request_is_read_under_its_path(reader: InputReader) -> None:
    control = {"controlnet": "c", "image": TEXT}
    request = ControlNetRequest.model_validate(
        {"prompt": "x", "image": TEXT, "mask_image": MASK, "controls": [control, {"controlnet": "d"}, control]}
    )

    assert set(reader.read(request)) == {"image", "mask_image", "controls.0.image", "controls.2.image"}


def test_an_upload_is_found_without_decoding_it_again(
    reader: InputReader, decoder: ImageDecoder, queue: JobQueue, storage: Storage, retention: Retention
) -> None:
    image = decoder.decode(RED, "file")
    key = store_image(storage, retention, image, 60)
    upload, _ = uploads.remember(queue.connection, "local", image, ttl_seconds=60)

    (found,) = reader.read(img2img(upload.id)).values()

    assert found.stored == StoredImage(key, 32, 16)
    assert found.decoded is None


def test_bytes_that_are_not_an_image_are_refused(reader: InputReader) -> None:
    with pytest.raises(NotAnImage):
        reader.read(img2img(base64.b64encode(b"a text").decode()))


def test_the_byte_limit_is_exact(queue: JobQueue, storage: Storage, retention: Retention) -> None:
    with closing(ImageDecoder(replace(LIMITS, max_bytes=len(RED)))) as decoder:
        exact = InputReader(decoder, queue, storage, retention, "local")

        assert exact.read(img2img(data_url(RED)))
        with pytest.raises(ImageTooLarge):
            exact.read(img2img(data_url(RED + b"\0")))


def test_what_is_wrong_with_each_of_several_images_is_told_at_once(reader: InputReader) -> None:
    request = InpaintRequest(prompt="x", image="upload:none", mask_image=base64.b64encode(b"text").decode())

    with pytest.raises(InvalidRequest) as caught:
        reader.read(request)

    assert [problem.field for problem in caught.value.problems] == ["image", "mask_image"]
    assert reader.find_problems(request, {}, []) == list(caught.value.problems)
    assert [problem.field for problem in reader.find_problems(request, {}, ["image"])] == ["mask_image"]
    assert reader.find_problems(img2img("https://example.com/a.png"), {}, []) == []
