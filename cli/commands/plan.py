"""`darkroom plan`: print the memory plan for a request within a budget; loads nothing and calls no service.

The model is one of the catalogue, of whose files only headers are read, here, in the hub's cache or on the hub;
or a published architecture by its name.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import get_args

from pydantic import ValidationError

from cli.catalogue.sizes import Sizes
from cli.options.quantization import add_quantization_arguments, with_quantization
from contracts.byte_sizes import gib, read_size
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import DarkroomError, InvalidRequest, NotFound
from contracts.memory.card import Card, describe_card
from contracts.memory.plan import PlacedComponent, Plan
from contracts.memory.planner import candidates, plan
from contracts.memory.policy import Policy, T5Policy
from contracts.memory.sizes.component import ModelComponents
from contracts.memory.workload import Workload, workload_of
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.model_defaults import read_checked_catalogue
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import REQUESTS
from contracts.settings import SharedSettings
from contracts.weights.counts.architectures import read_architectures, row_of

_ORIGINS = {
    "files": "",
    "hub": ", on the hub",
    "architecture": ", as published",
    "assumed": ", assumed: the family's largest",
}
_VALUE_BYTES = {"auto": 2, "bfloat16": 2, "float16": 2, "float32": 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    known = ", ".join(architecture.id for architecture in read_architectures())
    parser.add_argument("--model", help=f"id in the catalogue, or a published architecture: {known}")
    memory = parser.add_mutually_exclusive_group()
    memory.add_argument(
        "--card", type=parse_card, metavar="SIZE", help="nominal memory of a CUDA card, for example 24GiB"
    )
    memory.add_argument(
        "--budget", type=parse_bytes, metavar="SIZE", help="device memory that plans may use, for example 12GiB"
    )
    parser.add_argument("--list", action="store_true", help="list the published architectures with their sizes")
    parser.add_argument("--task", choices=[task.value for task in Task], default="txt2img", help="(%(default)s)")
    parser.add_argument("--width", type=int, help="pixels; default: the model's")
    parser.add_argument("--height", type=int, help="pixels; default: the model's")
    parser.add_argument("--batch", type=_positive, default=1, help="images in one pipeline call (%(default)s)")
    parser.add_argument("--lora", action="append", default=[], metavar="ID", help="a LoRA; may be repeated")
    parser.add_argument("--controlnet", action="append", default=[], metavar="ID", help="may be repeated")
    parser.add_argument("--t5", choices=get_args(T5Policy), default="auto", help="placement of T5 (%(default)s)")
    add_quantization_arguments(parser)
    parser.add_argument("--allow-fp8", action="store_true", help="allow a denoiser in 8 bits; changes images")
    parser.add_argument("--allow-drop-t5", action="store_true", help="allow skipping T5, for SD3; changes images")
    parser.add_argument("--host-memory", type=parse_bytes, help="maximum in host memory; default: no limit")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cuda counts cuDNN's workspace (%(default)s)"
    )
    parser.add_argument("--dtype", choices=_VALUE_BYTES, help="default: the catalogue's, bfloat16 for auto")
    parser.add_argument("--candidates", action="store_true", help="list all candidate plans, fastest first")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the plan.

    Raises:
        RuntimeError: the request is invalid, or no plan fits; the message is one line.
    """
    if arguments.list:
        print("\n".join(_published()))
        return
    if arguments.model is None or (arguments.card is None and arguments.budget is None):
        raise RuntimeError("name --model, and --card or --budget; `darkroom plan --list` lists published models")
    try:
        components, workload, reasons = _describe(arguments)
    except InvalidRequest as error:
        raise RuntimeError(f"{_option(error.problems[0].field)}: {error.problems[0].message}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise RuntimeError(f"{_option(str(first['loc'][-1]))}: {first['msg']}") from None
    except DarkroomError as error:
        raise RuntimeError(str(error)) from None
    policy = Policy(
        arguments.t5,
        arguments.allow_fp8,
        arguments.allow_drop_t5,
        arguments.host_memory,
        cudnn=arguments.device == "cuda",
    )
    card = None if arguments.card is None else describe_card(arguments.card)
    budget = arguments.budget if card is None else card.budget_bytes
    chosen = plan(components, workload, budget, policy)
    alternatives = candidates(components, workload, budget, policy) if arguments.candidates else []
    lines = [*_of_card(card), *describe(chosen, components, workload, reasons)]
    print("\n".join([*lines, *_gains(chosen, components, workload, policy), *_list(alternatives)]))
    if not chosen.fits:
        raise RuntimeError(chosen.reason)


def _published() -> Iterator[str]:
    """The published architectures, with the bytes of their weights in 16 bits."""
    rows = [("name", "family", "in 16 bits", "checkpoints")]
    for architecture in read_architectures():
        size = gib(2 * architecture.values)
        rows.append((architecture.id, architecture.family, size, ", ".join(architecture.sources)))
    yield from _table(rows)


def _of_card(card: Card | None) -> Iterator[str]:
    """Where the memory of a card goes that plans cannot use."""
    if card is not None:
        yield (
            f"a card of {gib(card.card_bytes)} has {gib(card.budget_bytes)} for plans: "
            f"less {gib(card.driver_bytes)} for its driver, {gib(card.context_bytes)} for CUDA's context, "
            f"{gib(card.margin_bytes)} left free"
        )


def _gains(chosen: Plan, components: ModelComponents, workload: Workload, policy: Policy) -> Iterator[str]:
    """What each further option would win; all of them change images."""
    options = {
        "--allow-fp8": replace(policy, allow_fp8=True),
        "--allow-drop-t5": replace(policy, allow_drop_t5=True),
    }
    for option, allowed in options.items():
        if allowed == policy:
            continue
        other = plan(components, workload, chosen.budget_bytes, allowed)
        is_better = other.fits and (not chosen.fits or other.extra_seconds < chosen.extra_seconds)
        if is_better:
            yield f"with {option}: +{other.extra_seconds:g} s ({other.name}); changes images"


def _option(field: str) -> str:
    """The command-line option of a request's field."""
    name = field.partition(".")[0]
    return f"--{ {'loras': 'lora', 'controls': 'controlnet'}.get(name, name) }"


def parse_bytes(text: str) -> int:
    """Bytes of a size such as `12GiB`, `500 MB` or `1.5GiB`.

    Raises:
        argparse.ArgumentTypeError: it is not a size, or zero.
    """
    try:
        size = read_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not size:
        raise argparse.ArgumentTypeError(f"must be a size such as 12GiB or 500MB, got {text!r}")
    return size


def parse_card(text: str) -> int:
    """Bytes of a card's memory; its maker's `24GB` is 24 GiB. Raises as `parse_bytes`."""
    return parse_bytes(re.sub(r"(?<=[0-9 ])GB$", "GiB", text.strip(), flags=re.IGNORECASE))


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a number of images, at least 1, got {text!r}")
    return int(text)


def describe(
    chosen: Plan, components: ModelComponents, workload: Workload, reasons: Sequence[str] = ()
) -> Iterator[str]:
    """The lines that are printed for a plan; `reasons` say why the hub told no sizes."""
    shape = workload.shape
    images = "1 image" if shape.images == 1 else f"{shape.images} images"
    yield f"{chosen.model}: {images} of {shape.width} × {shape.height} in {gib(chosen.budget_bytes)}"
    if components.origin == "architecture":
        yield "sizes are those of the published architecture: the checkpoint is not on this machine"
    elif components.origin == "hub":
        yield "sizes are those of the files on the hub: the checkpoint is not on this machine"
    yield from reasons
    yield ""
    rows = [("component", "size", "placement", "on the device")]
    rows += [(part.name, _size(part), part.placement, gib(part.device_bytes)) for part in chosen.components]
    yield from _table(rows)
    yield ""
    for stage, size in chosen.stage_bytes.items():
        yield f"{stage + ':':9} {gib(size):>10}"
    yield f"{'peak:':9} {gib(chosen.peak_bytes):>10}  ({chosen.reason})"
    yield f"plan:     {chosen.name}" + (f", tiles of {chosen.tile_side} pixels" if chosen.tile_side else "")
    yield f"extra:    about {chosen.extra_seconds:g} s for a request with a new prompt"
    yield f"batch:    at most {chosen.batch_images} of this size ({chosen.batch_pixels:,} pixels)"


def _size(part: PlacedComponent) -> str:
    return gib(part.bytes) + _ORIGINS[part.origin]


def _list(alternatives: Sequence[Plan]) -> Iterator[str]:
    if not alternatives:
        return
    rows = [("", "plan", "peak", "extra s", "batch")]
    for candidate in alternatives:
        seconds, images = f"{candidate.extra_seconds:g}", str(candidate.batch_images)
        rows.append(("fits" if candidate.fits else "", candidate.name, gib(candidate.peak_bytes), seconds, images))
    yield ""
    yield from _table(rows)


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _describe(arguments: argparse.Namespace) -> tuple[ModelComponents, Workload, list[str]]:
    """Components and workload of the request, which is validated like any other; and why the hub told no sizes."""
    catalogue, model, is_published = _find(arguments.model)
    catalogue, model = with_quantization(catalogue, model, arguments)
    sizes = Sizes(catalogue, _VALUE_BYTES[arguments.dtype or model.dtype])
    components = sizes.model(model, may_ask=not is_published)
    job = _job(arguments, catalogue, model)
    extras = [sizes.lora(lora.name) for lora in job.loras]
    extras += [sizes.controlnet(control.controlnet) for control in job.controls]
    return components, workload_of(model.family_spec.id, job, extras=extras), sizes.reasons


def _find(name: str) -> tuple[Catalogue, ModelSpec, bool]:
    """The catalogue's model, or a published architecture as one more row; and whether it is the latter."""
    catalogue = read_checked_catalogue(SharedSettings().catalogue)
    architectures = {architecture.id: architecture for architecture in read_architectures()}
    if name in {model.id for model in catalogue.models} or name not in architectures:
        return catalogue, _model(catalogue, name, architectures), False
    model = row_of(architectures[name])
    return catalogue.model_copy(update={"models": (*catalogue.models, model)}), model, True


def _model(catalogue: Catalogue, name: str, published: Iterable[str]) -> ModelSpec:
    try:
        return catalogue.model(name)
    except NotFound as error:
        known = ", ".join([*(model.id for model in catalogue.models), *published])
        raise RuntimeError(f"{error}; there are {known}") from None


def _job(arguments: argparse.Namespace, catalogue: Catalogue, model: ModelSpec) -> JobParameters:
    """The parameters of a request with these options; its input images have the output's size."""
    fields: dict[str, object] = {
        "model": model.id,
        **model.family_spec.any_subject("-"),
        "width": arguments.width,
        "height": arguments.height,
        "loras": [{"name": name} for name in arguments.lora],
    }
    size = (arguments.width or model.default("width"), arguments.height or model.default("height"))
    paths = {"img2img": ("image",), "inpaint": ("image", "mask_image")}.get(arguments.task, ())
    fields |= dict.fromkeys(paths, "-")
    if arguments.task == "controlnet" or arguments.controlnet:
        unions = {row.id for row in catalogue.controlnets if row.modes}  # each of whose kinds takes as much memory
        fields["controls"] = [
            {"controlnet": name, "image": "-", **({"mode": 0} if name in unions else {})}
            for name in arguments.controlnet
        ]
        paths = tuple(f"controls.{index}.image" for index in range(len(arguments.controlnet)))
    if arguments.task == "edit":
        fields["references"], paths = ["-"], ("references.0",)
    request = REQUESTS[Task(arguments.task)].model_validate(fields)
    check(request, catalogue)
    images = {path: StoredImage("-", int(str(size[0])), int(str(size[1]))) for path in paths}
    return resolve(request, model, images)
