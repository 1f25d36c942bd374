"""`darkroom generate`: one job through the API, with a progress bar; writes the images, prints the job id."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cli.client import Client, Json, ServiceError, encode_picture

#: Command-line option -> field of the request; options that were not given are left out.
_PLAIN_FIELDS = {
    "model": "model", "negative": "negative_prompt", "width": "width", "height": "height",
    "steps": "num_inference_steps", "guidance": "guidance_scale", "seed": "seed", "scheduler": "scheduler",
    "strength": "strength", "mask_blur": "mask_blur", "num_images": "num_images", "format": "output_format",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.add_argument("prompt", help="what the image shows")
    parser.add_argument("-o", "--output", type=Path, default=Path("out.png"), help="file to write (%(default)s)")
    parser.add_argument("--model", help="id from `darkroom models`; the service's default otherwise")
    parser.add_argument("--negative", help="what the image must not show")
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument("--guidance", type=float, help="guidance scale")
    parser.add_argument("--seed", type=int, help="names the random numbers; the same seed gives the same image")
    parser.add_argument("--scheduler", help="name from /v1/schedulers")
    parser.add_argument("-n", "--num-images", type=int)
    parser.add_argument("--format", choices=["png", "jpeg", "webp"])
    parser.add_argument("--image", type=Path, help="image to start from (img2img, inpaint)")
    parser.add_argument("--mask", type=Path, help="white where the image is painted anew (inpaint)")
    parser.add_argument("--mask-blur", type=int, help="pixels over which the mask's edge fades")
    parser.add_argument("--strength", type=float, help="0 to 1: how far to leave the image")
    parser.add_argument(
        "--control", action="append", default=[], metavar="CONTROLNET=FILE", help="a ControlNet and its picture"
    )
    parser.add_argument("--lora", action="append", default=[], metavar="NAME[:SCALE]", help="an adapter")
    add_service_arguments(parser)


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe where the service is and what opens it."""
    parser.add_argument(
        "--server",
        default=os.environ.get("DARKROOM_SERVER", "http://127.0.0.1:8000"),
        help="the service, also DARKROOM_SERVER (%(default)s)",
    )
    parser.add_argument(
        "--key", default=os.environ.get("DARKROOM_API_KEY"), help="an API key; better said as DARKROOM_API_KEY"
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
    """The task, which follows from the pictures that were given, and the request's body."""
    body: Json = {"prompt": arguments.prompt}
    for option, field in _PLAIN_FIELDS.items():
        if getattr(arguments, option) is not None:
            body[field] = getattr(arguments, option)
    if arguments.image:
        body["image"] = encode_picture(arguments.image)
    if arguments.mask:
        body["mask_image"] = encode_picture(arguments.mask)
    if arguments.lora:
        body["loras"] = [_read_lora(text) for text in arguments.lora]
    if arguments.control:
        body["controls"] = [_read_control(text) for text in arguments.control]
        return "controlnet", body
    if arguments.mask:
        return "inpaint", body
    return ("img2img" if arguments.image else "txt2img"), body


def follow(client: Client, job: Json, label: str = "") -> Json:
    """Wait for a job with a progress bar on standard error, where a person watches.

    Raises:
        ServiceError: the job failed or was cancelled.
    """
    watched = sys.stderr.isatty() or bool(os.environ.get("DARKROOM_PROGRESS"))
    with tqdm(total=None, unit="step", desc=label or job["task"], disable=not watched) as bar:

        def show(current: Json) -> None:
            progress: dict[str, Any] = current.get("progress") or {}
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
    """Write a job's images: to `output`, or `output-0`, `output-1`, … where there are several."""
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
        raise ServiceError(f"--lora {text}: {scale!r} is no number") from None


def _read_control(text: str) -> Json:
    name, separator, path = text.partition("=")
    if not separator:
        raise ServiceError(f"--control {text}: write it as CONTROLNET=FILE")
    return {"controlnet": name, "image": encode_picture(Path(path))}
