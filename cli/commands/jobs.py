"""`darkroom jobs`: list, show, cancel, fetch and watch the jobs of a running service."""

from __future__ import annotations

import argparse
import json
from functools import partial

from cli.client import FINAL_STATES, Client, Json
from cli.job_run import (
    add_output_arguments,
    add_timeout_argument,
    choose_output,
    follow,
    require_completed,
    save,
)
from cli.listing import add_list_arguments, created_at, print_rows
from cli.options.service import add_client_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands."""
    add_command = partial(add_client_command, parser.add_subparsers(required=True, metavar="COMMAND"))
    listing = add_command("list", _list, "list your jobs, the newest first")
    listing.add_argument("--status", choices=["queued", "running", *sorted(FINAL_STATES)])
    add_list_arguments(listing, 20)
    add_command("show", _show, "print everything that is known about a job, as JSON").add_argument("id")
    cancel = add_command("cancel", _cancel, "cancel jobs")
    cancel.add_argument("id", nargs="+")
    fetch = add_command("fetch", _fetch, "write the images of a job that has completed")
    fetch.add_argument("id")
    add_output_arguments(fetch)
    watch = add_command("watch", _watch, "show a job's progress until it ends; Ctrl-C leaves it running")
    watch.add_argument("id")
    add_timeout_argument(watch)


def _list(arguments: argparse.Namespace, client: Client) -> None:
    jobs = client.pages("/v1/jobs", arguments.limit, status=arguments.status)
    print_rows(arguments, ("id", "status", "task", "model", "created", ""), jobs, _row, "no jobs")


def _row(job: Json) -> tuple[str, ...]:
    return (job["id"], job["status"], job["task"], job["model"], created_at(job), _news(job))


def _news(job: Json) -> str:
    """How a job goes on, or why it failed."""
    progress, error = job.get("progress") or {}, job.get("error") or {}
    if error:
        return f"{error['code']}: {error['message']}"
    if job["status"] == "running" and progress.get("steps"):
        return f"step {progress['step']} of {progress['steps']}"
    eta = job.get("eta_seconds")
    return "" if eta is None or job["status"] in FINAL_STATES else f"about {eta:.0f} s left"


def _show(arguments: argparse.Namespace, client: Client) -> None:
    print(json.dumps(client.fetch(arguments.id), indent=2, ensure_ascii=False))


def _cancel(arguments: argparse.Namespace, client: Client) -> None:
    for id in arguments.id:
        print(f"{id} {client.cancel(id)['status']}")


def _fetch(arguments: argparse.Namespace, client: Client) -> None:
    job = require_completed(client.fetch(arguments.id))
    output = choose_output(arguments.output, next((image["format"] for image in job["images"]), "png"))
    for path in save(client, job, output, force=arguments.force):
        print(path)


def _watch(arguments: argparse.Namespace, client: Client) -> None:
    job = follow(client, client.fetch(arguments.id), arguments.timeout)
    print(f"{job['id']} {job['status']}; its images: darkroom jobs fetch {job['id']}")
