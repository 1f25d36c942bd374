"""Small untrained checkpoints of families whose prompts a language model reads; `untrained.py` lists them."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.untrained_parts import WIDTH, seeded, stirred, vae

#: Qwen's pattern of words; see `Qwen2Tokenizer` of transformers.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen_tokenizer(*templates: str) -> Any:
    """Qwen's byte-pair encoding, trained until the words of its templates are whole tokens.

    The Qwen-Image pipelines cut a fixed number of tokens off the front, those of their template.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=1500, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(
        [*templates, "system user assistant a red green blue circle square on the"] * 2, trainer
    )
    trained = json.loads(bpe.to_str())["model"]
    vocabulary = dict(trained["vocab"])
    for token in ("<|endoftext|>", *_SPECIAL):
        vocabulary[token] = len(vocabulary)
    return transformers.Qwen2Tokenizer(
        vocab=vocabulary, merges=[tuple(pair) for pair in trained["merges"]],
        additional_special_tokens=list(_SPECIAL), chat_template=_CHAT, model_max_length=2048,
    )  # fmt: skip


def decoder_options(tokenizer: Any) -> dict[str, Any]:
    """Options of a language model with three layers."""
    return {
        "vocab_size": len(tokenizer), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": WIDTH // 4,
        "max_position_embeddings": 4096,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    }  # fmt: skip


def z_image() -> Any:
    """Z-Image, not distilled, with two layers."""
    tokenizer = qwen_tokenizer()
    transformer = seeded(
        lambda: diffusers.ZImageTransformer2DModel(
            in_channels=16, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
            axes_dims=[8, 4, 4], axes_lens=[1024, 64, 64],
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    for name in ("x_pad_token", "cap_pad_token"):  # the class leaves them uninitialised
        torch.nn.init.normal_(getattr(transformer, name), std=0.02, generator=generator)
    config = transformers.Qwen3Config(**decoder_options(tokenizer))
    latent_vae = vae(16, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1)
    return diffusers.ZImagePipeline(
        tokenizer=tokenizer, text_encoder=seeded(lambda: transformers.Qwen3Model(config)), vae=latent_vae,
        transformer=stirred(transformer), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
    )  # fmt: skip


def z_image_controlnet(transformer: Any) -> Any:
    """Of version 2, which reads a mask and the masked image, too."""
    config = transformer.config
    return stirred(
        seeded(
            lambda: diffusers.ZImageControlNetModel(
                control_layers_places=[0], control_refiner_layers_places=[0], control_in_dim=33,
                add_control_noise_refiner="control_noise_refiner", dim=config.dim, n_refiner_layers=1,
                n_heads=config.n_heads, n_kv_heads=config.n_kv_heads,
            )
        )
    )  # fmt: skip


def gemma_tokenizer(*texts: str) -> Any:
    """Gemma's byte-pair encoding over printable ASCII; words of these texts, behind a space, are whole tokens."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", "\n", *(chr(code) for code in range(33, 127))]
    words = {f"▁{word}" for text in texts for word in re.findall(r"(?<= )[A-Za-z]+", text)}
    beginnings = {word[:end] for word in words for end in range(2, len(word) + 1)}
    longer = sorted(beginnings, key=lambda one: (len(one), one))
    vocabulary = {token: index for index, token in enumerate([*tokens, *longer])}
    return transformers.GemmaTokenizer(vocab=vocabulary, merges=[(one[:-1], one[-1]) for one in longer])


def gemma_text(tokenizer: Any) -> Any:
    """Gemma 2 with three layers."""
    config = transformers.Gemma2Config(**decoder_options(tokenizer))
    return seeded(lambda: transformers.Gemma2Model(config))


def lumina2() -> Any:
    """Lumina-Image 2.0 with two layers."""
    tokenizer = gemma_tokenizer()
    transformer = seeded(
        lambda: diffusers.Lumina2Transformer2DModel(
            sample_size=8, in_channels=16, hidden_size=48, num_layers=2, num_refiner_layers=1,
            num_attention_heads=3, num_kv_heads=1, multiple_of=16, axes_dim_rope=(8, 4, 4),
            axes_lens=(300, 64, 64), cap_feat_dim=WIDTH,
        )
    )  # fmt: skip
    latent_vae = vae(16, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1)
    return diffusers.Lumina2Pipeline(
        tokenizer=tokenizer, text_encoder=gemma_text(tokenizer), vae=latent_vae, transformer=stirred(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
    )  # fmt: skip


def ovis_image() -> Any:
    """Ovis-Image with one block of each kind, whose tokenizer has the words of the pipeline's instruction."""
    tokenizer = qwen_tokenizer(
        "Describe the image by detailing the color, quantity, text, shape, size, texture, spatial relationships "
        "of the objects and background: "
    )
    config = transformers.Qwen3Config(**decoder_options(tokenizer))
    transformer = seeded(
        lambda: diffusers.OvisImageTransformer2DModel(
            in_channels=64, out_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=WIDTH, axes_dims_rope=(4, 6, 6),
        )
    )  # fmt: skip
    with torch.no_grad():  # so that prompts show in the image
        for layer in (transformer.context_embedder, transformer.proj_out):
            layer.weight.mul_(30 if layer is transformer.context_embedder else 8)
    latent_vae = vae(16, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1)
    return diffusers.OvisImagePipeline(
        tokenizer=tokenizer, text_encoder=seeded(lambda: transformers.Qwen3Model(config)), vae=latent_vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )  # fmt: skip


_SANA_TRANSFORMER: dict[str, Any] = {
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


def sana() -> Any:
    """Sana with two blocks."""
    tokenizer = _sana_tokenizer(diffusers.SanaPipeline)
    return diffusers.SanaPipeline(
        tokenizer=tokenizer, text_encoder=gemma_text(tokenizer), vae=_vae_of_stride_32(),
        transformer=seeded(lambda: diffusers.SanaTransformer2DModel(num_layers=2, **_SANA_TRANSFORMER)),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )  # fmt: skip


def with_sana_sprint(catalogue: Catalogue, folder: Path) -> Catalogue:
    """The catalogue with a row of family `sana` for Sana-Sprint."""
    tokenizer, id = _sana_tokenizer(diffusers.SanaSprintPipeline), "tiny-sana-sprint"
    options = {**_SANA_TRANSFORMER, "guidance_embeds": True, "qk_norm": "rms_norm_across_heads"}
    diffusers.SanaSprintPipeline(
        tokenizer=tokenizer, text_encoder=gemma_text(tokenizer), vae=_vae_of_stride_32(),
        transformer=seeded(lambda: diffusers.SanaTransformer2DModel(num_layers=2, **options)),
        scheduler=diffusers.SCMScheduler(),
    ).save_pretrained(folder / id)  # fmt: skip
    row = ModelSpec(id=id, family="sana", source=str(folder / id), defaults={"width": 64, "height": 64})
    return with_checkpoint_limits(catalogue.model_copy(update={"models": (*catalogue.models, row)}))


def sana_controlnet(transformer: Any) -> Any:
    """A ControlNet of one block."""
    del transformer
    return stirred(seeded(lambda: diffusers.SanaControlNetModel(num_layers=1, **_SANA_TRANSFORMER)))


_QWEN_TRANSFORMER: dict[str, Any] = {
    "in_channels": 64, "out_channels": 16, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": WIDTH, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip


def qwen_vision_model(tokenizer: Any) -> Any:
    """Qwen2.5-VL with three layers, and two for images."""
    text = decoder_options(tokenizer) | {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    text.pop("head_dim")
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [1], "window_size": 112, "patch_size": 14,
    }  # fmt: skip
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad", "vision_start_token_id": "vision_start"}
    names["vision_end_token_id"] = "vision_end"
    ids = {option: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for option, token in names.items()}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    return seeded(lambda: transformers.Qwen2_5_VLForConditionalGeneration(config))


def _templates(*pipelines: Any) -> list[str]:
    """The prompt templates in the constructors of these classes: their long texts."""
    constants = [text for pipeline in pipelines for text in pipeline.__init__.__code__.co_consts]
    return [text for text in constants if isinstance(text, str) and len(text) > 60]


def qwen_image(read_by: Any = diffusers.QwenImagePipeline) -> Any:
    """Qwen-Image with two blocks, for the prompts of a pipeline; with transparency for that of layers."""
    is_layered = read_by is diffusers.QwenImageLayeredPipeline
    of_layers = {"use_additional_t_cond": True, "use_layer3d_rope": True} if is_layered else {}
    channels = {"input_channels": 4} if is_layered else {}
    tokenizer = qwen_tokenizer(*_templates(read_by))
    return diffusers.QwenImagePipeline(
        tokenizer=tokenizer, text_encoder=qwen_vision_model(tokenizer),
        vae=seeded(lambda: diffusers.AutoencoderKLQwenImage(base_dim=8, num_res_blocks=1, **channels)),
        transformer=seeded(
            lambda: diffusers.QwenImageTransformer2DModel(num_layers=2, **_QWEN_TRANSFORMER, **of_layers)
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
    )  # fmt: skip


def qwen_image_controlnet(transformer: Any, **options: Any) -> Any:
    """A ControlNet of one block; with `extra_condition_channels` 4 it reads a mask beside the image."""
    del transformer
    options = {**_QWEN_TRANSFORMER, "num_layers": 1, **options}
    return stirred(seeded(lambda: diffusers.QwenImageControlNetModel(**options)))
