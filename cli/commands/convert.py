"""`darkroom convert`: a hypernetwork of A1111's web UI, which is a pickle, as safetensors.

The pickle is read in a process of its own, which runs no code of the file; see `worker/convert.py`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from cli.client import ServiceError
from cli.job_run import refuse_to_overwrite

_MAX_SECONDS = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("file", type=Path, help="a hypernetwork, .pt")
    parser.add_argument("-o", "--output", type=Path, help="default: beside it, with the suffix .safetensors")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    parser.set_defaults(run=convert)


def convert(arguments: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        ServiceError: the file is not a hypernetwork, or what it would write exists.
    """
    source: Path = arguments.file
    target: Path = arguments.output or source.with_suffix(".safetensors")
    if target.suffix != ".safetensors":
        raise ServiceError(f"{target}: the name of the output must end with .safetensors")
    refuse_to_overwrite([target], force=arguments.force)
    command = [sys.executable, "-m", "worker.convert", str(source), str(target)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_MAX_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ServiceError(f"{source} was not read within {_MAX_SECONDS} s") from None
    if ended.returncode:
        reason = ended.stderr.strip().rpartition("\n")[2] or f"its reader exited with status {ended.returncode}"
        raise ServiceError(reason)
    print(target)
