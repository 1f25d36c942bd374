"""Makes an image again at a service, as its receipt says, from the same inputs, and has it compared."""

from __future__ import annotations

import argparse
import json

from cli.again.comparison import Claim, MadeAgain, compare
from cli.again.input_files import place_inputs, read_files
from cli.again.kept_step import choose_step, compare_step
from cli.client import Client, Json, ServiceError
from contracts.catalogue.families import Task
from contracts.requests.parameters import JobParameters
from contracts.requests.rebuilding import request_fields
from contracts.requests.task_parameters import JobTask


def make_again(claim: Claim, url: str, arguments: argparse.Namespace) -> str:
    """Run the job of a receipt and compare; returns what to tell.

    Args:
        arguments: `steps`, `latents`, `input` and `key` of `darkroom verify`.

    Raises:
        ServiceError: it was made otherwise or from other inputs, it cannot be made again, or the service refuses.
        KeyError, TypeError, ValueError: the receipt is not one that Darkroom writes.
    """
    parameters = _read_parameters(claim.receipt)
    index = claim.receipt["seed"] - parameters.seed
    if not 0 <= index < parameters.num_images:
        raise ValueError(f"the receipt's seed is that of image {index}, but its job has {parameters.num_images}")
    if arguments.steps is not None and not claim.signed.steps:
        raise ServiceError(f"{claim.path}: no signed receipt says what its steps were")
    step = None
    if arguments.latents is not None:
        step = choose_step(arguments.latents, parameters, claim.signed.steps, index)
    fields = {**request_fields(parameters), "batchable": False, **({} if step is None else step.fields)}
    files = read_files(arguments.input)
    with Client(url, key=arguments.key) as client:
        place_inputs(client, parameters, fields, files)
        job = client.wait(client.submit(parameters.task, fields)["id"])
        if job["status"] != "completed":
            raise ServiceError(f"the image could not be made again: {job['error']['message']}")
        receipt = job["receipt"]
        if step is not None:
            return compare_step(claim, step, receipt, index)
        number = index * (parameters.layers or 1) + int(claim.receipt.get("layer", 0))
        file = client.download(job["images"][number])
    return compare(claim, MadeAgain(file, receipt, receipt["pixels_sha256"][number]), arguments.steps)


def _read_parameters(receipt: Json) -> JobParameters:
    """The parameters of a receipt.

    Raises:
        ServiceError: no diffusion model made the image, or its prompts are only known by their hash.
        ValueError: they are not parameters.
    """
    task = JobTask(receipt["parameters"]["task"])
    if task.value not in [one.value for one in Task]:
        raise ServiceError(
            "only images of diffusion models can be checked by making them again, and this one is of the task "
            f"{task}; POST /v1/{task} makes it again from its image"
        )
    if str(receipt["parameters"]["prompt"]).startswith("sha256:"):
        raise ServiceError("the receipt has only the hash of the prompt: the image cannot be made again from it")
    return JobParameters.model_validate_json(json.dumps(receipt["parameters"]))
