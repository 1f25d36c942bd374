"""Sets of request fields that modes of several families use, for the rows of `families.py`. Pure."""

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
