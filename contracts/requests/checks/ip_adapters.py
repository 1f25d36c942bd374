"""Checks the IP-Adapters of a request against the catalogue. Part of the checks in `validation.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem, NotFound
from contracts.requests.defaults import value_of
from contracts.requests.entries import IpAdapter
from contracts.requests.schema import JobRequest


def ip_adapter_problems(request: JobRequest, model: ModelSpec, catalogue: Catalogue) -> Iterator[FieldProblem]:
    """Yield what is wrong with the IP-Adapters that a request names."""
    names = [row.id for row in catalogue.ip_adapters if row.suits(model)]
    seen: set[str] = set()
    for index, adapter in enumerate(request.ip_adapters):
        field = f"ip_adapters.{index}.name"
        try:
            row = catalogue.ip_adapter(adapter.name)
        except NotFound:
            yield FieldProblem(field, f"unknown IP-Adapter {adapter.name[:64]!r}", names)
            continue
        if (message := row.misfit(model)) is not None:
            yield FieldProblem(field, message, names)
        if model.family_spec.image_tokens_follow_prompt:
            yield from _redux_problems(index, adapter, seen)
        elif row.id in seen and adapter.mask is None:
            yield FieldProblem(field, f"repeats {row.id}; name it once, with all images, or give it a mask")
        seen.add(row.id)
    if model.family_spec.image_tokens_follow_prompt:
        yield from _length_problems(request, model)


def _redux_problems(index: int, adapter: IpAdapter, seen: Collection[str]) -> Iterator[FieldProblem]:
    """Yield what cannot act on a prompt's tokens: a place in the image, and tokens of two adapters at once."""
    if adapter.mask is not None:
        message = f"{adapter.name} acts on the whole image: remove the mask, or use the task inpaint"
        yield FieldProblem(f"ip_adapters.{index}.mask", message)
    if others := sorted(set(seen) - {adapter.name}):
        message = f"{adapter.name} cannot be used beside {others[0]}; give all images to one of them"
        yield FieldProblem(f"ip_adapters.{index}.name", message, others)


def _length_problems(request: JobRequest, model: ModelSpec) -> Iterator[FieldProblem]:
    """Yield a guidance by two prompts, which diffusers' FLUX pipelines want to be of one length."""
    scale = value_of(request, model, "true_cfg_scale")
    acting = next((adapter.name for adapter in request.ip_adapters if adapter.scale), None)
    if acting is not None and isinstance(scale, int | float) and scale > 1:
        message = (
            f"cannot be above 1 beside {acting}, whose images lengthen the prompt and not the negative prompt, "
            f"got {scale:g}; set it to 1, or remove the IP-Adapter"
        )
        yield FieldProblem("true_cfg_scale", message, 1)
