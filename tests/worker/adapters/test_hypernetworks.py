"""Hypernetworks give what A1111's web UI gives, on their own rows of a shared call, and leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.catalogue.families import Mode
from contracts.storage import Storage
from tests.support.combinations import covering
from tests.support.hypernetworks import Networks, make_networks, write_hypernetwork
from tests.support.jobs import complete_job, decode_pixels, fail_job, make_job, model_of, run_jobs
from worker.adapters import reader
from worker.adapters.row_hooks import LayerHooks, Rows
from worker.pool.pool import Pool

FAMILIES = ("sdxl", "sd15")


class WebUiProcessor:
    """Attention with the web UI's arithmetic, which knows nothing of hooks."""

    def __init__(self, networks: Networks, scale: float) -> None:
        self.networks, self.scale, self.attend = networks, scale, AttnProcessor2_0()

    def __call__(self, attn: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        width = attn.to_k.in_features
        if (width, "k") not in self.networks:
            return self.attend(attn, hidden_states, *args, **kwargs)
        key, value = self.networks[width, "k"], self.networks[width, "v"]
        changed = SimpleNamespace(
            to_k=lambda x: attn.to_k(x + key(x) * self.scale), to_v=lambda x: attn.to_v(x + value(x) * self.scale)
        )
        return self.attend(_Changed(attn, changed), hidden_states, *args, **kwargs)


class _Changed:
    """An attention layer with other keys and values."""

    def __init__(self, attn: Any, changed: Any) -> None:
        self._attn, self._changed = attn, changed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._changed if hasattr(self._changed, name) else self._attn, name)


def widths_of(unet: Any) -> list[int]:
    names = ("attn1.to_k", "attn2.to_k")
    return sorted({layer.in_features for name, layer in unet.named_modules() if name.endswith(names)})


def call_of(unet: Any) -> Callable[[], torch.Tensor]:
    """A call of a UNet with four rows."""
    generator = torch.Generator().manual_seed(1)
    config = unet.config
    latents = torch.randn(4, config.in_channels, 8, 8, generator=generator)
    prompt = torch.randn(4, 5, config.cross_attention_dim, generator=generator)
    more: dict[str, Any] = {}
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        more["added_cond_kwargs"] = {
            "text_embeds": torch.randn(4, pooled, generator=generator),
            "time_ids": torch.ones(4, 6),
        }

    def call() -> torch.Tensor:
        with torch.inference_mode():
            made: torch.Tensor = unet(latents, 10, prompt, **more).sample
        return made

    return call


@pytest.mark.parametrize(
    ("family", "norms", "activate_output"),
    covering([(family, whole, whole) for family in FAMILIES for whole in (False, True)]),
)
def test_the_result_is_the_web_uis_for_those_rows_and_the_models_own_for_others(
    pool: Pool, tmp_path: Path, family: str, norms: bool, activate_output: bool
) -> None:
    model = pool.model(model_of(pool.catalogue, family))
    unet, call = model.base.unet, call_of(model.base.unet)
    networks = make_networks(widths_of(unet), norms=norms, activate_output=activate_output)
    file = write_hypernetwork(tmp_path / "net.safetensors", networks, activate_output=activate_output)
    weights = reader.read(model.base, model.family, file)["unet"]
    before, processors = call(), dict(unet.attn_processors)
    unet.set_attn_processor(WebUiProcessor(networks, 0.7))
    expected = call()
    unet.set_attn_processor(processors)

    hooks = LayerHooks()
    with hooks.registered({layer: [(one.scaled(layer, 0.7), None)] for layer, one in weights.items()}):
        everywhere = call()
    rows = Rows(1, 3, 4)
    with hooks.registered({layer: [(one.scaled(layer, 0.7), rows)] for layer, one in weights.items()}):
        mixed = call()
    assert torch.equal(everywhere, expected)
    assert not torch.allclose(expected, before, atol=1e-2)
    assert torch.equal(mixed[1:3], expected[1:3])
    assert torch.equal(mixed[[0, 3]], before[[0, 3]])
    assert torch.equal(call(), before)
    assert hooks.count == 0


def test_a_lora_of_the_same_layers_is_given_the_changed_input(pool: Pool, tmp_path: Path) -> None:
    model = pool.model("shapes-sdxl")
    layer = model.base.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2.to_k")
    networks = make_networks([layer.in_features])
    file = write_hypernetwork(tmp_path / "net.safetensors", networks)
    change = reader.read(model.base, model.family, file)["unet"][layer].scaled(layer, 1.0)
    seen: list[torch.Tensor] = []
    inputs = torch.randn(2, 5, layer.in_features, generator=torch.Generator().manual_seed(3))

    def keep(given: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        seen.append(given)
        return output + 1

    with LayerHooks().registered({layer: [(keep, Rows(0, 2, 2)), (change, None)]}), torch.inference_mode():
        output = layer(inputs)
    changed = inputs + networks[layer.in_features, "k"](inputs)
    assert torch.equal(seen[0], changed)
    assert torch.equal(output, layer(changed) + 1)


@pytest.fixture(scope="module")
def catalogue_with_hypernetworks(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """The catalogue with a hypernetwork for its SDXL model, and one of widths that the model lacks."""
    folder = tmp_path_factory.mktemp("hypernetworks")
    widths: Mapping[str, list[int]] = {"hyper": [64, 128], "wide": [77]}
    rows = [
        LoraSpec(
            id=id,
            family="sdxl",
            source=str(write_hypernetwork(folder / f"{id}.safetensors", make_networks(own))),
        )
        for id, own in widths.items()
    ]
    return catalogue.model_copy(update={"loras": (*catalogue.loras, *rows)})


def test_jobs_name_it_as_they_name_loras_alone_and_in_company(
    catalogue_with_hypernetworks: Catalogue, storage: Storage
) -> None:
    catalogue, pool = catalogue_with_hypernetworks, Pool(catalogue_with_hypernetworks, device="cpu")
    hyper, lora = {"name": "hyper", "scale": 0.8}, {"name": "sdxl-lora", "scale": 1.0}
    jobs = [
        make_job(catalogue, "sdxl", Mode.TXT2IMG, loras=loras, batchable=True)
        for loras in ([hyper], [], [lora, hyper], [hyper | {"scale": -0.5}])
    ]
    alone = [complete_job(job, pool, storage) for job in jobs]
    assert len({files[0] for files, _ in alone}) == 4
    ((weights,), plan) = alone[0][1].loras, alone[0][1].memory
    assert (weights.id, weights.scale, len(weights.sha256)) == ("hyper", 0.8, 64)
    assert plan is not None
    assert plan.planned_bytes > alone[1][1].memory.planned_bytes
    assert [len(receipt.loras) for _, receipt in alone] == [1, 0, 2, 1]
    together = run_jobs(jobs, pool, storage)
    assert any(result.receipt.joined for result in together)
    for (files, _), result in zip(alone, together, strict=True):
        joined = decode_pixels(storage.read(result.stored[0].key))
        assert abs(joined - decode_pixels(files[0])).max() <= 1
    assert complete_job(jobs[1], pool, storage)[0] == alone[1][0]

    error = fail_job(make_job(catalogue, "sdxl", loras=[{"name": "wide", "scale": 1}]), pool, storage)
    assert "it changes attention layers with 77 channels, and those of the model have" in error.message
