"""What the rows of several families have in common: sets of request fields, and names of layers. Pure."""

from __future__ import annotations

SEQUENCE_TEXT = frozenset({"negative_prompt", "max_sequence_length"})
TRUE_CFG = frozenset({"negative_prompt", "true_cfg_scale"})
IMAGE = frozenset({"image", "strength", "fit"})
MASK = frozenset({"image", "strength", "mask_image", "mask_blur", "padding_mask_crop", "fit"})
CONTROLS = frozenset({"controls", "fit"})
CONTROL_IMAGE = frozenset({"control_image", "fit"})
RESCALE = frozenset({"guidance_rescale"})
REFERENCES = frozenset({"references", "fit"})
GUIDANCE = frozenset({"guidance"})
IMAGE_PROMPTS = frozenset({"ip_adapters"})
INVERSIONS = frozenset({"textual_inversions"})
REFINER = frozenset({"refiner"})
HIRES = frozenset({"hires"})
CASCADE = frozenset({"cascade"})
THRESHOLDING = frozenset({"dynamic_thresholding"})

#: Beginnings of the names of the layers of FLUX.1's transformer, and of those that were made from it.
FLUX_LAYERS = (
    r"(single_)?transformer_blocks_|(double|single)_blocks_|(x|context)_embedder|time_text_embed|norm_out|proj_out"
)
#: Beginnings of the names of the layers of SDXL's UNet.
UNET_LAYERS = r"(down|up|input|output)_blocks_|mid(dle)?_block_|conv_(in|out)|time_emb|add_emb|label_emb|out_"
