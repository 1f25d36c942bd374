"""The memory of the API and its decoder processes while a hundred clients send the worst images at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from PIL import Image

from tests.support.api_process import api_process
from tests.support.images import encode_image, encode_solid

MIB = 2**20
#: Sum of what the API's resident set grows by and of the peaks of its decoder processes; 48 such images once took
#: the API alone to 4.4 GB.
LIMIT_BYTES = 512 * MIB


def peak_bytes(process: psutil.Process) -> int:
    """The largest resident set that a process has had."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def test_a_hundred_of_the_largest_images_at_once_take_a_bounded_amount_of_memory(
    redis_url: str, tmp_path: Path
) -> None:
    # Of all images within the limits, one that is turned takes most: all of its pixels twice, in four bytes each.
    turned = Image.Exif()
    turned[0x0112] = 6
    sideways = Image.new("RGB", (7071, 7071), "red")
    worst = encode_image(sideways, "TIFF", compression="tiff_deflate", exif=turned)
    small = encode_solid("RGB", (64, 64), "red")

    # A queue of one makes the test cheap: most are refused at once. A longer one takes time and not memory.
    with api_process(redis_url, tmp_path, DARKROOM_API_DECODER_QUEUE="1") as (client, process):

        def upload(data: bytes) -> tuple[int, str | None]:
            response = client.post(
                "/v1/uploads", content=data, headers={"Content-Type": "application/octet-stream"}, timeout=120
            )
            return response.status_code, response.headers.get("retry-after")

        api = psutil.Process(process.pid)
        assert upload(small) == (201, None)
        at_first = api.memory_info().rss
        with ThreadPoolExecutor(100) as threads:
            answers = list(threads.map(upload, [worst] * 100))
            assert client.get("/healthz").status_code == 200
        assert upload(small) == (200, None)
        peaks = [peak_bytes(api) - at_first, *map(peak_bytes, api.children())]

    assert set(answers) <= {(201, None), (200, None), (503, "2")}
    assert (503, "2") in answers
    assert {201, 200} & {status for status, _ in answers}
    assert len(peaks) >= 3
    assert sum(peaks) < LIMIT_BYTES, [peak // MIB for peak in peaks]
