"""Puts a family's parts together and writes them as a diffusers folder in half precision. Trains nothing.

`from_pretrained` of the family's pipelines reads the result; load it with an explicit dtype.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers import (
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from transformers import CLIPTokenizer, T5Tokenizer

from models.training.networks import architectures, tokenizer
from worker.families import get_family
from worker.training.trainees.copies import copy_transformer, copy_unet

MODELS = Path(__file__).resolve().parents[2]
FAMILIES = ("sdxl", "sd3", "flux", "sd15")
#: Is of no family of its own: FLUX.1 that was taught to edit.
EDITING = "kontext"
CHECKPOINTS = (*FAMILIES, EDITING)
CONTROLS = ("silhouette", "canny")

#: Component name -> model. Names are diffusers' own.
Parts = dict[str, Any]


class Tokenizers(NamedTuple):
    """The tokenizers, built from the grammar each time, always the same."""

    clip: CLIPTokenizer
    second_clip: CLIPTokenizer
    t5: T5Tokenizer


def make_tokenizers() -> Tokenizers:
    """SDXL's second tokenizer pads with `!`, and SD3's too; the first pads with the end token."""
    return Tokenizers(tokenizer.build_clip(), tokenizer.build_clip(pad_token="!"), tokenizer.build_t5())  # noqa: S106


def checkpoint_folder(family: str) -> Path:
    """Where the checkpoint of a family lies, or the one that edits."""
    return MODELS / f"shapes-{family}"


def control_folder(family: str, control: str) -> Path:
    """Where one of the family's ControlNets lies."""
    return MODELS / "controlnets" / f"shapes-{family}-{control}"


def fresh_parts(family: str, words: Tokenizers) -> Parts:
    """Every trainable component with random weights."""
    clip, t5 = len(words.clip), len(words.t5)
    if family == "sdxl":
        return {
            "text_encoder": architectures.build_clip(clip),
            "text_encoder_2": architectures.build_projected_clip(clip),
            "unet": architectures.build_unet(),
            "vae": architectures.build_autoencoder(latent_channels=4),
        }
    if family == "sd15":
        return {
            "text_encoder": architectures.build_clip(clip),
            "unet": architectures.build_sd15_unet(),
            "vae": architectures.build_autoencoder(latent_channels=4),
        }
    if family == "sd3":
        return {
            "text_encoder": architectures.build_projected_clip(clip, layers=3),
            "text_encoder_2": architectures.build_projected_clip(clip),
            "text_encoder_3": architectures.build_t5(t5),
            "transformer": architectures.build_sd3(),
            "vae": architectures.build_autoencoder(latent_channels=16),
        }
    return {
        "text_encoder": architectures.build_clip(clip),
        "text_encoder_2": architectures.build_t5(t5),
        "transformer": architectures.build_flux(),
        "vae": architectures.build_autoencoder(latent_channels=16),
    }


def assemble(family: str, parts: Mapping[str, Any], words: Tokenizers) -> Any:
    """The family's text-to-image pipeline around these parts."""
    if family == "sdxl":
        return StableDiffusionXLPipeline(
            **parts,
            tokenizer=words.clip,
            tokenizer_2=words.second_clip,
            scheduler=architectures.build_euler(),
            add_watermarker=False,
        )
    if family == "sd15":
        return StableDiffusionPipeline(
            **parts,
            tokenizer=words.clip,
            scheduler=architectures.build_euler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    if family == "sd3":
        return StableDiffusion3Pipeline(
            **parts,
            tokenizer=words.clip,
            tokenizer_2=words.second_clip,
            tokenizer_3=words.t5,
            scheduler=architectures.build_flow_euler(dynamic_shifting=False),
        )
    return FluxPipeline(
        **parts,
        tokenizer=words.clip,
        tokenizer_2=words.t5,
        scheduler=architectures.build_flow_euler(dynamic_shifting=True),
    )


def build_control(family: str, denoiser: Any) -> Any:
    """A fresh ControlNet that starts from the denoiser, as the worker's training starts it."""
    row = get_family(family)
    if row.denoiser == "unet":
        return copy_unet(denoiser, architectures.AUTOENCODER_LEVELS, seed=0)
    return copy_transformer(getattr(diffusers, row.controlnet), denoiser)


def write(model: Any, folder: Path) -> None:
    """Writes a pipeline or a model in half precision; half a folder is never left under its name."""
    scratch = folder.with_name(folder.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    model.to(torch.float16).save_pretrained(scratch, safe_serialization=True)
    make_readable(scratch.rglob("*.safetensors"))
    forget_origin(scratch.rglob("config.json"))
    if folder.exists():
        for card in folder.glob("README.md"):
            shutil.copy2(card, scratch / card.name)
        shutil.rmtree(folder)
    scratch.rename(folder)


def make_readable(files: Iterable[Path]) -> None:
    """safetensors writes for the owner alone; in a container somebody else reads."""
    for file in files:
        file.chmod(0o644)


def forget_origin(files: Iterable[Path]) -> None:
    """Configurations remember the folder that they were loaded from, which is nobody else's business."""
    for file in files:
        entries = json.loads(file.read_text(encoding="utf-8"))
        if entries.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def write_untrained(family: str) -> None:
    """The whole family with random weights: enough to test plumbing, and nothing else."""
    torch.manual_seed(0)
    words = make_tokenizers()
    pipeline = assemble(family, fresh_parts(family, words), words)
    denoiser = pipeline.components[get_family(family).denoiser]
    for control in CONTROLS:
        write(build_control(family, denoiser), control_folder(family, control))
    write(pipeline, checkpoint_folder(family))
