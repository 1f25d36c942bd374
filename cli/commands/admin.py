"""`darkroom admin`: jobs, queues, workers, usage and keys of all owners, with an API key of scope admin."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial

from cli.client import FINAL_STATES, Client, Json
from cli.listing import add_list_arguments, created_at, print_rows, table
from cli.options.service import add_client_command

_PRIORITIES = ("high", "normal", "low")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands."""
    add_command = partial(add_client_command, parser.add_subparsers(required=True, metavar="COMMAND"))
    jobs = add_command("jobs", _jobs, "list the jobs of all owners, the newest first")
    _add_filters(jobs)
    jobs.add_argument("--status", choices=["queued", "running", *sorted(FINAL_STATES)])
    add_list_arguments(jobs, 20)
    show = add_command("show", _show, "print everything about a job, its prompt included, as JSON")
    show.add_argument("id")
    for name, run, help_text in (
        ("cancel", _each("cancel"), "cancel jobs"),
        ("requeue", _each("requeue"), "put failed jobs back into their queues, without their deadlines"),
    ):
        add_command(name, run, help_text).add_argument("id", nargs="+")
    priority = add_command("priority", _priority, "give a waiting job another priority")
    priority.add_argument("id")
    priority.add_argument("priority", choices=_PRIORITIES)
    queues = add_command("queues", _queues, "list the waiting jobs by priority, model and owner")
    _add_filters(queues)
    add_list_arguments(queues, 50)
    purge = add_command("purge", _purge, "cancel the waiting jobs of a model, an owner or a priority, or all")
    _add_filters(purge)
    purge.add_argument("--all", action="store_true", help="all waiting jobs, if no filter is given")
    for name, help_text in (
        ("pause", "stop workers from starting jobs of a model, or of any model"),
        ("resume", "end the pause of a model, or of all models"),
    ):
        command = add_command(name, _hold(name), help_text)
        command.add_argument("model", nargs="?", help="id of the model; without it, all models")
    add_command("workers", _workers, "list the live workers")
    for name, help_text in (
        ("drain", "stop a worker from starting jobs; running ones go on"),
        ("undrain", "let a drained worker take jobs again"),
    ):
        add_command(name, _worker(name), help_text).add_argument("worker", help="its id, from `admin workers`")
    usage = add_command("usage", _usage, "list what the jobs of each API key have used, by day and model")
    usage.add_argument(
        "--from", dest="first", metavar="DAY", help="first day, as 2026-11-28 (six days before the last)"
    )
    usage.add_argument("--to", metavar="DAY", help="last day (today, in UTC)")
    usage.add_argument("--of-key", metavar="ID", help="only of this API key")
    add_list_arguments(usage, 100)
    add_list_arguments(add_command("keys", _keys, "list the API keys with their last use"), 100)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="only of this model")
    parser.add_argument("--owner", help="only of this owner")
    parser.add_argument("--priority", choices=_PRIORITIES, help="only of this priority")


def _filters(arguments: argparse.Namespace) -> dict[str, str | None]:
    return {"model": arguments.model, "owner": arguments.owner, "priority": arguments.priority}


def _jobs(arguments: argparse.Namespace, client: Client) -> None:
    rows = client.pages("/v1/admin/jobs", arguments.limit, status=arguments.status, **_filters(arguments))
    head = ("id", "status", "owner", "priority", "model", "created", "error")
    print_rows(arguments, head, rows, _job)


def _job(job: Json) -> tuple[str, ...]:
    code = (job.get("error") or {}).get("code", "")
    return (job["id"], job["status"], job["owner"], job["priority"], job["model"], created_at(job), code)


def _show(arguments: argparse.Namespace, client: Client) -> None:
    print(json.dumps(client.call("GET", f"/v1/admin/jobs/{arguments.id}"), indent=2, ensure_ascii=False))


def _each(action: str) -> Callable[[argparse.Namespace, Client], None]:
    def run(arguments: argparse.Namespace, client: Client) -> None:
        for id in arguments.id:
            print(f"{id} {client.call('POST', f'/v1/admin/jobs/{id}/{action}')['status']}")

    return run


def _priority(arguments: argparse.Namespace, client: Client) -> None:
    job = client.call("POST", f"/v1/admin/jobs/{arguments.id}/priority", priority=arguments.priority)
    print(f"{job['id']} {job['status']}, priority {job['priority']}")


def _queues(arguments: argparse.Namespace, client: Client) -> None:
    rows = client.pages("/v1/admin/queues", arguments.limit, **_filters(arguments))
    head = ("priority", "model", "owner", "waiting", "oldest s", "predicted s", "")
    print_rows(arguments, head, rows, _queue)


def _queue(row: Json) -> tuple[object, ...]:
    predicted = row["predicted_seconds"]
    seconds = "unknown" if predicted is None else f"{predicted:.1f}"
    paused = "paused" if row["paused"] else ""
    oldest = f"{row['oldest_seconds']:.1f}"
    return (row["priority"], row["model"], row["owner"], row["waiting"], oldest, seconds, paused)


def _purge(arguments: argparse.Namespace, client: Client) -> None:
    query = {**_filters(arguments), "all": "true" if arguments.all else None}
    cancelled, has_more = 0, True
    while has_more:
        answer = client.call("POST", "/v1/admin/queues/purge", **query)
        cancelled, has_more = cancelled + answer["cancelled"], answer["has_more"]
    print(f"{cancelled} jobs cancelled")


def _hold(action: str) -> Callable[[argparse.Namespace, Client], None]:
    def run(arguments: argparse.Namespace, client: Client) -> None:
        _tell(client.call("POST", f"/v1/admin/{action}", model=arguments.model))

    return run


def _worker(action: str) -> Callable[[argparse.Namespace, Client], None]:
    def run(arguments: argparse.Namespace, client: Client) -> None:
        _tell(client.call("POST", f"/v1/admin/workers/{arguments.worker}/{action}"))

    return run


def _tell(holds: Json) -> None:
    paused = ["all models" if hold["name"] == "*" else hold["name"] for hold in holds["paused"]]
    print(f"paused: {', '.join(paused) or 'nothing'}")
    print(f"drained: {', '.join(hold['name'] for hold in holds['drained']) or 'no worker'}")


def _workers(_: argparse.Namespace, client: Client) -> None:
    rows = [("id", "state", "device", "jobs", "warm", "")]
    for worker in client.call("GET", "/v1/workers")["data"]:
        jobs, warm = str(len(worker["current_jobs"])), ", ".join(worker["warm"])
        rows.append((worker["id"], worker["state"], worker["device"], jobs, warm, worker["reason"]))
    print(table(rows))


def _usage(arguments: argparse.Namespace, client: Client) -> None:
    query = {"from": arguments.first, "to": arguments.to, "key": arguments.of_key}
    rows = client.pages("/v1/admin/usage", arguments.limit, **query)
    names = ("day", "api_key", "model", "jobs", "images", "image_steps", "pixels", "device_seconds", "joules")
    print_rows(arguments, names, rows, lambda row: [row[name] for name in names])


def _keys(arguments: argparse.Namespace, client: Client) -> None:
    rows = client.pages("/v1/admin/keys", arguments.limit)
    names = ("id", "name", "owner", "scopes", "created_at", "last_used_at", "revoked_at")
    print_rows(arguments, names, rows, lambda row: [_cell(row[name]) for name in names])


def _cell(value: object) -> str:
    return "-" if value is None else ",".join(value) if isinstance(value, list) else str(value)
