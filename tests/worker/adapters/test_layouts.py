"""LoRA files under the names that trainers give layers: upload and worker read them alike, and lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.errors import AdapterRefused
from contracts.requests.entry_parameters import LoraParameters
from contracts.weights.adapters.lora_files import read_lora
from contracts.weights.adapters.lora_models import read_facts
from tests.support.adapters import active_loras
from tests.support.weights import write_adapter
from worker.adapters import reader
from worker.adapters.cache import LoraCache
from worker.adapters.files import LoraFiles
from worker.adapters.low_rank import LowRank
from worker.pool.pool import Pool

Tensors = dict[str, torch.Tensor]
FLOAT8 = torch.float8_e4m3fn
#: Layers of a FLUX block as its makers name them, and their widths in multiples of the model's.
BFL = {
    "img_attn.proj": (1, 1), "img_mlp.0": (1, 4), "img_mlp.2": (4, 1), "txt_attn.proj": (1, 1),
    "txt_mlp.0": (1, 4), "txt_mlp.2": (4, 1), "img_attn.qkv": (1, 3), "txt_attn.qkv": (1, 3),
}  # fmt: skip


def _pair(inputs: int, outputs: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return (torch.randn(4, inputs, generator=generator) * 0.1, torch.randn(outputs, 4, generator=generator) * 0.1)


def _flux(prefix: str, separator: str, alpha: float | None = 2.0) -> Tensors:
    """Both double blocks of the small FLUX under the names of its makers."""
    generator = torch.Generator().manual_seed(1)
    tensors: Tensors = {}
    for block in range(2):
        for name, (inputs, outputs) in BFL.items():
            layer = f"{prefix}double_blocks.{block}.{name}".replace(".", separator)
            layer = layer if separator == "." else f"lora_unet_{layer}"
            down, up = _pair(128 * inputs, 128 * outputs, generator)
            tensors |= {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}
            tensors |= {} if alpha is None else {f"{layer}.alpha": torch.tensor(alpha)}
    return tensors


def _xlabs() -> Tensors:
    generator = torch.Generator().manual_seed(1)
    tensors: Tensors = {}
    for name, outputs in (("qkv_lora1", 384), ("qkv_lora2", 384), ("proj_lora1", 128), ("proj_lora2", 128)):
        layer = f"diffusion_model.double_blocks.0.processor.{name}"
        down, up = _pair(128, outputs, generator)
        tensors |= {f"{layer}.down.weight": down, f"{layer}.up.weight": up}
    return tensors


def _renamed(tensors: Tensors, *changes: tuple[str, str]) -> Tensors:
    renamed = dict(tensors)
    for old, new in changes:
        renamed = {name.replace(old, new): tensor for name, tensor in renamed.items()}
    return renamed


def _with_zero_differences(tensors: Tensors) -> Tensors:
    ups = {name: tensor for name, tensor in tensors.items() if name.endswith(".lora_up.weight")}
    zeros = {f"{name.removesuffix('.lora_up.weight')}.diff_b": torch.zeros(len(up)) for name, up in ups.items()}
    return {**tensors, **zeros}


@pytest.fixture(scope="module")
def trained(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensors]:
    """The denoiser's part of an adapter of each family, in PEFT's layout."""
    folder, found = tmp_path_factory.mktemp("trained"), {}
    for family in ("sdxl", "sd3", "flux"):
        found[family] = write_adapter(folder / "a.safetensors", family, catalogue.root / f"shapes-{family}")
    return found


def _save(folder: Path, tensors: Tensors, name: str = "lora") -> Path:
    path = folder / f"{name}.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def _products(pool: Pool, family: str, path: Path) -> dict[int, torch.Tensor]:
    """Layer -> the change of its weight."""
    model = pool.model(f"shapes-{family}")
    weights = reader.read(model.base, model.family, path)
    return {
        id(layer): (lora.up.flatten(1) @ lora.down.flatten(1)) * lora.alpha
        for part in weights.values()
        for layer, lora in part.items()
        if isinstance(lora, LowRank)
    }


def _assert_same(first: dict[int, torch.Tensor], second: dict[int, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.allclose(change, second[layer], atol=1e-6) for layer, change in first.items())


@torch.inference_mode()
def _latents(base: Any) -> torch.Tensor:
    base.set_progress_bar_config(disable=True)
    latents: torch.Tensor = base(
        "a red circle", width=64, height=64, num_inference_steps=1, output_type="latent",
        generator=torch.Generator().manual_seed(5),
    ).images  # fmt: skip
    return latents


@pytest.mark.parametrize(
    "tensors",
    [
        _flux("diffusion_model.", "."),
        _with_zero_differences(_flux("", "_")),
        _xlabs(),
    ],
    ids=["comfyui", "zero differences", "xlabs with a prefix"],
)
def test_files_that_diffusers_loads_whole_are_taken_at_upload_and_give_its_bits(
    tensors: Tensors, catalogue: Catalogue, pool: Pool, tmp_path: Path
) -> None:
    path = _save(tmp_path, tensors)
    assert read_facts(read_lora(path), catalogue).family == "flux"
    base = pool.model("shapes-flux").base
    plain = _latents(base)
    rows = catalogue.model_copy(update={"loras": (LoraSpec(id="one", family="flux", source=str(path)),)})
    cache = LoraCache(base, pool.model("shapes-flux").family, LoraFiles(rows))
    with active_loras(cache, LoraParameters(name="one", scale=1.0)):
        ours = _latents(base)
    base.load_lora_weights(str(tmp_path), weight_name=path.name, adapter_name="one", use_safetensors=True)
    theirs = _latents(base)
    base.unload_lora_weights()
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, plain)


def _bare(component: str, wrapper: str = "") -> Callable[[str], str]:
    return lambda name: wrapper + name.removeprefix(f"{component}.")


def _onetrainer(name: str) -> str:
    part, _, layer = name.partition(".")
    return f"lora_{part}_{layer.replace('.', '_')}"


@pytest.mark.parametrize(
    ("family", "rename", "suffixes"),
    [
        ("sdxl", _bare("unet"), ("lora_A", "lora_B")),
        ("sd3", _bare("transformer"), ("lora_A", "lora_B")),
        ("flux", _bare("transformer"), ("lora_A", "lora_B")),
        ("sdxl", _bare("unet", "base_model.model."), ("lora_A", "lora_B")),
        ("sd3", _onetrainer, ("lora_down", "lora_up")),
        ("flux", _onetrainer, ("lora_down", "lora_up")),
        ("sdxl", _onetrainer, ("lora_down", "lora_up")),
        ("flux", lambda name: name, ("lora_down", "lora_up")),
        ("sdxl", lambda name: name, ("lora.down", "lora.up")),
    ],
)
def test_a_name_that_is_exactly_one_layer_is_that_layer_however_it_is_written(
    family: str,
    rename: Callable[[str], str],
    suffixes: tuple[str, str],
    trained: dict[str, Tensors],
    catalogue: Catalogue,
    pool: Pool,
    tmp_path: Path,
) -> None:
    written = {}
    for key, tensor in trained[family].items():
        name, _, half = key.removesuffix(".weight").rpartition(".lora_")
        written[f"{rename(name)}.{suffixes[half == 'B']}.weight"] = tensor
    path = _save(tmp_path, written)
    assert read_facts(read_lora(path), catalogue).models == (f"shapes-{family}",)
    _assert_same(_products(pool, family, path), _products(pool, family, _save(tmp_path, trained[family], "plain")))


def test_layers_that_diffusers_would_lose_are_applied(catalogue: Catalogue, pool: Pool, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    embedding, projection = "lora_unet_add_embedding_linear_1", "lora_unet_mid_block_attentions_0_proj_in"
    base = pool.model("shapes-sdxl").base
    outputs, inputs = base.unet.add_embedding.linear_1.weight.shape
    down, up = _pair(inputs, outputs, generator)
    outputs, inputs = base.unet.mid_block.attentions[0].proj_in.weight.shape
    narrow_down, narrow_up = _pair(inputs, outputs, generator)
    path = _save(
        tmp_path,
        {
            f"{embedding}.lora_down.weight": down,
            f"{embedding}.lora_up.weight": up,
            f"{embedding}.alpha": torch.tensor(2.0),
            # Matrices of a linear layer, stored as convolutions of 1 x 1.
            f"{projection}.lora_down.weight": narrow_down[..., None, None],
            f"{projection}.lora_up.weight": narrow_up[..., None, None],
        },
    )
    read_facts(read_lora(path), catalogue)
    changes = _products(pool, "sdxl", path)
    _assert_same(
        changes,
        {
            id(base.unet.add_embedding.linear_1): up @ down * 0.5,
            id(base.unet.mid_block.attentions[0].proj_in): narrow_up @ narrow_down,
        },
    )


@pytest.mark.parametrize("wrapper", ["", "base_model.model.", "transformer.", "unet."])
@pytest.mark.parametrize("halves", [("lora_down", "lora_up"), ("lora_A", "lora_B")])
def test_the_original_names_of_flux_are_its_layers_under_any_wrapper(
    wrapper: str, halves: tuple[str, str], catalogue: Catalogue, pool: Pool, tmp_path: Path
) -> None:
    """They were taken at the upload, and failed each job."""
    usual = _flux("diffusion_model.", ".", alpha=None)
    given = _renamed(usual, ("diffusion_model.", wrapper), ("lora_down", halves[0]), ("lora_up", halves[1]))
    path = _save(tmp_path, given)
    assert read_facts(read_lora(path), catalogue).models == ("shapes-flux",)
    _assert_same(_products(pool, "flux", path), _products(pool, "flux", _save(tmp_path, usual, "usual")))


@pytest.mark.parametrize("wrapper", ["", "transformer.", "base_model.model."])
def test_xlabs_names_are_its_layers_under_any_wrapper(
    wrapper: str, catalogue: Catalogue, pool: Pool, tmp_path: Path
) -> None:
    path = _save(tmp_path, _renamed(_xlabs(), ("diffusion_model.", wrapper)))
    assert read_facts(read_lora(path), catalogue).layout == "xlabs"
    _assert_same(_products(pool, "flux", path), _products(pool, "flux", _save(tmp_path, _xlabs(), "usual")))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda tensors: {**tensors, "double_blocks.0.processor.qkv_lora1.alpha": torch.tensor(2.0)},
            "qkv_lora1.alpha belongs to no layer",
        ),
        (
            lambda tensors: {name: (tensor * 99).to(torch.int8) for name, tensor in tensors.items()},
            "must be floating-point numbers, got I8",
        ),
        (
            lambda tensors: {**tensors, **{f"transformer.{name}": one.clone() for name, one in tensors.items()}},
            "two sets of weights for double_blocks.0.processor",
        ),
    ],
    ids=["an alpha of XLabs", "integers", "two wrappers"],
)  # fmt: skip
def test_what_no_worker_could_apply_is_refused_at_the_upload(
    change: Callable[[Tensors], Tensors], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        read_lora(_save(tmp_path, change(_xlabs())))


def test_weights_in_8_bits_are_applied(trained: dict[str, Tensors], pool: Pool, tmp_path: Path) -> None:
    narrow = {key: tensor.to(FLOAT8) for key, tensor in trained["sdxl"].items()}
    wide = {key: tensor.float() for key, tensor in narrow.items()}
    _assert_same(
        _products(pool, "sdxl", _save(tmp_path, narrow)), _products(pool, "sdxl", _save(tmp_path, wide, "wide"))
    )
    flux = {key: tensor.to(FLOAT8) if tensor.dim() else tensor for key, tensor in _flux("", "_").items()}
    assert len(_products(pool, "flux", _save(tmp_path, flux))) == 24


def _last_layer(alpha: float | None) -> Tensors:
    generator, layer = torch.Generator().manual_seed(1), "lora_unet_final_layer_linear"
    down, up = _pair(128, 64, generator)
    stored = {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}
    return stored if alpha is None else {**stored, f"{layer}.alpha": torch.tensor(alpha)}


def test_an_alpha_that_diffusers_drops_must_change_nothing(pool: Pool, tmp_path: Path) -> None:
    """It reads kohya's last layer of FLUX without it."""
    plain = _products(pool, "flux", _save(tmp_path, {**_flux("", "_"), **_last_layer(None)}))
    same = _products(pool, "flux", _save(tmp_path, {**_flux("", "_"), **_last_layer(4.0)}))
    assert id(pool.model("shapes-flux").base.transformer.proj_out) in plain
    _assert_same(plain, same)
    with pytest.raises(ValueError, match=r"no layer of the model takes lora_unet_final_layer_linear\.alpha"):
        _products(pool, "flux", _save(tmp_path, {**_flux("", "_"), **_last_layer(2.0)}))


def test_a_file_with_two_naming_schemes_is_applied_whole(
    trained: dict[str, Tensors], pool: Pool, tmp_path: Path
) -> None:
    """diffusers converts the one and drops the other."""
    makers = {key: one for key, one in _flux("", "_").items() if "double_blocks_0_" in key}
    singles = {key: one for key, one in trained["flux"].items() if "single_transformer_blocks" in key}
    others = {key.replace("double_blocks.0", "double_blocks.1"): one for key, one in _xlabs().items()}
    apart = [
        _products(pool, "flux", _save(tmp_path, part, f"part{index}"))
        for index, part in enumerate((makers, singles, others))
    ]
    together = _products(pool, "flux", _save(tmp_path, {**makers, **singles, **others}))
    _assert_same(together, {layer: change for part in apart for layer, change in part.items()})


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (
            {"transformer.transformer_blocks.0.attn.to_out.0.lora_A.weight": torch.ones(4, 128),
             "transformer.transformer_blocks.0.attn.to_out.0.lora_B.weight": torch.ones(128, 4)},
            "two sets of weights for transformer.transformer_blocks.0.attn.to_out.0",
        ),
        (
            {"lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight": torch.ones(4, 128),
             "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_up.weight": torch.ones(128, 4)},
            "no layer of the model takes lora_te3_encoder_block_0",
        ),
        (
            {"lora_unet_double_blocks_7_img_attn_proj.lora_down.weight": torch.ones(4, 128),
             "lora_unet_double_blocks_7_img_attn_proj.lora_up.weight": torch.ones(128, 4)},
            r"transformer.transformer_blocks.7.attn.to_out.0",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_applied_whole_is_refused_by_the_layers_name(
    extra: Tensors, reason: str, pool: Pool, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=reason):
        _products(pool, "flux", _save(tmp_path, {**_flux("", "_"), **extra}))


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (
            {"lora_te3_encoder_block_0_layer_0_SelfAttention_q": (128, 128)},
            "lora_te3_encoder_block_0.* changes text_encoder_3; of the text encoders of flux",
        ),
        ({"lora_unet_some_blocks_0": (128, 128)}, "lora_unet_some_blocks_0 is not a layer of any known family"),
    ],
)
def test_an_upload_is_refused_for_the_layer_that_is_wrong(
    extra: dict[str, tuple[int, int]], reason: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    generator, tensors = torch.Generator().manual_seed(1), _flux("", "_")
    for name, (inputs, outputs) in extra.items():
        down, up = _pair(inputs, outputs, generator)
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    path = _save(tmp_path, tensors)
    with pytest.raises(AdapterRefused, match=reason):
        read_facts(read_lora(path), catalogue)


def test_a_difference_of_a_bias_beside_a_lora_is_applied(pool: Pool, tmp_path: Path) -> None:
    """ComfyUI extracts them; where they are not zero, diffusers refuses the file."""
    tensors, model = _with_zero_differences(_flux("", "_")), pool.model("shapes-flux")
    name = "lora_unet_double_blocks_0_img_attn_qkv.diff_b"
    tensors[name] = torch.arange(float(len(tensors[name])))
    weights = reader.read(model.base, model.family, _save(tmp_path, tensors))["transformer"]
    plain = reader.read(model.base, model.family, _save(tmp_path, _flux("", "_"), "plain"))["transformer"]
    attention = model.base.transformer.transformer_blocks[0].attn
    for number, layer in enumerate((attention.to_q, attention.to_k, attention.to_v)):
        inputs, output = torch.ones(1, 3, 128), torch.zeros(1, 3, 128)
        changes: Any = [one[layer].scaled(layer, 0.5) for one in (weights, plain)]
        with_bias, without = (change(inputs, output) for change in changes)
        bias = torch.arange(128.0 * number, 128.0 * (number + 1)) * 0.5
        assert torch.allclose(with_bias, without + bias, atol=1e-4)
