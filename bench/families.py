"""Writes the table of families in `docs/files.md`, from their rows: `python -m bench.families`.

The text around the table is written by hand.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.report import to_table
from contracts.catalogue.families import FAMILIES, Family, task_of
from contracts.weights.counts.architectures import read_architectures

PAGE = Path(__file__).parent.parent / "docs" / "files.md"
_HEAD = "family | examples | tasks | prompt | files | LoRAs | ControlNets | defaults"


def fill(page: str) -> str:
    """The page with a new table."""
    table = to_table(_HEAD, [_row(family) for family in sorted(FAMILIES.values(), key=lambda row: row.id)])
    return re.sub(r"^\| family +\| examples .*\n(\|.*\n)+", lambda _: table, page, flags=re.MULTILINE)


def _row(family: Family) -> list[str]:
    sources = [one.sources[0] for one in read_architectures() if one.family == family.id]
    modes = [mode for row in (family, *family.other_checkpoints.values()) for mode in row.modes]
    files = ["folder", *["one file"] * family.single_file, *["`.gguf`"] * family.gguf]
    return [
        f"`{family.id}`",
        ", ".join(f"`{source}`" for source in sources),
        ", ".join(dict.fromkeys(task_of(mode) for mode in modes)),
        _prompt(family),
        ", ".join(files),
        "yes" if family.denoiser_layers else "–",
        f"`{family.controlnet}`" if family.controlnet else "–",
        _defaults(family),
    ]


def _prompt(family: Family) -> str:
    """Its encoders, and the tokens that those without windows read of a text."""
    if family.prompted_by_class:
        return "a class instead"
    most = family.max_sequence_length
    encoders = [
        f"`{one.name}`" + ("" if one.kind == "clip" else f": {one.text_tokens(most)}")
        for one in family.text_encoders
    ]
    return ", ".join(encoders)


def _defaults(family: Family) -> str:
    """Size, steps, guidance and scheduler."""
    given = family.defaults
    guidance = next(given[name] for name in ("guidance_scale", "true_cfg_scale") if name in given)
    size, steps = f"{given['width']} × {given['height']}", f"{given['num_inference_steps']} steps"
    return f"{size}, {steps}, guidance {guidance}, `{given['scheduler']}`"


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
