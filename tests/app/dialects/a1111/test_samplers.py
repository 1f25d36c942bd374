"""Which of our schedulers a sampler and a schedule type of the web UI are."""

from __future__ import annotations

import pytest

from app.dialects.a1111.samplers import SAMPLERS, UnknownSampler, names_of, scheduler_for
from contracts.catalogue.reader import read_catalogue
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.settings import BUILT_IN_CATALOGUE

CATALOGUE = read_catalogue(BUILT_IN_CATALOGUE)
SDXL, FLUX = CATALOGUE.model("shapes-sdxl"), CATALOGUE.model("shapes-flux")


@pytest.mark.parametrize(
    ("sampler", "schedule_type", "ours"),
    [
        ("", None, None),
        ("", "Automatic", None),
        ("", "karras", "euler_karras"),
        ("Euler a", "automatic", "euler_a"),
        ("euler A", "Uniform", "euler_a"),
        ("k_euler_a", None, "euler_a"),
        ("Euler", None, "euler"),
        ("Euler", "Karras", "euler_karras"),
        ("Euler", "SGM Uniform", "euler_trailing"),
        ("Euler", "sgm_uniform", "euler_trailing"),
        ("DPM++ 2M", None, "dpmpp_2m_karras"),  # the web UI's own choice
        ("DPM++ 2M", "Uniform", "dpmpp_2m"),
        ("DPM++ 2M Karras", "automatic", "dpmpp_2m_karras"),
        ("k_dpmpp_2m_ka", None, "dpmpp_2m_karras"),
        ("DPM++ 2M SDE", None, "dpmpp_2m_sde"),
        ("PLMS", None, "pndm"),
        ("dpmpp_2m", None, "dpmpp_2m"),
    ],
)
def test_a_sampler_of_a_diffusion_model(sampler: str, schedule_type: str | None, ours: str | None) -> None:
    assert scheduler_for(sampler, schedule_type, SDXL) == ours


@pytest.mark.parametrize(
    ("sampler", "schedule_type", "ours"),
    [("Euler", "automatic", "flow_euler"), ("DPM++ 2M", None, "flow_dpmpp_2m"), ("UniPC", None, "flow_unipc")],
)
def test_a_sampler_of_a_flow_model_is_the_one_that_computes_the_same(
    sampler: str, schedule_type: str | None, ours: str
) -> None:
    assert scheduler_for(sampler, schedule_type, FLUX) == ours


@pytest.mark.parametrize(
    ("sampler", "schedule_type", "field", "allowed"),
    [
        ("DPM fast", None, "sampler_name", "Euler a"),
        ("Euler a Karras", None, "scheduler", "Automatic"),
        ("Heun", "Karras", "scheduler", "Uniform"),
        ("Euler", "Exponential", "scheduler", "Karras"),
    ],
)
def test_what_is_not_here_is_refused_with_what_is(
    sampler: str, schedule_type: str | None, field: str, allowed: str
) -> None:
    with pytest.raises(UnknownSampler) as caught:
        scheduler_for(sampler, schedule_type, SDXL)

    assert caught.value.field == field
    assert allowed in caught.value.allowed
    assert "Euler a" not in _allowed_for_flux()


def _allowed_for_flux() -> list[str]:
    with pytest.raises(UnknownSampler) as caught:
        scheduler_for("Euler a", None, FLUX)
    return caught.value.allowed


def test_samplers_are_schedulers_here_and_back() -> None:
    named = {name for sampler in SAMPLERS for names in sampler.schedulers.values() for name in names}

    assert named <= set(SCHEDULERS)
    assert names_of("a scheduler of another release") == ("a scheduler of another release", "Automatic")
    assert (names_of("euler_karras"), names_of("dpmpp_2m")) == (("Euler", "Karras"), ("DPM++ 2M", "Uniform"))
