"""FLUX.2 dev and klein, small and untrained, and the calls of diffusers that images of dev equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.catalogue.rows.models import ModelSpec
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.bare_cases import SIZE, Case
from tests.support.jobs import INPUT_IMAGES
from tests.support.untrained_llm import decoder_options, qwen_tokenizer
from tests.support.untrained_parts import WIDTH, seeded

_PARTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{{ c['text'] }}{% endfor %}"
    "<|im_end|>\n{% endfor %}"
)


def with_flux2_klein(catalogue: Catalogue, folder: Path) -> Catalogue:
    """The catalogue with a row of family `flux2` for klein, and for a distilled one."""
    for id in ("tiny-flux2-klein", "tiny-flux2-klein-distilled"):
        flux2_klein(is_distilled=id.endswith("distilled")).save_pretrained(folder / id)
        defaults = {"width": 64, "height": 64, "num_inference_steps": 3}
        row = ModelSpec(id=id, family="flux2", source=str(folder / id), defaults=defaults, max_pixels=65_536)
        catalogue = catalogue.model_copy(update={"models": (*catalogue.models, row)})
    return with_checkpoint_limits(catalogue)


def pipeline() -> Any:
    """FLUX.2 dev with one block of each kind."""
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = _PARTS
    vision = {
        "model_type": "pixtral", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 56, "patch_size": 14, "head_dim": 16,
    }  # fmt: skip
    config = transformers.Mistral3Config(
        text_config=decoder_options(tokenizer) | {"model_type": "mistral", "num_hidden_layers": 30},
        vision_config=vision, image_token_index=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
    )  # fmt: skip
    return diffusers.Flux2Pipeline(
        tokenizer=tokenizer, text_encoder=seeded(lambda: transformers.Mistral3ForConditionalGeneration(config)),
        vae=_vae(), transformer=_transformer(guided=True), scheduler=_scheduler(),
    )  # fmt: skip


def flux2_klein(*, is_distilled: bool) -> Any:
    """FLUX.2 klein with one block of each kind."""
    tokenizer = qwen_tokenizer()
    config = transformers.Qwen3Config(**decoder_options(tokenizer) | {"num_hidden_layers": 27})
    return diffusers.Flux2KleinPipeline(
        tokenizer=tokenizer, text_encoder=seeded(lambda: transformers.Qwen3ForCausalLM(config)),
        vae=_vae(), transformer=_transformer(guided=False), scheduler=_scheduler(), is_distilled=is_distilled,
    )  # fmt: skip


def _scheduler() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)


def _transformer(*, guided: bool) -> Any:
    return seeded(
        lambda: diffusers.Flux2Transformer2DModel(
            in_channels=128, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=3 * WIDTH, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=guided,
        )
    )  # fmt: skip


def _vae() -> Any:
    vae = seeded(
        lambda: diffusers.AutoencoderKLFlux2(
            block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4, sample_size=64
        )
    )
    generator = torch.Generator().manual_seed(5)
    vae.bn.running_mean.normal_(std=0.1, generator=generator)
    vae.bn.running_var.uniform_(0.5, 1.5, generator=generator)
    return vae


def _case(mode: Mode, **call: Any) -> Case:
    both = {"guidance_scale": 3.0, "max_sequence_length": 96}
    fields = {**both, **SIZE}
    return Case("flux2", mode, "Flux2Pipeline", {**SIZE, **call, **both}, fields, "flow_euler", 2)


CASES = [
    _case(Mode.TXT2IMG),
    _case(Mode.EDIT, image=[INPUT_IMAGES["inputs/reference.png"]]),
]  # fmt: skip
