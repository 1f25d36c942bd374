"""`darkroom upscale`: one job that makes an image larger, with a progress bar; writes the image."""

from __future__ import annotations

import argparse
from pathlib import Path

from cli.client import Json, encode_image
from cli.commands.generate import add_waiting_arguments
from cli.job_run import add_output_arguments, run_job, with_format
from cli.options.service import add_service_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("image", type=Path, help="the image")
    parser.add_argument("--model", help="id of an upscaler (GET /v1/upscalers); default: the catalogue's first")
    add_output_arguments(parser)
    add_waiting_arguments(parser)
    add_service_arguments(parser)
    parser.set_defaults(run=upscale)


def upscale(arguments: argparse.Namespace) -> None:
    """Run the command; raises as `darkroom generate`."""
    body: Json = {"image": encode_image(arguments.image)}
    if arguments.model is not None:
        body["model"] = arguments.model
    if arguments.output is not None:
        body = with_format(body, arguments.output)
    run_job(arguments, "upscale", body)
