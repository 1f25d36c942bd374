"""Small random IP-Adapters for models with a UNet, Redux for FLUX, and image encoders that they read."""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch
import transformers
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from safetensors.torch import save_file

from contracts.catalogue.catalogue import Catalogue, IpAdapterSpec

Tensors = dict[str, torch.Tensor]

#: Of the image encoder: what it projects to, and its states.
EMBEDDING, STATES, SIDE = 24, 16, 32


def write_image_encoder(folder: Path, seed: int = 0) -> None:
    """Write a CLIP image encoder in transformers' layout."""
    torch.manual_seed(seed)
    config = transformers.CLIPVisionConfig(
        hidden_size=STATES, intermediate_size=32, projection_dim=EMBEDDING, num_hidden_layers=3,
        num_attention_heads=2, image_size=SIDE, patch_size=8,
    )  # fmt: skip
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)


def write_siglip_encoder(folder: Path, seed: int = 0) -> None:
    """Write a SigLIP image encoder in transformers' layout, which sees 16 patches."""
    torch.manual_seed(seed)
    config = transformers.SiglipVisionConfig(
        hidden_size=STATES, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
        patch_size=8,
    )  # fmt: skip
    transformers.SiglipVisionModel(config).save_pretrained(folder)


def redux_tensors(width: int, seed: int = 0) -> Tensors:
    """The tensors of Redux for a FLUX transformer that reads a prompt of this width."""
    torch.manual_seed(seed)
    embedder = ReduxImageEncoder(redux_dim=STATES, txt_in_features=width)
    return {name: tensor * 4 for name, tensor in embedder.state_dict().items()}


def ip_adapter_tensors(checkpoint: Path, kind: str = "plain", seed: int = 0) -> Tensors:
    """The tensors of an IP-Adapter for the UNet of a checkpoint, in the layout of the original release."""
    unet = diffusers.UNet2DConditionModel.load_config(checkpoint / "unet")
    width = unet["cross_attention_dim"]
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    if kind == "plain":
        projection = {
            "proj.weight": random(4 * width, EMBEDDING), "proj.bias": random(4 * width),
            "norm.weight": torch.ones(width), "norm.bias": torch.zeros(width),
        }  # fmt: skip
    else:
        projection = _resampler(width, generator)
    tensors = {f"image_proj.{name}": tensor for name, tensor in projection.items()}
    with torch.device("meta"):
        model = diffusers.UNet2DConditionModel.from_config(unet)
    number = 1
    for name in model.attn_processors:
        if name.endswith("attn1.processor"):
            continue
        outputs = model.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for half in "kv":
            tensors[f"ip_adapter.{number}.to_{half}_ip.weight"] = random(outputs, width)
        number += 2
    return tensors


def _resampler(width: int, generator: torch.Generator) -> Tensors:
    """A small `Resampler` of the Plus kind: four layers, three tokens; heads have 64 values."""
    inner, shapes = 64, {"latents": (1, 3, 64), "proj_in.weight": (64, STATES), "proj_out.weight": (width, 64)}
    for layer in range(4):
        shapes |= {
            f"layers.{layer}.0.to_q.weight": (inner, 64), f"layers.{layer}.0.to_kv.weight": (2 * inner, 64),
            f"layers.{layer}.0.to_out.weight": (64, inner), f"layers.{layer}.1.1.weight": (256, 64),
            f"layers.{layer}.1.3.weight": (64, 256),
        }  # fmt: skip
    tensors = {name: torch.randn(*shape, generator=generator) * 0.3 for name, shape in shapes.items()}
    norms = ["norm_out"] + [
        f"layers.{layer}.{norm}" for layer in range(4) for norm in ("0.norm1", "0.norm2", "1.0")
    ]
    for norm in norms:
        size = width if norm == "norm_out" else 64
        tensors |= {f"{norm}.weight": torch.ones(size), f"{norm}.bias": torch.zeros(size)}
    return tensors | {"proj_in.bias": torch.zeros(64), "proj_out.bias": torch.zeros(width)}


def with_ip_adapters(catalogue: Catalogue, folder: Path) -> Catalogue:
    """The catalogue with `FAMILY-plain` and `FAMILY-plus` for each family with a UNet, and `flux-redux`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_image_encoder(folder / "encoder")
    rows = [redux_row(catalogue, folder)]
    for family in ("sdxl", "sd15", "kolors"):
        checkpoints = [catalogue.root / row.source for row in catalogue.models if row.family == family]
        kinds = [(checkpoint, kind) for checkpoint in checkpoints[:1] for kind in ("plain", "plus")]
        for seed, (checkpoint, kind) in enumerate(kinds):
            path = folder / f"{family}-{kind}.safetensors"
            save_file(ip_adapter_tensors(checkpoint, kind, seed), path)
            rows.append(
                IpAdapterSpec(
                    id=f"{family}-{kind}", family=family, source=str(path), image_encoder=str(folder / "encoder")
                )
            )
    return catalogue.model_copy(update={"ip_adapters": tuple(rows)})


def redux_row(catalogue: Catalogue, folder: Path) -> IpAdapterSpec:
    """Write Redux, `flux-redux`, for the FLUX models of a catalogue, and its encoder."""
    write_siglip_encoder(folder / "siglip")
    checkpoint = next(catalogue.root / row.source for row in catalogue.models if row.family == "flux")
    width = diffusers.FluxTransformer2DModel.load_config(checkpoint / "transformer")["joint_attention_dim"]
    save_file(redux_tensors(width), folder / "redux.safetensors")
    source = str(folder / "redux.safetensors")
    return IpAdapterSpec(id="flux-redux", family="flux", source=source, image_encoder=str(folder / "siglip"))
