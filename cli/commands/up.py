"""`darkroom up`: its options, and the service that they describe."""

from __future__ import annotations

import argparse
from pathlib import Path

from cli.commands.plan import parse_bytes
from cli.redis_access import default_data
from cli.supervisor.redis_server import MEMORY_BYTES
from cli.supervisor.up import Service
from contracts import logs
from contracts.settings import LogSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="port; 0 takes a free one (%(default)s)")
    parser.add_argument(
        "--data", type=Path, default=default_data(), help="folder for images, uploads and the queue (%(default)s)"
    )
    workers = parser.add_mutually_exclusive_group()
    workers.add_argument("--workers", type=_worker_count, default=1, help="worker processes (%(default)s)")
    workers.add_argument(
        "--gpus",
        metavar="all|0,2",
        help="run a worker for each of these GPUs; MIG slices count as GPUs",
    )
    parser.add_argument(
        "--fsync",
        choices=["everysec", "always"],
        default="everysec",
        help="when the Redis started here syncs its file: `always` survives any crash but is slower (%(default)s)",
    )
    parser.add_argument(
        "--redis-memory",
        type=parse_bytes,
        default=MEMORY_BYTES,
        metavar="SIZE",
        help="memory for the data of the Redis started here, for example 2GiB; while it is full, new jobs get 503 "
        "(1GiB)",
    )
    parser.set_defaults(run=_run)


def _port(text: str) -> int:
    return _number(text, 65_535, "a port from 0 to 65535")


def _worker_count(text: str) -> int:
    return _number(text, 1_000, "a number from 0 to 1000")


def _number(text: str, maximum: int, what: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text[:9]) > maximum:
        raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
    return int(text[:9])


def _run(arguments: argparse.Namespace) -> None:
    logs.configure(LogSettings())
    Service(
        arguments.host,
        arguments.port,
        arguments.data,
        arguments.workers,
        arguments.fsync,
        arguments.redis_memory,
        arguments.gpus,
    ).run()
