"""What diffusers asks of its attention processors is answered as before."""

from __future__ import annotations

import inspect

import pytest

from contracts.catalogue import Catalogue
from contracts.families import FAMILIES
from tests.worker.orders import model_of
from worker.pipelines import Pool
from worker.signatures import remember_signatures


@pytest.mark.parametrize("family", FAMILIES)
def test_a_warm_denoiser_knows_its_processors_signatures_and_they_are_right(
    family: str, catalogue: Catalogue, pool: Pool
) -> None:
    model = pool.model(model_of(catalogue, family))
    processors = model.base.components[model.family.denoiser].attn_processors.values()
    for processor in processors:
        function = type(processor).__call__
        assert "__signature__" in vars(function)
        code = function.__code__
        told = inspect.signature(processor.__call__)
        assert list(told.parameters)[: code.co_argcount - 1] == list(code.co_varnames[1 : code.co_argcount])


def test_a_model_without_attention_is_left_alone() -> None:
    remember_signatures(object())
