"""One job from the command line: its options, a progress bar, and files for its images."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cli.client import Client, Json, ServiceError
from contracts.jobs.preparations import Preparation

_DEFAULT_OUTPUT = Path("out.png")
#: Suffix of a file → the format that it promises.
_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_TIMEOUT_SECONDS = 600.0


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where images are written."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="file to write, whose suffix chooses the format: .png, .jpg or .webp; default: out.png, or the next "
        "such name that is free",
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def add_timeout_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how long to wait."""
    parser.add_argument(
        "--timeout",
        type=float,
        default=_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="maximum seconds to wait; the job goes on afterwards (%(default)g)",
    )


def run_job(arguments: argparse.Namespace, task: str, body: Json) -> None:
    """Submit a job, follow it, write its images and print their names; raises as `generate`.

    Args:
        arguments: with the options about output, service, time and `detach`.
    """
    output = choose_output(arguments.output, str(body.get("output_format", "png")))
    names = _names(output, int(body.get("num_images", 1)) * int(body.get("layers", 1)))
    if arguments.output is not None and not arguments.detach:
        refuse_to_overwrite(names, force=arguments.force)  # before anything is computed
    with Client(arguments.server, key=arguments.key) as client:
        job = client.submit(task, body)
        try:
            print(job["id"], flush=True)
            if arguments.detach:
                return
            job = follow(client, job, timeout_seconds=arguments.timeout)
        except KeyboardInterrupt:
            client.cancel(job["id"])
            print(f"darkroom: the service was asked to cancel job {job['id']}", file=sys.stderr)
            raise
        for path in save(client, job, output, force=arguments.force):
            print(path)


def with_format(body: Json, output: Path) -> Json:
    """Ask for the format that the name of the file promises."""
    promised = _FORMATS.get(output.suffix.lower())
    if promised is None:
        known = ", ".join(_FORMATS)
        raise ServiceError(f"-o {output}: the name must end with {known}, which chooses the format")
    asked = body.setdefault("output_format", promised) if promised != "png" else body.get("output_format", "png")
    if asked != promised:
        raise ServiceError(f"-o {output} is a {promised} file by its name, and --format says {asked}: remove one")
    return body


def choose_output(output: Path | None, format: str) -> Path:
    """The file that was named; else `out` with the format's suffix, or the first of `out-2`, … that is free."""
    if output is not None:
        return output
    default, number = _DEFAULT_OUTPUT.with_suffix(_SUFFIXES[format]), 1
    path = default
    while path.exists() or path.with_stem(f"{path.stem}-0").exists():
        number += 1
        path = default.with_stem(f"{default.stem}-{number}")
    return path


def follow(client: Client, job: Json, timeout_seconds: float = _TIMEOUT_SECONDS) -> Json:
    """Wait for a job; shows a progress bar on standard error when that is a terminal.

    Raises:
        ServiceError: the job failed or was cancelled, or goes on for longer.
    """
    watched = sys.stderr.isatty() or bool(os.environ.get("DARKROOM_PROGRESS"))
    with tqdm(total=None, unit="step", desc=job["task"], disable=not watched) as bar:

        def show(current: Json) -> None:
            progress: dict[str, Any] = current.get("progress") or {}
            preparing = current.get("preparing")
            loss = "" if progress.get("loss") is None else f"loss {progress['loss']:.4f}"
            bar.set_postfix_str(Preparation.model_validate(preparing).describe() if preparing else loss)
            if progress.get("steps"):
                bar.total = progress["steps"]
                bar.update(progress["step"] - bar.n)
            if current["status"] == "completed" and bar.total:
                bar.update(bar.total - bar.n)

        job = client.wait(job["id"], show, timeout_seconds)
    return require_completed(job)


def require_completed(job: Json) -> Json:
    """Return a job that has completed.

    Raises:
        ServiceError: it failed or was cancelled, and why.
    """
    if job["status"] != "completed":
        reason = (job.get("error") or {}).get("message")
        raise ServiceError(f"job {job['id']} {job['status']}{f': {reason}' if reason else ''}")
    return job


def save(client: Client, job: Json, output: Path, *, force: bool) -> list[Path]:
    """Write a job's images to `output`, or to `output-0`, `output-1`, … if there are several; and kept latents.

    Raises:
        ServiceError: a file exists, without `force`; it cannot be written; or the job made no image.
    """
    images = job["images"]
    if not images:
        raise ServiceError(f"job {job['id']} repeated one step, and made no image")
    paths = _names(output, len(images))
    downloads = [partial(client.download, image) for image in images]
    if "latents" in job["links"]:
        paths.append(output.with_suffix(".latents.safetensors"))
        downloads.append(partial(client.download_latents, job))
    refuse_to_overwrite(paths, force=force, job_id=job["id"])
    for download, path in zip(downloads, paths, strict=True):
        content = download()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise ServiceError(
                f"{path}: {error.strerror}; fetch the job's images again: {_again(job['id'])}"
            ) from None
    return paths


def refuse_to_overwrite(paths: list[Path], *, force: bool, job_id: str | None = None) -> None:
    """Raise ServiceError where a file exists already, unless that is wanted."""
    existing = [str(path) for path in paths if path.exists()]
    if existing and not force:
        exists = "exists" if len(existing) == 1 else "exist"
        remedy = "choose another -o, or overwrite with --force"
        again = "" if job_id is None else f"; the images are not lost: {_again(job_id)}"
        raise ServiceError(f"{', '.join(existing)} {exists} already: {remedy}{again}")


def _again(job_id: str) -> str:
    return f"darkroom jobs fetch {job_id}"


def _names(output: Path, count: int) -> list[Path]:
    return [output] if count == 1 else [output.with_stem(f"{output.stem}-{index}") for index in range(count)]
