"""`darkroom generate`: one job through the API, with a progress bar; writes the images, prints the job id."""

from __future__ import annotations

import argparse
from pathlib import Path

from cli.client import Json, ServiceError, encode_image
from cli.job_run import add_output_arguments, add_timeout_argument, run_job, with_format
from cli.options.preprocessor_option import METAVAR, read_preprocessor
from cli.options.request_options import add_request_options, read_request_options
from cli.options.service import add_service_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "prompt",
        nargs="?",
        help="what the image should show; left out with --class-label, for models such as DiT",
    )
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
        "--control-image", type=Path, help="control image, for models that require one, such as FLUX.1 Canny"
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


def add_waiting_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say whether to wait, and how long."""
    parser.add_argument(
        "--detach", action="store_true", help="print the job's id and do not wait; follow it with `darkroom jobs`"
    )
    add_timeout_argument(parser)


def generate(arguments: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        ServiceError: the service refused, does not answer, or the job failed; or a file exists.
        KeyboardInterrupt: Ctrl-C; the service was asked to cancel the job.
    """
    task, body = compose(arguments)
    run_job(arguments, task, body)


def compose(arguments: argparse.Namespace) -> tuple[str, Json]:
    """Build the request: its task, which follows from the images that were given, and its body.

    Raises:
        ServiceError: a file cannot be read, or options contradict each other.
    """
    body = read_request_options(arguments)
    if arguments.prompt is not None:
        body = {"prompt": arguments.prompt, **body}
    elif "class_label" not in body:
        raise ServiceError("say what the image shows: with a prompt, or for models such as DiT with --class-label")
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
