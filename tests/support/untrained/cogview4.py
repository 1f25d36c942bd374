"""CogView4, small and untrained, and the calls of diffusers that its images equal."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from contracts.catalogue.families import Mode
from tests.support.bare_cases import SIZE, TEXTS, Case
from tests.support.untrained_llm import decoder_options
from tests.support.untrained_parts import WIDTH, seeded, vae


def _glm_tokenizer() -> Any:
    """GLM-4's, of single bytes: two tokens at the start, padding on the left."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>", "[gMASK]", "<sop>"]
    bpe = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    starts = [(token, tokens.index(token)) for token in ("[gMASK]", "<sop>")]
    bpe.post_processor = processors.TemplateProcessing(single="[gMASK] <sop> $A", special_tokens=starts)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|endoftext|>", eos_token="<|endoftext|>", padding_side="left",
        additional_special_tokens=["[gMASK]", "<sop>"], model_max_length=2048,
    )  # fmt: skip


def pipeline() -> Any:
    """CogView4 with two blocks."""
    tokenizer = _glm_tokenizer()
    config = transformers.GlmConfig(**decoder_options(tokenizer))
    transformer = seeded(
        lambda: diffusers.CogView4Transformer2DModel(
            num_layers=2, attention_head_dim=16, num_attention_heads=2, text_embed_dim=WIDTH, time_embed_dim=32,
            condition_dim=8, pos_embed_max_size=16, sample_size=8, rope_axes_dim=(16, 16),
        )
    )  # fmt: skip
    latent_vae = vae(16, use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False)
    return diffusers.CogView4Pipeline(
        tokenizer=tokenizer, text_encoder=seeded(lambda: transformers.GlmModel(config)), vae=latent_vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, time_shift_type="linear", base_shift=0.25, max_shift=0.75
        ),
    )  # fmt: skip


def _case(guidance_scale: float, **more: Any) -> Case:
    both: dict[str, Any] = {"guidance_scale": guidance_scale, "max_sequence_length": 64, **more}
    both |= {"negative_prompt": TEXTS["negative_prompt"] if guidance_scale > 1 else None}
    return Case("cogview4", Mode.TXT2IMG, "CogView4Pipeline", {**SIZE, **both}, both, "flow_euler")


CASES = [_case(3.0), _case(1.0), _case(3.0, original_size=(96, 48), crops_coords_top_left=(8, 16))]
