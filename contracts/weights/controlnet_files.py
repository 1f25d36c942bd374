"""ControlNets in one file: which kind a file is, by the names of its tensors. Loads nothing.

Kinds that look like a ControlNet and are not one would be loaded in part.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from contracts.errors import CatalogueError

#: A name that only this kind has -> what it is, and what to do.
_OTHER_KINDS: Sequence[tuple[re.Pattern[str], str]] = (
    (
        re.compile(r"^lora_controlnet$|\.(down|up)$|^lora_"),
        "a control-LoRA, whose weights change the model's own: take the whole ControlNet instead",
    ),
    (re.compile(r"^lllite_"), "a ControlNet-LLLite, which no pipeline here can run: take a whole ControlNet"),
    (
        re.compile(r"^(task_embedding|transformer_layes\.|spatial_ch_projs|control_add_embedding|control_type)"),
        "a union of several kinds of control, of which no request can name one: take the ControlNet of one kind",
    ),
    (
        re.compile(r"^controlnet_mode_embedder\."),
        "a union of several kinds of control: put its config.json beside it, and its kinds in `modes` of its row",
    ),
    (re.compile(r"^(adapter\.)?(body|conv_in)\.\d"), "a T2I-Adapter, which is not supported: take a ControlNet"),
    (
        re.compile(r"^(image_proj|ip_adapter)[._]"),
        "an IP-Adapter, not a ControlNet",
    ),
    (re.compile(r"^(model\.diffusion_model|first_stage_model)\."), "a whole checkpoint, not a ControlNet"),
)


def refuse_other_kinds(names: Collection[str]) -> None:
    """Refuse a file that is known to be something else; raises CatalogueError."""
    for pattern, kind in _OTHER_KINDS:
        found = next((name for name in names if pattern.search(name)), None)
        if found is not None:
            raise CatalogueError(f"it is {kind} ({found[:80]})")
