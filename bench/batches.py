"""What the service costs on top of diffusers: `python -m bench.batches`.

The same jobs on the same shapes model, once by a bare loop over the pipeline in this process and once through
the whole service (HTTP, Redis, one worker, receipts, storage), at several batch sizes. One thread each.
The figure is the ratio of images per second; the two runs of a pair follow each other, and pairs are repeated.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline

from bench.report import keep_arithmetic, options, report
from bench.table import print_table, spread
from cli.client import Client
from cli.demo import service
from contracts.catalogue import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from worker.warnings import silence_known_warnings

STEPS, GUIDANCE, SIDE = 12, 3.0, 64
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan", "white", "black")


def prompts(count: int) -> list[str]:
    """Different prompts, so that nothing is remembered from one to the next."""
    return [
        f"a {COLOURS[number % 8]} circle on a {COLOURS[(number // 8 + number + 1) % 8]} background"
        for number in range(count)
    ]


def load() -> Any:
    """The pipeline as a script would have it."""
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    folder = catalogue.locate(catalogue.model("shapes-sdxl").source)
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def bare_rate(pipeline: Any, count: int, batch: int) -> float:
    """Images per second of a loop that also encodes PNG, as whoever serves images must."""
    texts, started = prompts(count), time.perf_counter()
    for place in range(0, count, batch):
        part = texts[place : place + batch]
        with torch.inference_mode():
            images = pipeline(
                part,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                width=SIDE,
                height=SIDE,
                generator=[torch.Generator().manual_seed(seed) for seed in range(len(part))],
            ).images
        for image in images:
            image.save(io.BytesIO(), "PNG")
    return count / (time.perf_counter() - started)


def service_rate(client: Client, count: int) -> float:
    """Images per second of the service, from the first job's start to the last one's end."""
    body = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
    ids = [client.submit("txt2img", body | {"prompt": text})["id"] for text in prompts(count)]
    client.wait(ids[-1])
    jobs = [client.wait(id) for id in ids]
    begun = min(_seconds(job["started_at"]) for job in jobs)
    return count / (max(_seconds(job["finished_at"]) for job in jobs) - begun)


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def main() -> None:
    """Measure the pairs and print the table."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--jobs", type=int, default=16, help="images of one run (%(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    arguments = parser.parse_args()
    keep_arithmetic()
    silence_known_warnings()
    torch.set_num_threads(1)
    with report("batches"):
        pipeline = load()
        rows = [row(pipeline, batch, arguments.jobs, arguments.runs) for batch in arguments.batches]
        print_table(["batch", "bare loop, images/s", "service, images/s", "service ÷ bare"], rows)
        print(f"\nmedian (range) of {arguments.runs} pairs of {arguments.jobs} jobs, one thread each")


def row(pipeline: Any, batch: int, count: int, runs: int) -> list[object]:
    """Pairs at one batch size."""
    os.environ["DARKROOM_WORKER_MAX_BATCH_IMAGES"] = str(batch)
    with tempfile.TemporaryDirectory() as data, service(Path(data)) as url, Client(url) as client:
        with suppress(ZeroDivisionError):
            service_rate(client, batch)
        bare_rate(pipeline, batch, batch)
        pairs = [(bare_rate(pipeline, count, batch), service_rate(client, count)) for _ in range(runs)]
    rates = (spread([pair[side] for pair in pairs]) for side in (0, 1))
    return [batch, *rates, spread([served / bare for bare, served in pairs], 2)]


if __name__ == "__main__":
    main()
