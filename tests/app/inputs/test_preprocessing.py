"""Control images are made in a process of their own: what happens to it happens to no other image."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from app.inputs.codec.limits import Limits
from app.inputs.decoder import ImageDecoder
from contracts.catalogue.rows.preprocessors import PREPROCESSORS
from contracts.errors import ImageTooLarge, NotAnImage
from contracts.requests.images.preprocessing import resolve_options
from tests.support.images import encode_solid
from tests.support.waiting import wait_until

LIMITS = Limits(max_bytes=2**20, max_side=8192, max_pixels=10_000_000, max_decoded_bytes=2**26)
SMALL = encode_solid("RGB", (40, 24), "red")
INVERT = resolve_options(PREPROCESSORS["invert"], {}, 64)


def test_images_are_decoded_while_a_control_image_takes_long() -> None:
    with closing(ImageDecoder(LIMITS, processes=1)) as decoder, ThreadPoolExecutor(1) as threads:
        first = decoder.preprocess(SMALL, "invert", INVERT, "image")
        process = decoder._preprocessing._processes[0]._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        hanging = threads.submit(decoder.preprocess, SMALL, "invert", INVERT, "controls.0.image")
        wait_until(lambda: decoder._preprocessing._running.total() == 1)

        assert decoder.decode(SMALL, "image").width == 40

        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(NotAnImage) as caught:
            hanging.result(60)
        assert caught.value.problem.field == "controls.0.image"
        assert decoder.preprocess(SMALL, "invert", INVERT, "image") == first


def test_a_control_image_that_is_too_large_a_file_is_refused() -> None:
    noise = encode_solid("L", (300, 300), 7, "JPEG")
    limits = Limits(max_bytes=2000, max_side=8192, max_pixels=10_000_000, max_decoded_bytes=2**26)
    with closing(ImageDecoder(limits, processes=1)) as decoder:
        assert (
            decoder.preprocess(noise, "invert", resolve_options(PREPROCESSORS["invert"], {}, 64), "image").width
            == 64
        )
        with pytest.raises(ImageTooLarge, match="more than 2000 bytes as PNG"):
            decoder.preprocess(noise, "invert", resolve_options(PREPROCESSORS["invert"], {}, 2048), "image")
