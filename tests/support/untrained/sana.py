"""Sana and Sana-Sprint, small and untrained, and the calls of diffusers that images of Sana equal."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.catalogue.rows.models import ModelSpec
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.bare_cases import CONTROL, CONTROL_FIELDS, SIZE, TEXTS, Case
from tests.support.untrained_llm import gemma_text, gemma_tokenizer
from tests.support.untrained_parts import WIDTH, seeded, stirred

_TRANSFORMER: dict[str, Any] = {
    "in_channels": 8, "out_channels": 8, "num_attention_heads": 2, "attention_head_dim": 8,
    "num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16,
    "caption_channels": WIDTH, "sample_size": 2,
}  # fmt: skip


def _vae_of_stride_32() -> Any:
    sides: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        sides |= {
            f"{side}_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
            f"{side}_block_out_channels": (8, 8, 8, 8, 16, 16), f"{side}_layers_per_block": (1,) * 6,
            f"{side}_qkv_multiscales": ((), (), (), (5,), (5,), (5,)),
        }  # fmt: skip
    options = {"latent_channels": 8, "attention_head_dim": 4, "scaling_factor": 0.41407, **sides}
    return seeded(lambda: diffusers.AutoencoderDC(**options))


def _sana_tokenizer(pipeline: Any) -> Any:
    """One that has the words of the pipeline's instruction, as Gemma's has: planned for are its tokens."""
    instruction = inspect.signature(pipeline.__call__).parameters["complex_human_instruction"].default
    return gemma_tokenizer("\n".join(instruction))


def pipeline() -> Any:
    """Sana with two blocks."""
    tokenizer = _sana_tokenizer(diffusers.SanaPipeline)
    return diffusers.SanaPipeline(
        tokenizer=tokenizer, text_encoder=gemma_text(tokenizer), vae=_vae_of_stride_32(),
        transformer=seeded(lambda: diffusers.SanaTransformer2DModel(num_layers=2, **_TRANSFORMER)),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )  # fmt: skip


def with_sana_sprint(catalogue: Catalogue, folder: Path) -> Catalogue:
    """The catalogue with a row of family `sana` for Sana-Sprint."""
    tokenizer, id = _sana_tokenizer(diffusers.SanaSprintPipeline), "tiny-sana-sprint"
    options = {**_TRANSFORMER, "guidance_embeds": True, "qk_norm": "rms_norm_across_heads"}
    diffusers.SanaSprintPipeline(
        tokenizer=tokenizer, text_encoder=gemma_text(tokenizer), vae=_vae_of_stride_32(),
        transformer=seeded(lambda: diffusers.SanaTransformer2DModel(num_layers=2, **options)),
        scheduler=diffusers.SCMScheduler(),
    ).save_pretrained(folder / id)  # fmt: skip
    row = ModelSpec(id=id, family="sana", source=str(folder / id), defaults={"width": 64, "height": 64})
    return with_checkpoint_limits(catalogue.model_copy(update={"models": (*catalogue.models, row)}))


def controlnet(transformer: Any) -> Any:
    """A ControlNet of one block."""
    del transformer
    return stirred(seeded(lambda: diffusers.SanaControlNetModel(num_layers=1, **_TRANSFORMER)))


#: Sizes and captions as they are given.
_EXACT = {"use_resolution_binning": False, "clean_caption": False}


def _case(mode: Mode, name: str, guidance_scale: float = 3.0, **call: Any) -> Case:
    both: dict[str, Any] = {"guidance_scale": guidance_scale, "max_sequence_length": 32}
    both |= {"negative_prompt": TEXTS["negative_prompt"] if guidance_scale > 1 else None}
    if mode is Mode.CONTROLNET:
        call["controlnet_conditioning_scale"] = CONTROL_FIELDS["conditioning_scale"]
    call |= {**SIZE, **_EXACT, **both}
    return Case("sana", mode, f"Sana{name}Pipeline", call, both, "flow_dpmpp_2m", 3)


CASES = [
    _case(Mode.TXT2IMG, ""),
    _case(Mode.TXT2IMG, "", 1.0),
    _case(Mode.CONTROLNET, "ControlNet", control_image=CONTROL),
]  # fmt: skip
