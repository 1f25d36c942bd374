"""`darkroom train`: trains a LoRA, a textual inversion or a ControlNet; shows a progress bar, prints the names."""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cli.client import Client, Json, ServiceError
from cli.job_run import follow
from cli.options.service import add_service_arguments
from contracts.requests.training.request import TrainingRequest

_TIMEOUT_SECONDS = 7 * 86_400.0
_ENDINGS = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff", ".bmp", ".gif"}
)
_METADATA = "metadata.jsonl"
#: Fields that other options or the files give.
_OTHERWISE = frozenset(
    {"task", "name", "images", "sample_prompts", "priority", "webhook", "metadata", "response_format",
     "cancel_on_disconnect"}
)  # fmt: skip
_TYPES: dict[str, Any] = {"integer": int, "number": float}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command: those of the request, by the names of its fields."""
    content = (
        "folder or zip file of images, with captions in NAME.txt, and for a ControlNet control images in "
        "NAME.control.png; or with metadata.jsonl, which names both"
    )
    parser.add_argument("images", type=Path, nargs="?", help=f"{content}; leave it out with --resume-from")
    named = "name of the result in later requests, and the word of a textual inversion in prompts"
    parser.add_argument("--name", required=True, help=named)
    for name, field in TrainingRequest.model_json_schema()["properties"].items():
        if name in _OTHERWISE:
            continue
        kinds = [field, *field.get("anyOf", ())]
        kind = next((_TYPES[one["type"]] for one in kinds if one.get("type") in _TYPES), str)
        choices = next((one["enum"] for one in kinds if "enum" in one), None)
        text = field.get("description", "").replace("%", "%%")
        if field.get("type") == "boolean":
            parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", default=None, help=text)
            continue
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, type=kind, choices=choices, help=text)
    parser.add_argument(
        "--sample-prompt", action="append", default=[], metavar="PROMPT", help="a sample image; may be repeated"
    )
    parser.add_argument(
        "--detach", action="store_true", help="print the job's id and do not wait; follow it with `darkroom jobs`"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="maximum seconds to wait; the training goes on afterwards (%(default)g)",
    )
    add_service_arguments(parser)
    parser.set_defaults(run=train)


def train(arguments: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        ServiceError: the service refused, does not answer, or the training failed; or the images cannot be read,
            or are named where none are used, or are not named.
        KeyboardInterrupt: Ctrl-C; the service was asked to cancel the training.
    """
    if (arguments.images is None) != (arguments.resume_from is not None):
        raise ServiceError("name either the images to train on, or a training to continue with --resume-from")
    with ExitStack() as stack:
        archive = arguments.images
        if archive is not None and archive.is_dir():
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-"))
            archive = _pack(arguments.images, Path(folder) / "images.zip")
        client = stack.enter_context(Client(arguments.server, key=arguments.key))
        try:
            job = client.train(archive, compose(arguments))
        except OSError as error:
            raise ServiceError(f"{arguments.images}: {error.strerror}") from None
        if arguments.detach:
            print(job["id"])
            return
        print(f"job {job['id']}", file=sys.stderr, flush=True)
        try:
            job = follow(client, job, timeout_seconds=arguments.timeout)
        except KeyboardInterrupt:
            client.cancel(job["id"])
            print(f"darkroom: the service was asked to cancel job {job['id']}", file=sys.stderr)
            raise
        made = job["receipt"]["training"]
        for kind in ("loras", "textual_inversions", "controlnets"):
            for trained in made.get(kind, ()):
                print(trained["id"])


def compose(arguments: argparse.Namespace) -> Json:
    """Build the request, without its images."""
    fields = TrainingRequest.model_fields.keys() - _OTHERWISE
    body: Json = {name: value for name in sorted(fields) if (value := getattr(arguments, name, None)) is not None}
    if arguments.sample_prompt:
        body["sample_prompts"] = arguments.sample_prompt
    return {"name": arguments.name, **body}


def _pack(folder: Path, archive: Path) -> Path:
    """Pack the images of a folder and the captions beside them; with `metadata.jsonl`, of all folders in it."""
    metadata = folder / _METADATA
    places = folder.rglob("*") if metadata.is_file() else folder.iterdir()
    images = sorted(path for path in places if path.suffix.lower() in _ENDINGS and path.is_file())
    if not images:
        raise ServiceError(f"{folder}: no images in this folder ({', '.join(sorted(_ENDINGS))})")
    said = {metadata, *(path.with_suffix(".txt") for path in images)}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in (*images, *sorted(path for path in said if path.is_file())):
            file.write(path, path.relative_to(folder))
    return archive
