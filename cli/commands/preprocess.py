"""`darkroom preprocess`: has a running service make a control image of a photo, and writes it to a file."""

from __future__ import annotations

import argparse
import base64
from pathlib import Path

from cli.client import Client, ServiceError, encode_image
from cli.job_run import follow, refuse_to_overwrite, save
from cli.options.preprocessor_option import METAVAR, read_preprocessor
from cli.options.service import add_service_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("image", type=Path, help="the photo")
    parser.add_argument(
        "preprocessor", metavar=METAVAR, help="what makes the control image, such as canny (GET /v1/preprocessors)"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("control.png"), help="a PNG file (%(default)s)")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    add_service_arguments(parser)
    parser.set_defaults(run=preprocess)


def preprocess(arguments: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        ServiceError: the service refused or does not answer; or a file exists, or cannot be read or written.
    """
    output: Path = arguments.output
    if output.suffix.lower() != ".png":
        raise ServiceError(f"-o {output}: control images are PNG files; name it {output.with_suffix('.png')}")
    refuse_to_overwrite([output], force=arguments.force)
    body = {"image": encode_image(arguments.image), **read_preprocessor(arguments.preprocessor)}
    with Client(arguments.server, key=arguments.key) as client:
        made = client.preprocess(body)
        if made["object"] == "job":  # of a preprocessor that is a model
            save(client, follow(client, made), output, force=arguments.force)
        else:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_bytes(base64.b64decode(made["b64_json"]))
    print(output)
