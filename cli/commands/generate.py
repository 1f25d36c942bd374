"""`darkroom generate`: one job through the API, with a progress bar; writes the images, prints the job id."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cli.client import Client, Json, ServiceError, encode_image
from cli.options.preprocessor_option import METAVAR, read_preprocessor
from cli.options.request_options import add_request_options, read_request_options
from contracts.processes.preparations import Preparation

_DEFAULT_OUTPUT = Path("out.png")
#: Suffix of a file → the format that it promises.
_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_TIMEOUT_SECONDS = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("prompt", help="what the image should show")
    add_output_arguments(parser)
    parser.add_argument("--image", type=Path, help="image to start from (img2img, inpaint)")
    parser.add_argument(
        "--mask", type=Path, help="mask image; white areas are generated, black areas are kept (inpaint)"
    )
    parser.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="CONTROLNET[:MODE]=FILE",
        help="a ControlNet, the number of its mode if it is a union, and its control image",
    )
    parser.add_argument(
        "--preprocess",
        metavar=METAVAR,
        help="makes the control images of --control from photos, such as canny (GET /v1/preprocessors)",
    )
    parser.add_argument(
        "--control-image", type=Path, help="control image of a model that is made for one, such as FLUX.1 Canny"
    )
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a reference image (edit); may be repeated where the model takes several",
    )
    parser.add_argument(
        "--ip-adapter",
        action="append",
        default=[],
        metavar="NAME[:SCALE]=FILE",
        help="an IP-Adapter, its scale (1) and a reference image; repeat it with the same name for more images",
    )
    parser.add_argument(
        "--lora", action="append", default=[], metavar="NAME[:SCALE]", help="a LoRA and its scale (1)"
    )
    parser.add_argument(
        "--textual-inversion",
        action="append",
        default=[],
        metavar="NAME",
        help="a textual inversion whose word is in a prompt",
    )
    add_waiting_arguments(parser)
    add_service_arguments(parser)
    add_request_options(parser)
    parser.set_defaults(run=generate)


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


def add_waiting_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say whether to wait, and how long."""
    parser.add_argument(
        "--detach", action="store_true", help="print the job's id and do not wait; `darkroom jobs` goes on with it"
    )
    add_timeout_argument(parser)


def add_timeout_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how long to wait."""
    parser.add_argument(
        "--timeout",
        type=float,
        default=_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="maximum time to wait for the job, which goes on afterwards (%(default)g)",
    )


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
        ServiceError: the service refused, does not answer, or the job failed; or a file exists.
        KeyboardInterrupt: Ctrl-C; the service was asked to cancel the job.
    """
    task, body = compose(arguments)
    run_job(arguments, task, body)


def run_job(arguments: argparse.Namespace, task: str, body: Json) -> None:
    """Submit a job, follow it, write its images and print their names; raises as `generate`.

    Args:
        arguments: with the options about output, service, time and `detach`.
    """
    output = choose_output(arguments.output, str(body.get("output_format", "png")))
    names = _names(output, int(body.get("num_images", 1)))
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


def compose(arguments: argparse.Namespace) -> tuple[str, Json]:
    """Build the request: its task, which follows from the images that were given, and its body.

    Raises:
        ServiceError: a file cannot be read, or options contradict each other.
    """
    body: Json = {"prompt": arguments.prompt, **read_request_options(arguments)}
    if arguments.output is not None:
        body = with_format(body, arguments.output)
    if arguments.image:
        body["image"] = encode_image(arguments.image)
    if arguments.mask:
        body["mask_image"] = encode_image(arguments.mask)
    if arguments.control_image:
        body["control_image"] = encode_image(arguments.control_image)
    if arguments.lora:
        body["loras"] = [_read_lora(text) for text in arguments.lora]
    if arguments.textual_inversion:
        body["textual_inversions"] = [{"name": name} for name in arguments.textual_inversion]
    if arguments.ip_adapter:
        body["ip_adapters"] = _read_ip_adapters(arguments.ip_adapter)
    if arguments.control:
        made_by = read_preprocessor(arguments.preprocess) if arguments.preprocess else {}
        body["controls"] = [_read_control(text) | made_by for text in arguments.control]
        return "controlnet", body
    if arguments.preprocess:
        raise ServiceError("--preprocess makes control images: name their files with --control CONTROLNET=FILE")
    if arguments.reference:
        body["references"] = [encode_image(path) for path in arguments.reference]
        return "edit", body
    if arguments.mask:
        return "inpaint", body
    return ("img2img" if arguments.image else "txt2img"), body


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
    """Write a job's images to `output`, or to `output-0`, `output-1`, … if there are several.

    Raises:
        ServiceError: a file exists, without `force`; or it cannot be written.
    """
    images = job["images"]
    paths = _names(output, len(images))
    refuse_to_overwrite(paths, force=force, job_id=job["id"])
    for image, path in zip(images, paths, strict=True):
        content = client.download(image)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise ServiceError(
                f"{path}: {error.strerror}; the job's images can be had again: {_again(job['id'])}"
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


def _read_lora(text: str) -> Json:
    name, _, scale = text.partition(":")
    try:
        return {"name": name, "scale": float(scale) if scale else 1.0}
    except ValueError:
        raise ServiceError(f"--lora {text}: the scale must be a number, got {scale!r}") from None


def _read_control(text: str) -> Json:
    named, separator, path = text.partition("=")
    name, _, mode = named.partition(":")
    if not separator or (mode and not mode.isdecimal()):
        raise ServiceError(f"--control {text}: expected CONTROLNET=FILE, or CONTROLNET:MODE=FILE with a number")
    return {"controlnet": name, **({"mode": int(mode)} if mode else {}), "image": encode_image(Path(path))}


def _read_ip_adapters(texts: list[str]) -> list[Json]:
    """One entry for each name and scale, with all of its images."""
    entries: dict[str, Json] = {}
    for text in texts:
        named, separator, path = text.partition("=")
        name, _, scale = named.partition(":")
        if not separator or not name:
            raise ServiceError(f"--ip-adapter {text}: expected NAME=FILE or NAME:SCALE=FILE")
        try:
            weight = float(scale) if scale else 1.0
        except ValueError:
            raise ServiceError(f"--ip-adapter {text}: the scale must be a number, got {scale!r}") from None
        entry = entries.setdefault(named, {"name": name, "images": [], "scale": weight})
        entry["images"].append(encode_image(Path(path)))
    return list(entries.values())
