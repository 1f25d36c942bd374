"""`darkroom generate`: one job through the API, with a progress bar; writes the images, prints the job id."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cli.client import Client, Json, ServiceError, encode_image
from contracts.processes.preparations import Preparation

#: Command-line option -> field of the request; options that were not given are left out.
_PLAIN_FIELDS = {
    "model": "model", "negative": "negative_prompt", "width": "width", "height": "height",
    "steps": "num_inference_steps", "guidance": "guidance_scale", "seed": "seed", "scheduler": "scheduler",
    "strength": "strength", "mask_blur": "mask_blur", "num_images": "num_images", "format": "output_format",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("prompt", help="what the image should show")
    parser.add_argument("-o", "--output", type=Path, default=Path("out.png"), help="file to write (%(default)s)")
    parser.add_argument("--model", help="id from `darkroom models`; the service's default otherwise")
    parser.add_argument("--negative", help="what the image should not show")
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument("--guidance", type=float, help="guidance scale")
    parser.add_argument("--seed", type=int, help="seed of the random numbers; the same seed gives the same image")
    parser.add_argument("--scheduler", help="name from /v1/schedulers")
    parser.add_argument("-n", "--num-images", type=int)
    parser.add_argument("--format", choices=["png", "jpeg", "webp"])
    parser.add_argument("--image", type=Path, help="image to start from (img2img, inpaint)")
    parser.add_argument(
        "--mask", type=Path, help="mask image; white areas are generated, black areas are kept (inpaint)"
    )
    parser.add_argument("--mask-blur", type=int, help="blur radius of the mask's edge, in pixels")
    parser.add_argument("--strength", type=float, help="0 to 1: how much of the image to change")
    parser.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="CONTROLNET=FILE",
        help="a ControlNet and its control image",
    )
    parser.add_argument(
        "--lora", action="append", default=[], metavar="NAME[:SCALE]", help="a LoRA and its scale (1)"
    )
    add_service_arguments(parser)


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the service is and which API key to use."""
    parser.add_argument(
        "--server",
        default=os.environ.get("DARKROOM_SERVER", "http://127.0.0.1:8000"),
        help="URL of the service, or DARKROOM_SERVER (%(default)s)",
    )
    parser.add_argument(
        "--key",
        default=os.environ.get("DARKROOM_API_KEY"),
        help="API key; DARKROOM_API_KEY keeps it out of the process list",
    )


def generate(arguments: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        ServiceError: the service refused, does not answer, or the job failed.
    """
    task, body = compose(arguments)
    with Client(arguments.server, key=arguments.key) as client:
        job = client.submit(task, body)
        print(job["id"])
        job = follow(client, job)
        for path in save(client, job, arguments.output):
            print(path)


def compose(arguments: argparse.Namespace) -> tuple[str, Json]:
    """Build the request: its task, which follows from the images that were given, and its body."""
    body: Json = {"prompt": arguments.prompt}
    for option, field in _PLAIN_FIELDS.items():
        if getattr(arguments, option) is not None:
            body[field] = getattr(arguments, option)
    if arguments.image:
        body["image"] = encode_image(arguments.image)
    if arguments.mask:
        body["mask_image"] = encode_image(arguments.mask)
    if arguments.lora:
        body["loras"] = [_read_lora(text) for text in arguments.lora]
    if arguments.control:
        body["controls"] = [_read_control(text) for text in arguments.control]
        return "controlnet", body
    if arguments.mask:
        return "inpaint", body
    return ("img2img" if arguments.image else "txt2img"), body


def follow(client: Client, job: Json, label: str = "") -> Json:
    """Wait for a job; shows a progress bar on standard error when that is a terminal.

    Raises:
        ServiceError: the job failed or was cancelled.
    """
    watched = sys.stderr.isatty() or bool(os.environ.get("DARKROOM_PROGRESS"))
    with tqdm(total=None, unit="step", desc=label or job["task"], disable=not watched) as bar:

        def show(current: Json) -> None:
            progress: dict[str, Any] = current.get("progress") or {}
            preparing = current.get("preparing")
            bar.set_postfix_str(Preparation.model_validate(preparing).describe() if preparing else "")
            if progress.get("steps"):
                bar.total = progress["steps"]
                bar.update(progress["step"] - bar.n)
            if current["status"] == "completed" and bar.total:
                bar.update(bar.total - bar.n)

        job = client.wait(job["id"], show)
    if job["status"] != "completed":
        reason = (job.get("error") or {}).get("message", "no reason given")
        raise ServiceError(f"job {job['id']} {job['status']}: {reason}")
    return job


def save(client: Client, job: Json, output: Path) -> list[Path]:
    """Write a job's images to `output`, or to `output-0`, `output-1`, … if there are several."""
    images = job["images"]
    paths = [
        output if len(images) == 1 else output.with_stem(f"{output.stem}-{index}") for index in range(len(images))
    ]
    for image, path in zip(images, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.download(image))
    return paths


def _read_lora(text: str) -> Json:
    name, _, scale = text.partition(":")
    try:
        return {"name": name, "scale": float(scale) if scale else 1.0}
    except ValueError:
        raise ServiceError(f"--lora {text}: the scale must be a number, got {scale!r}") from None


def _read_control(text: str) -> Json:
    name, separator, path = text.partition("=")
    if not separator:
        raise ServiceError(f"--control {text}: expected CONTROLNET=FILE")
    return {"controlnet": name, "image": encode_image(Path(path))}
