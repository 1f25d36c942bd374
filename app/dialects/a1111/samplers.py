"""Samplers and schedule types of AUTOMATIC1111's web UI, and the schedulers here that compute the same.

The web UI names a solver (`sampler_name`) and how its noise levels are spread (`scheduler`); a scheduler here is
both. Names and the meaning of `Automatic` are those of its `modules/sd_samplers_kdiffusion.py` and
`modules/sd_schedulers.py`. Knows no request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.schedulers import SCHEDULERS

AUTOMATIC = "automatic"
#: Schedule type by the names that clients write, in lower case; the last word of an old sampler name is one, too.
SCHEDULE_TYPES: Mapping[str, str] = {
    "automatic": "Automatic",
    "uniform": "Uniform",
    "karras": "Karras",
    "sgm_uniform": "SGM Uniform",
}
#: The sampler of a request that names only a schedule type, as in the web UI.
_DEFAULT_SAMPLER = "Euler"


@dataclass(frozen=True)
class Sampler:
    """A sampler of the web UI.

    Attributes:
        name: as its lists and images have it.
        aliases: further names, in lower case.
        schedulers: schedule type -> ours, for models of any kind; the first that suits the model is taken.
        eta: the only value of `eta` that gives the same images here; None: the sampler does not read it.
    """

    name: str
    aliases: tuple[str, ...]
    schedulers: Mapping[str, tuple[str, ...]]
    eta: float | None = None


_FLOW_EULER, _FLOW_DPM, _FLOW_UNIPC = (
    ("flow_euler", "edm_euler"),
    ("flow_dpmpp_2m", "edm_dpmpp_2m"),
    ("flow_unipc",),
)

SAMPLERS: tuple[Sampler, ...] = (
    Sampler(
        "DPM++ 2M",
        ("k_dpmpp_2m",),
        {
            # The web UI's own choice for this sampler is Karras.
            "automatic": ("dpmpp_2m_karras", *_FLOW_DPM),
            "uniform": ("dpmpp_2m", "flow_dpmpp_2m"),
            "karras": ("dpmpp_2m_karras", "edm_dpmpp_2m"),
        },
    ),
    Sampler(
        "DPM++ 2M SDE",
        ("k_dpmpp_2m_sde",),
        {"automatic": ("dpmpp_2m_sde",), "uniform": ("dpmpp_2m_sde",)},
        eta=1.0,
    ),
    Sampler(
        "Euler a", ("k_euler_a", "k_euler_ancestral"), {"automatic": ("euler_a",), "uniform": ("euler_a",)}, 1.0
    ),
    Sampler(
        "Euler",
        ("k_euler",),
        {
            "automatic": ("euler", *_FLOW_EULER),
            "uniform": ("euler", "flow_euler"),
            "karras": ("euler_karras", "edm_euler"),
            "sgm_uniform": ("euler_trailing",),
        },
    ),
    Sampler("Heun", ("k_heun",), {"automatic": ("heun",), "uniform": ("heun",)}),
    Sampler("LCM", ("k_lcm",), {"automatic": ("lcm",), "uniform": ("lcm",)}),
    Sampler("TCD", (), {"automatic": ("tcd",), "uniform": ("tcd",)}),
    Sampler("DDIM", (), {"automatic": ("ddim",), "uniform": ("ddim",)}, eta=0.0),
    Sampler("PLMS", (), {"automatic": ("pndm",), "uniform": ("pndm",)}),
    Sampler("UniPC", (), {"automatic": ("unipc", *_FLOW_UNIPC), "uniform": ("unipc", "flow_unipc")}),
)


class UnknownSampler(Exception):
    """A sampler, or a schedule type of it, that is not here: the field, what is wrong, and what is allowed."""

    def __init__(self, field: str, message: str, allowed: list[str]) -> None:
        self.field, self.message, self.allowed = field, message, allowed
        super().__init__(message)


def find_sampler(name: str) -> tuple[Sampler, str] | None:
    """Return a sampler by one of its names, and the schedule type in an old name such as `DPM++ 2M Karras`."""
    text = name.strip().lower()
    for sampler in SAMPLERS:
        if text in (sampler.name.lower(), *sampler.aliases):
            return sampler, AUTOMATIC
    head, _, tail = text.replace("_ka", " karras").rpartition(" ")
    found = find_sampler(head) if head and tail in SCHEDULE_TYPES else None
    return None if found is None else (found[0], tail)


def scheduler_for(sampler_name: str | None, schedule_type: str | None, model: ModelSpec) -> str | None:
    """Return our scheduler for what a request names; None where it names nothing: the model's own.

    A name of ours, from `/v1/schedulers`, is taken as it is.

    Raises:
        UnknownSampler: no scheduler of this model computes the same.
    """
    wanted = (schedule_type or AUTOMATIC).strip().lower().replace(" ", "_")
    if wanted not in SCHEDULE_TYPES:
        message = f"unknown schedule type {wanted[:40]!r}"
        raise UnknownSampler("scheduler", message, list(SCHEDULE_TYPES.values()))
    if not sampler_name and wanted == AUTOMATIC:
        return None
    if sampler_name in SCHEDULERS and wanted == AUTOMATIC:
        return sampler_name
    usable = names_for(model)
    found = find_sampler(sampler_name or _DEFAULT_SAMPLER)
    if found is None:
        raise UnknownSampler("sampler_name", f"unknown sampler {str(sampler_name)[:40]!r}", usable)
    sampler, in_name = found
    wanted = in_name if wanted == AUTOMATIC else wanted
    candidates = sampler.schedulers.get(wanted, ())
    for candidate in candidates:
        if candidate in model.schedulers:
            return candidate
    if sampler.name in usable:
        types = [label for key, label in SCHEDULE_TYPES.items() if _suits(sampler, key, model)]
        message = f"{sampler.name} has no schedule type {SCHEDULE_TYPES[wanted]} for {model.id}"
        raise UnknownSampler("scheduler", message, types)
    raise UnknownSampler("sampler_name", f"{sampler.name} does not work with {model.id}", usable)


def _suits(sampler: Sampler, schedule_type: str, model: ModelSpec) -> bool:
    return any(name in model.schedulers for name in sampler.schedulers.get(schedule_type, ()))


def names_for(model: ModelSpec) -> list[str]:
    """Return the names of the samplers that work with a model."""
    return [sampler.name for sampler in SAMPLERS if any(_suits(sampler, key, model) for key in sampler.schedulers)]


def names_of(scheduler: str) -> tuple[str, str]:
    """Return the sampler and the schedule type that one of our schedulers is in the web UI, else our name."""
    for sampler in SAMPLERS:
        # What is explicit first: `Automatic` may mean another one for another model.
        for key in sorted(sampler.schedulers, key=lambda key: key == AUTOMATIC):
            if scheduler in sampler.schedulers[key]:
                return sampler.name, SCHEDULE_TYPES[key]
    return scheduler, SCHEDULE_TYPES[AUTOMATIC]
