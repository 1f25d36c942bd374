"""Writes small SDXL and SD3 checkpoints as one file in the layout of the original releases, which people trade.

FLUX has no place here: diffusers reads its layout at the full width of 3072 only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET = {
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip
_VAE = {
    "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1", "conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut",
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
}  # fmt: skip
_OPEN_CLIP = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip


def write_sdxl_file(folder: Path, file: Path) -> None:
    """Write the checkpoint in `folder` (diffusers layout, as many layers as blocks say) as one file."""
    _write(
        {
            **dict(_unet(_load(folder / "unet"))),
            **dict(_vae(_load(folder / "vae"))),
            **dict(_clip(_load(folder / "text_encoder"))),
            **dict(_open_clip(_load(folder / "text_encoder_2"))),
        },
        file,
    )


def write_sd15_file(folder: Path, file: Path) -> None:
    """Write the checkpoint in `folder` (diffusers layout) as one file in CompVis' layout."""
    clip = {
        name.replace("conditioner.embedders.0.", "cond_stage_model."): tensor
        for name, tensor in _clip(_load(folder / "text_encoder"))
    }
    _write({**dict(_unet(_load(folder / "unet"))), **dict(_vae(_load(folder / "vae"))), **clip}, file)


def original_unet_names(folder: Path) -> dict[str, str]:
    """Name of each of a UNet's tensors -> its name in the original release, without the prefix of a checkpoint."""
    tensors = _load(folder)
    originals = (name.removeprefix("model.diffusion_model.") for name, _ in _unet(tensors))
    return dict(zip(tensors, originals, strict=True))


def write_unet_file(folder: Path, file: Path) -> None:
    """Write the checkpoint's UNet alone, as people trade it too."""
    _write(dict(_unet(_load(folder / "unet"))), file)


def write_controlnet_file(folder: Path, file: Path) -> None:
    """Write an SDXL ControlNet under the names of the original ControlNet release."""
    tensors = _load(folder)
    hint = [name for name in tensors if name.startswith("controlnet_cond_embedding.")]
    blocks = 1 + _last(tensors, r"controlnet_cond_embedding\.blocks\.(\d)")
    hints = {"conv_in": 0, **{f"blocks.{index}": 2 * (index + 1) for index in range(blocks)}}
    hints["conv_out"] = 2 * (blocks + 1)
    own: Tensors = {}
    for name in hint:
        layer, _, kind = name.removeprefix("controlnet_cond_embedding.").rpartition(".")
        own[f"input_hint_block.{hints[layer]}.{kind}"] = tensors[name]
    for name, tensor in tensors.items():
        if found := re.fullmatch(r"controlnet_down_blocks\.(\d+)\.(\w+)", name):
            own[f"zero_convs.{found[1]}.0.{found[2]}"] = tensor
        elif found := re.fullmatch(r"controlnet_mid_block\.(\w+)", name):
            own[f"middle_block_out.0.{found[1]}"] = tensor
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith("controlnet_")}
    own |= {name.removeprefix("model.diffusion_model."): tensor for name, tensor in _unet(rest)}
    _write({f"control_model.{name}": tensor for name, tensor in own.items()}, file)


def _write(tensors: Tensors, file: Path) -> None:
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, file)


def _load(folder: Path) -> Tensors:
    (path,) = folder.glob("*.safetensors")
    tensors: Tensors = load_file(path)
    return tensors


def _last(tensors: Tensors, pattern: str) -> int:
    return max(int(found[1]) for name in tensors if (found := re.match(pattern, name)))


def _unet(tensors: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    layers = 1 + max(
        int(found[1]) for name in tensors if (found := re.match(r"down_blocks\.0\.resnets\.(\d)", name))
    )
    for name, tensor in tensors.items():
        renamed = re.sub(
            r"^down_blocks\.(\d)\.(resnets|attentions)\.(\d)",
            lambda found: (
                f"input_blocks.{1 + int(found[1]) * (layers + 1) + int(found[3])}"
                f".{0 if found[2] == 'resnets' else 1}"
            ),
            name,
        )
        renamed = re.sub(
            r"^down_blocks\.(\d)\.downsamplers\.0\.conv",
            lambda found: f"input_blocks.{(int(found[1]) + 1) * (layers + 1)}.0.op",
            renamed,
        )
        renamed = re.sub(
            r"^up_blocks\.(\d)\.(resnets|attentions)\.(\d)",
            lambda found: (
                f"output_blocks.{int(found[1]) * (layers + 1) + int(found[3])}.{0 if found[2] == 'resnets' else 1}"
            ),
            renamed,
        )
        renamed = re.sub(
            r"^up_blocks\.(\d)\.upsamplers\.0\.conv",
            lambda found: f"output_blocks.{int(found[1]) * (layers + 1) + layers}.2.conv",
            renamed,
        )
        for old, new in _UNET.items():
            renamed = re.sub(rf"^{re.escape(old)}\.", f"{new}.", renamed)
        if "transformer_blocks" not in renamed:
            for old, new in _RESNET.items():
                renamed = renamed.replace(f".{old}.", f".{new}.")
        yield f"model.diffusion_model.{renamed}", tensor


def vae_tensors(tensors: Tensors) -> Tensors:
    """A VAE's tensors under their names in a whole checkpoint of the original layout."""
    return dict(_vae(tensors))


def _vae(tensors: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    blocks = 1 + _last(tensors, r"decoder\.up_blocks\.(\d)")
    for name, tensor in tensors.items():
        renamed = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
        renamed = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", renamed)
        renamed = re.sub(
            r"up_blocks\.(\d)\.(resnets|upsamplers)\.(\d)",
            lambda found: (
                f"up.{blocks - 1 - int(found[1])}."
                + (f"block.{found[3]}" if found[2] == "resnets" else "upsample")
            ),
            renamed,
        )
        for old, new in _VAE.items():
            renamed = renamed.replace(f".{old}.", f".{new}.")
        if ".attn_1." in renamed and renamed.endswith("weight") and ".norm." not in renamed:
            tensor = tensor[:, :, None, None]
        yield f"first_stage_model.{renamed}", tensor


def _clip(tensors: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in tensors.items():
        yield f"conditioner.embedders.0.transformer.text_model.{name.removeprefix('text_model.')}", tensor


def _open_clip(tensors: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    prefix = "conditioner.embedders.1.model."
    for name, tensor in tensors.items():
        plain = name.removeprefix("text_model.")
        if plain == "text_projection.weight":
            yield f"{prefix}text_projection", tensor.T
        elif plain == "embeddings.token_embedding.weight":
            yield f"{prefix}token_embedding.weight", tensor
        elif plain == "embeddings.position_embedding.weight":
            yield f"{prefix}positional_embedding", tensor
        elif plain.startswith("final_layer_norm"):
            yield f"{prefix}{plain.replace('final_layer_norm', 'ln_final')}", tensor
        elif found := re.match(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", plain):
            parts = [tensors[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            joined = f"transformer.resblocks.{found[1]}.attn.in_proj_{found[2]}"
            yield prefix + joined, torch.cat(parts)
        elif (found := re.match(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", plain)) and found[2] in _OPEN_CLIP:
            yield f"{prefix}transformer.resblocks.{found[1]}.{_OPEN_CLIP[found[2]]}.{found[3]}", tensor


_SD3 = {
    "pos_embed.proj": "x_embedder.proj", "context_embedder": "context_embedder",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "proj_out": "final_layer.linear", "norm_out.linear": "final_layer.adaLN_modulation.1",
}  # fmt: skip
_SD3_BLOCK = {
    "attn.to_out.0": "x_block.attn.proj", "attn.to_add_out": "context_block.attn.proj",
    "norm1.linear": "x_block.adaLN_modulation.1", "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1", "ff_context.net.2": "context_block.mlp.fc2",
}  # fmt: skip
_SD3_JOINED = {
    "attn.to_q": ("x_block.attn.qkv", ("attn.to_q", "attn.to_k", "attn.to_v")),
    "attn.add_q_proj": ("context_block.attn.qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
}


def write_sd3_file(folder: Path, file: Path) -> None:
    """Write the SD3 checkpoint in `folder`, text encoders included, as one file."""
    encoders = {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"}
    tensors = {**dict(_sd3(_load(folder / "transformer"))), **dict(_vae(_load(folder / "vae")))}
    for part, name in encoders.items():
        for key, tensor in _load(folder / part).items():
            tensors[f"text_encoders.{name}.transformer.{key}"] = tensor
    _write(tensors, file)


def _sd3(tensors: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    prefix = "model.diffusion_model."
    last = _last(tensors, r"transformer_blocks\.(\d+)")
    yield f"{prefix}pos_embed", tensors["pos_embed.pos_embed"]
    for name, tensor in tensors.items():
        module, kind = name.rsplit(".", 1)
        found = re.match(r"transformer_blocks\.(\d+)\.(.+)", module)
        if module in ("norm_out.linear", f"transformer_blocks.{last}.norm1_context.linear"):
            # The original keeps shift before scale here.
            tensor = torch.cat(tensor.chunk(2)[::-1])
        if found is None:
            if module in _SD3:
                yield f"{prefix}{_SD3[module]}.{kind}", tensor
            continue
        block = f"{prefix}joint_blocks.{found[1]}"
        if found[2] in _SD3_BLOCK:
            yield f"{block}.{_SD3_BLOCK[found[2]]}.{kind}", tensor
        elif found[2] in _SD3_JOINED:
            joined, parts = _SD3_JOINED[found[2]]
            thirds = [tensors[f"transformer_blocks.{found[1]}.{part}.{kind}"] for part in parts]
            yield f"{block}.{joined}.{kind}", torch.cat(thirds)
