"""`darkroom settings`: all settings of the parts that are installed, each as that part reads it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import find_spec

from contracts.hub.environment import describe_environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--set", action="store_true", help="only settings that differ from their defaults")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    words = ["--set"] if arguments.set else []
    words += [f"--dotenv={name}" for name in sorted(arguments.dotenv)]
    for package in ("app", "worker", "dispatcher"):
        # A container image may hold only one side.
        if find_spec(package) is not None:
            command = [sys.executable, "-m", f"{package}.settings", *words]
            table = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout
            print(table, end="", flush=True)
    print(f"The hub, by the variables of huggingface_hub\n{describe_environment()}")
