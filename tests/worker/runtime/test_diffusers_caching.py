"""What diffusers asks of its models is answered as before, from memory."""

from __future__ import annotations

import inspect
from functools import partial

import diffusers
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.storage import Storage
from tests.support.jobs import complete_job, make_job, model_of
from tests.support.trained import TRAINED_FAMILIES
from worker.pool.pool import Pool
from worker.runtime.diffusers_caching import cache_introspection


@pytest.mark.parametrize("family", TRAINED_FAMILIES)
def test_a_warm_model_knows_its_processors_signatures_and_they_are_right(
    family: str, catalogue: Catalogue, pool: Pool
) -> None:
    model = pool.model(model_of(catalogue, family))
    for component in (model.base.components[model.family.denoiser], model.base.vae):
        assert component.attn_processors
        for processor in component.attn_processors.values():
            told = inspect.signature(processor.__call__)
            assert told is vars(processor.__call__)["__signature__"]
            assert told == inspect.signature(partial(type(processor).__call__, processor))


@pytest.mark.parametrize("family", TRAINED_FAMILIES)
def test_a_warm_model_answers_its_dtype_without_a_walk_through_its_layers(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(catalogue, family, Mode.IMG2IMG)
    denoiser = pool.model(job.model).base.components[pool.model(job.model).family.denoiser]

    def refuse(part: torch.nn.Module) -> torch.dtype:
        raise AssertionError(f"{type(part).__name__} was walked through")

    monkeypatch.setattr(diffusers.models.modeling_utils, "get_parameter_dtype", refuse)
    complete_job(job, pool, storage)
    assert denoiser.dtype is next(denoiser.parameters()).dtype


def test_the_dtype_told_is_the_one_that_layers_stored_in_8_bits_compute_in() -> None:
    model = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    kind = type(model)
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    cache_introspection(model)
    assert model.dtype is torch.float32
    assert isinstance(model, kind)
    assert (type(model).__name__, type(model).__module__) == (kind.__name__, kind.__module__)
    image = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        assert model(image).sample.dtype is torch.float32
