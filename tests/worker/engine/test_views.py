"""A view passes for its module in every pipeline, and a job's call of it is handed to the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import diffusers
import pytest
import torch
from diffusers import FirstBlockCacheConfig, FluxTransformer2DModel

from tests.support.trained import TRAINED_FAMILIES
from worker.engine.calls import Call, make
from worker.engine.coroutine import Coroutine
from worker.engine.views import refuse_editing, view
from worker.families import get_family


@pytest.fixture(autouse=True)
def grad_mode_restored() -> Iterator[None]:
    """A coroutine leaves gradients switched off."""
    before = torch.is_grad_enabled()
    yield
    torch.set_grad_enabled(before)


@pytest.fixture
def vae() -> Any:
    """A small one of diffusers."""
    return diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)


@pytest.fixture
def transformer() -> Any:
    """A small denoiser with diffusers' caches."""
    return FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=1,
        joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip


def _in_coroutine(work: Callable[[], Any]) -> Coroutine:
    """A coroutine that has run until its first call."""
    coroutine = Coroutine(lambda _: work(), torch.device("cpu"))
    coroutine.wake()
    return coroutine


def test_a_view_passes_for_its_module(vae: Any) -> None:
    seen = view(vae, ("encode", "decode"))
    assert isinstance(seen, diffusers.AutoencoderKL)
    assert isinstance(seen, torch.nn.Module)
    names = [(type(one).__name__, type(one).__module__) for one in (seen, vae)]
    assert names[0] == names[1]
    assert seen.config is vae.config
    assert (seen.dtype, seen.device) == (vae.dtype, vae.device)
    assert seen.decoder is vae.decoder
    assert list(seen.parameters()) == list(vae.parameters())
    assert seen.state_dict().keys() == vae.state_dict().keys()


def test_what_is_set_on_a_view_is_set_on_its_module_and_the_other_way_round(vae: Any) -> None:
    seen, other = view(vae), view(vae)
    seen.note = "by a pipeline"
    assert vae.note == other.note == "by a pipeline"
    vae.to(torch.bfloat16)
    assert seen.dtype == torch.bfloat16


def test_views_of_one_module_and_of_its_class_share_a_class(vae: Any) -> None:
    twin = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    assert type(view(vae)) is type(view(twin)) is not type(view(vae, ("decode",)))


def test_outside_of_a_job_a_view_computes_what_its_module_computes(vae: Any) -> None:
    seen, latents = view(vae, ("encode", "decode")), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(seen.decode(latents).sample, vae.decode(latents).sample)
        assert torch.equal(view(vae)(torch.ones(1, 3, 8, 8)).sample, vae(torch.ones(1, 3, 8, 8)).sample)


@pytest.mark.parametrize("entry", ["encode", "decode"])
def test_a_jobs_call_of_an_entry_waits_for_the_engine(vae: Any, entry: str) -> None:
    seen = view(vae, ("encode", "decode"))
    values = torch.randn(1, 3 if entry == "encode" else 4, 8, 8)
    coroutine = _in_coroutine(lambda: getattr(seen, entry)(values, return_dict=False))
    call = coroutine.wait
    assert isinstance(call, Call)
    assert (call.module, call.entry) == (vae, entry)
    (result,) = make([call])
    coroutine.wake(result)
    assert coroutine.result is result


def test_hooks_run_on_the_module_itself_and_once_for_a_joined_call() -> None:
    module, hooked = torch.nn.Linear(2, 2), []
    module.register_forward_hook(lambda layer, given, result: hooked.append((layer, len(result))))
    seen = view(module)
    coroutines = [_in_coroutine(lambda: seen(torch.ones(1, 2))) for _ in range(3)]
    assert hooked == []
    calls = [coroutine.wait for coroutine in coroutines if isinstance(coroutine.wait, Call)]
    results = make(calls)
    assert hooked == [(module, 3)]
    for coroutine, result in zip(coroutines, results, strict=True):
        coroutine.wake(result)
    assert len(hooked) == 1
    assert all(torch.equal(coroutine.result, results[0]) for coroutine in coroutines)


def test_controlnets_pass_the_checks_of_pipelines_that_combine_several() -> None:
    net = diffusers.ControlNetModel(
        block_out_channels=(4, 4), down_block_types=("DownBlock2D", "DownBlock2D"), norm_num_groups=4,
        cross_attention_dim=4, attention_head_dim=2, conditioning_embedding_out_channels=(4, 4),
    )  # fmt: skip
    assert isinstance(view(net), diffusers.ControlNetModel)
    several = diffusers.MultiControlNetModel([view(net), view(net)])
    assert [one._viewed for one in several.nets] == [net, net]


# -- what jobs cannot share -------------------------------------------------------------------------------


def test_a_module_with_a_cache_of_diffusers_is_refused_by_name_until_it_has_none(transformer: Any) -> None:
    view(transformer)
    transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ValueError, match="FluxTransformer2DModel has a cache"):
        view(transformer)
    transformer.disable_cache()
    view(transformer)


def test_no_job_writes_the_name_of_its_pass_into_the_hooks_of_all(
    transformer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Any] = []
    monkeypatch.setattr("diffusers.hooks.hooks._set_cache_context", lambda _, context: written.append(context))
    seen, before = view(transformer), dict(vars(transformer))

    def passes() -> None:
        with seen.cache_context("cond", step_index=1):
            pass
        seen._reset_stateful_cache()

    assert _in_coroutine(passes).error is None
    assert (written, vars(transformer)) == ([], before)
    with seen.cache_context("cond", step_index=1):
        pass
    assert [context and context.name for context in written] == ["cond", None]


def _editing_pipelines() -> list[str]:
    """Those of diffusers that can be loaded with the libraries that are here."""
    every = (name for name in dir(diffusers) if "PAG" in name and name.endswith("Pipeline"))
    return sorted(name for name in every if not hasattr(getattr(diffusers, name), "_backends"))


@pytest.mark.parametrize("name", _editing_pipelines())
def test_a_pipeline_that_edits_shared_modules_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        refuse_editing(getattr(diffusers, name))


@pytest.mark.parametrize("family", TRAINED_FAMILIES)
def test_no_pipeline_that_is_offered_edits_shared_modules(family: str) -> None:
    for name in get_family(family).pipelines.values():
        refuse_editing(getattr(diffusers, name))
