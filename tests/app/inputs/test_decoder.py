"""Images are decoded in processes of their own, with a short queue, a time limit and a memory limit."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.inputs.codec.limits import Limits
from app.inputs.decoder import ImageDecoder, InputImage
from app.inputs.process import DecoderProcess
from contracts.errors import ImageTooLarge, InvalidRequest, NotAnImage, TooManyImages
from tests.support.images import encode_image, encode_solid, mask_with_hole, open_png, png_header
from tests.support.waiting import wait_until

LIMITS = Limits(max_bytes=2**20, max_side=8192, max_pixels=10_000_000, max_decoded_bytes=2**26)
SMALL = encode_solid("RGB", (40, 24), "red")
#: 18 MB in memory, and a few kilobytes as a file.
LARGE = encode_solid("RGB", (4096, 1100), "red")


@pytest.fixture(autouse=True)
def no_other_processes(usual_decoder: ImageDecoder) -> None:
    """End those that tests share, which start again when they are needed: these tests look at all there are."""
    usual_decoder.close()


@pytest.fixture
def decoder() -> Iterator[ImageDecoder]:
    with closing(ImageDecoder(LIMITS, processes=1, max_waiting=1)) as decoder:
        yield decoder


def decoder_processes() -> list[psutil.Process]:
    """The decoder processes of this test, the oldest first."""
    children = psutil.Process().children()
    found = [child for child in children if "app.inputs.decoder_process" in child.cmdline()]
    return sorted(found, key=lambda child: child.create_time())


def calls_of(decoder: ImageDecoder) -> int:
    """How many calls the processes for small images have, waiting ones included."""
    return len(decoder._small._waiting) + decoder._small._running.total()


def test_an_image_is_named_by_the_bytes_received(decoder: ImageDecoder) -> None:
    image = decoder.decode(SMALL, "image")

    assert (image.width, image.height, image.format, image.stored_format) == (40, 24, "png", "png")
    assert image.sha256 == hashlib.sha256(SMALL).hexdigest()


def test_a_mask_is_white_where_the_image_is_transparent(decoder: ImageDecoder) -> None:
    mask = decoder.decode_alpha_mask(encode_image(mask_with_hole()), "mask")

    assert open_png(mask.data).getpixel((32, 32)) == 255
    assert open_png(mask.data).getpixel((2, 2)) == 0
    assert mask.sha256 == hashlib.sha256(mask.data).hexdigest()


def test_errors_name_the_field_and_what_is_allowed(decoder: ImageDecoder) -> None:
    with pytest.raises(NotAnImage, match="not an image in a supported format") as unreadable:
        decoder.decode(b"not an image", "controls.0.image")
    with pytest.raises(ImageTooLarge, match="at most 8192 pixels wide") as too_large:
        decoder.decode(png_header(1, 10_000), "mask_image")
    with pytest.raises(InvalidRequest, match="it is opaque") as opaque:
        decoder.decode_alpha_mask(SMALL, "mask")

    assert unreadable.value.problem.field == "controls.0.image"
    assert unreadable.value.problem.allowed == ["png", "jpeg", "webp", "gif", "bmp", "tiff", "avif"]
    assert (too_large.value.problem.field, too_large.value.problem.allowed) == ("mask_image", "sides ≤ 8192")
    assert opaque.value.problems[0].field == "mask"


def test_more_bytes_than_the_limit_are_refused_unread(decoder: ImageDecoder) -> None:
    with pytest.raises(ImageTooLarge, match="larger than 1048576 bytes") as caught:
        decoder.decode(b"x" * (2**20 + 1), "image")

    assert caught.value.problem.allowed == "up to 1048576 bytes"
    assert not decoder_processes()


def test_images_beyond_the_queue_are_refused_at_once(decoder: ImageDecoder) -> None:
    decoder.decode(SMALL, "image")
    (process,) = decoder_processes()
    process.suspend()
    with ThreadPoolExecutor(3) as threads:
        calls = [threads.submit(decoder.decode, SMALL, "image") for _ in range(3)]
        refused, others = wait(calls, timeout=60, return_when=FIRST_EXCEPTION)
        process.resume()

        (error,) = [call.exception() for call in refused]
        assert isinstance(error, TooManyImages)
        assert error.retry_after_seconds == 2
        assert [call.result(timeout=60).width for call in others] == [40, 40]


def test_an_owner_who_fills_the_queue_gives_way_to_others_and_waits_for_their_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = {"greedy": SMALL, "modest": encode_solid("RGB", (40, 24), "blue")}
    order: list[bytes] = []
    exchange = DecoderProcess.exchange

    def observed(process: DecoderProcess, request: Mapping[str, Any], data: bytes) -> Any:
        order.append(data)
        return exchange(process, request, data)

    monkeypatch.setattr(DecoderProcess, "exchange", observed)

    with closing(ImageDecoder(LIMITS, processes=1, max_waiting=3)) as decoder, ThreadPoolExecutor(8) as threads:
        decoder.decode(SMALL, "image")
        (process,) = decoder_processes()
        process.suspend()
        greedy = []
        for _ in range(4):
            greedy.append(threads.submit(decoder.decode, SMALL, "image", "greedy"))
            wait_until(lambda: calls_of(decoder) == len(greedy))
        with pytest.raises(TooManyImages):
            decoder.decode(SMALL, "image", "greedy")
        modest = threads.submit(decoder.decode, images["modest"], "image", "modest")
        assert isinstance(greedy[3].exception(timeout=60), TooManyImages)
        process.resume()

        assert [call.result(timeout=60).width for call in (*greedy[:3], modest)] == [40] * 4
    assert order == [images[owner] for owner in ("greedy", "greedy", "modest", "greedy", "greedy")]


def test_a_large_image_does_not_keep_small_ones_waiting(decoder: ImageDecoder) -> None:
    decoder.decode(LARGE, "image")
    large = decoder_processes()[1]
    large.suspend()
    with ThreadPoolExecutor(1) as threads:
        waiting: Future[InputImage] = threads.submit(decoder.decode, LARGE, "image")
        small = [decoder.decode(SMALL, "image").width for _ in range(5)]
        assert not waiting.done()
        large.resume()

        assert waiting.result(timeout=60).width == 4096
    assert small == [40] * 5


def test_an_image_that_takes_too_long_ends_with_its_process_and_the_next_one_is_decoded() -> None:
    with closing(ImageDecoder(LIMITS, processes=1, timeout_seconds=5.0)) as decoder:
        decoder.decode(SMALL, "image")
        (process,) = decoder_processes()
        process.suspend()

        with pytest.raises(ImageTooLarge, match="takes over 5 s to decode"):
            decoder.decode(SMALL, "image")

        wait_until(lambda: not process.is_running())
        assert decoder.decode(SMALL, "image").width == 40


def test_decoding_gives_way_to_the_api_where_processors_are_few(decoder: ImageDecoder) -> None:
    decoder.decode(SMALL, "image")
    (process,) = decoder_processes()
    assert process.nice() > psutil.Process().nice()


def test_a_process_that_dies_of_an_image_is_replaced(decoder: ImageDecoder) -> None:
    decoder.decode(SMALL, "image")
    (process,) = decoder_processes()
    process.suspend()
    killer = threading.Timer(0.2, os.kill, [process.pid, signal.SIGKILL])
    killer.start()

    with pytest.raises(NotAnImage, match="cannot be decoded"):
        decoder.decode(SMALL, "image")

    killer.join()
    assert decoder.decode(SMALL, "image").width == 40


def test_a_process_has_bounded_memory_and_none_of_the_services_secrets(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_LINK_SECRET", "hunter2")
    decoder.decode(SMALL, "image")

    (process,) = decoder_processes()
    soft, hard = process.rlimit(psutil.RLIMIT_AS)
    assert soft == hard == 2**28 + 4 * LIMITS.max_bytes + 3 * LIMITS.max_decoded_bytes
    assert b"hunter2" not in Path(f"/proc/{process.pid}/environ").read_bytes()


def test_processes_end_when_the_service_is_gone(decoder: ImageDecoder) -> None:
    decoder.decode(SMALL, "image")
    (process,) = decoder_processes()
    assert decoder._small._processes[0]._process is not None
    stdin = decoder._small._processes[0]._process.stdin
    assert stdin is not None

    stdin.close()

    wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE)


def test_an_empty_file_is_called_empty(decoder: ImageDecoder) -> None:
    with pytest.raises(NotAnImage, match="is empty: a file of 0 bytes"):
        decoder.decode(b"", "image")


def test_a_heic_file_is_named_where_it_cannot_be_read(decoder: ImageDecoder) -> None:
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)

    with pytest.raises(NotAnImage, match=r"is a HEIC image, which this service is not set up to read|corrupt"):
        decoder.decode(heic, "image")


def test_an_avif_is_decoded_in_a_process_and_bounded_as_others_are(decoder: ImageDecoder) -> None:
    image = decoder.decode(encode_solid("RGB", (40, 24), "red", "AVIF"), "image")
    assert (image.width, image.height, image.format, image.stored_format) == (40, 24, "avif", "png")

    with pytest.raises(ImageTooLarge, match="may decode to at most"):
        decoder.decode(encode_solid("RGB", (3000, 3000), "red", "AVIF", speed=10), "image")
