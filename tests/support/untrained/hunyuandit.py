"""HunyuanDiT, small and untrained, and the calls of diffusers that its images equal."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers

from contracts.catalogue.families import Mode
from tests.support.bare_cases import CONTROL, CONTROL_FIELDS, SIZE, Case, means_only
from tests.support.combinations import ALL
from tests.support.untrained_parts import WIDTH, seeded, stirred, t5_text, t5_tokenizer, vae


def bert_tokenizer() -> Any:
    """BERT's word pieces over printable ASCII."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return transformers.BertTokenizer(vocab=vocabulary, model_max_length=77)


_TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "patch_size": 2, "sample_size": 8,
    "hidden_size": 16, "cross_attention_dim": WIDTH, "cross_attention_dim_t5": WIDTH, "pooled_projection_dim": 16,
    "use_style_cond_and_image_meta_size": False,
}  # fmt: skip


def pipeline() -> Any:
    """HunyuanDiT 1.2 with four blocks."""
    first, second = bert_tokenizer(), t5_tokenizer(256)
    bert = transformers.BertConfig(
        vocab_size=len(first), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=2 * WIDTH,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.018, beta_schedule="scaled_linear", prediction_type="v_prediction",
        clip_sample=False, steps_offset=1,
    )  # fmt: skip
    return diffusers.HunyuanDiTPipeline(
        tokenizer=first, text_encoder=seeded(lambda: transformers.BertModel(bert)), tokenizer_2=second,
        text_encoder_2=t5_text(second), vae=vae(), scheduler=scheduler, safety_checker=None,
        transformer=seeded(lambda: diffusers.HunyuanDiT2DModel(num_layers=4, **_TRANSFORMER)),
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def controlnet(transformer: Any) -> Any:
    """A ControlNet for it."""
    del transformer
    return stirred(seeded(lambda: diffusers.HunyuanDiT2DControlNetModel(transformer_num_layers=4, **_TRANSFORMER)))


def agree(pipeline: Any) -> None:
    """Have it draw nothing from the generator of the whole process for the latents of the control image."""
    if isinstance(pipeline, diffusers.HunyuanDiTControlNetPipeline):
        pipeline.vae.encode = means_only(pipeline.vae.encode)


def _case(mode: Mode, name: str, scheduler: str, **more: Any) -> Case:
    both: dict[str, Any] = {"guidance_scale": 4.0, "guidance_rescale": 0.5}
    call: dict[str, Any] = {**SIZE, "use_resolution_binning": False, **both, **more}
    if mode is Mode.CONTROLNET:
        call["controlnet_conditioning_scale"] = CONTROL_FIELDS["conditioning_scale"]
    return Case("hunyuandit", mode, f"HunyuanDiT{name}Pipeline", call, both, scheduler)


CASES = [
    _case(Mode.TXT2IMG, "", "ddim"),
    _case(Mode.CONTROLNET, "ControlNet", "ddim", control_image=CONTROL),
    *([_case(Mode.TXT2IMG, "", "dpmpp_2m")] if ALL else []),
]  # fmt: skip
