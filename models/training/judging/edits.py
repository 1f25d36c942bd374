"""Lets the judge look at what `shapes-kontext` makes of a reference, and counts. Trains nothing.

An edit has changed what was asked for if the judge names the new value; it has kept the rest if all other
attributes are those of the reference. Both together are the figure that counts.
"""

import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxKontextPipeline
from PIL import Image
from tqdm import tqdm

from models.judge import ATTRIBUTES, Verdict, judge
from models.training.data.drawing import EDGE_PIXELS, render
from models.training.data.edits import KINDS, Edit, fixed_edits, is_held_out
from models.training.data.gallery import tile
from models.training.networks.export import checkpoint_folder

STEPS = 12
#: The defaults of models/catalogue.toml.
SETTINGS: dict[str, Any] = {"guidance_scale": 2.5, "max_sequence_length": 32}
COUNT = 200
_BATCH = 10
_FIRST_SEED = 1000
_COLUMNS = ("changed", "kept", "both")

#: (references, instructions, seeds) -> images
MakeEdits = Callable[[list[Image.Image], list[str], list[int]], list[Image.Image]]


@dataclass(frozen=True)
class EditSample:
    """One edit, its reference, what came of it, and what the judge saw."""

    edit: Edit
    reference: Image.Image
    image: Image.Image
    verdict: Verdict

    def right(self, attribute: str) -> bool:
        """Whether the judge saw what should be there after the edit."""
        return bool(getattr(self.verdict, attribute) == getattr(self.edit.after, attribute))

    @property
    def shares(self) -> tuple[bool, bool, bool]:
        """Whether it has changed what was asked for, has kept the rest, and both."""
        changed = self.right(self.edit.attribute)
        kept = all(self.right(name) for name in ATTRIBUTES if name != self.edit.attribute)
        return changed, kept, changed and kept


def report(sheet: Path | None = None, as_json: Path | None = None, steps: int = STEPS) -> None:
    """Makes the fixed test edits and prints the figures; saves pairs on a sheet, and JSON, where asked."""
    samples = sample(open_edits(steps), fixed_edits(COUNT))
    rows = tabulate(samples)
    width = max(map(len, rows))
    print(f"{'':{width}}    n  " + "  ".join(f"{name:>8}" for name in _COLUMNS))
    for name, row in rows.items():
        print(f"{name:{width}}  {row['n']:>3.0f}  " + "  ".join(f"{row[key]:>8.3f}" for key in _COLUMNS))
    lost = {name: sum(not s.right(name) for s in samples if s.edit.attribute != name) for name in ATTRIBUTES}
    print(f"{steps} steps, {SETTINGS}; not kept: {lost}")
    if sheet is not None:
        tile(list(itertools.chain(*((s.reference, s.image) for s in samples))), columns=20).save(sheet)
    if as_json is not None:
        as_json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def open_edits(steps: int = STEPS) -> MakeEdits:
    """The pipeline from its folder, called with one generator per image."""
    pipeline = FluxKontextPipeline.from_pretrained(checkpoint_folder("kontext"), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    # The pipeline would scale both to a megapixel.
    size = {"height": EDGE_PIXELS, "width": EDGE_PIXELS, "max_area": EDGE_PIXELS**2, "_auto_resize": False}

    def make(references: list[Image.Image], instructions: list[str], seeds: list[int]) -> list[Image.Image]:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        images: list[Image.Image] = pipeline(
            references, instructions, generator=generators, num_inference_steps=steps, **size, **SETTINGS
        ).images
        return images

    return make


def draw_reference(edit: Edit) -> Image.Image:
    """What the edit begins with."""
    return render(edit.before, random.Random(edit.seed))


def sample(make: MakeEdits, edits: Sequence[Edit]) -> list[EditSample]:
    """Makes the edits, each with its own seed, and judges them."""
    samples: list[EditSample] = []
    for start in tqdm(range(0, len(edits), _BATCH), desc="edits", mininterval=5.0):
        part = edits[start : start + _BATCH]
        references = [draw_reference(edit) for edit in part]
        seeds = [_FIRST_SEED + start + index for index in range(len(part))]
        images = make(references, [edit.instruction for edit in part], seeds)
        samples += [EditSample(e, r, p, judge(p)) for e, r, p in zip(part, references, images, strict=True)]
    return samples


def tabulate(samples: Sequence[EditSample]) -> dict[str, dict[str, float]]:
    """Shares of all edits, by what was asked for, and by what the reference shows."""
    groups = {kind: [s for s in samples if s.edit.attribute == kind] for kind in KINDS}
    groups["held-out"] = [s for s in samples if is_held_out(s.edit)]
    groups["off centre"] = [s for s in samples if s.edit.before.position != "center"]
    groups["textured"] = [s for s in samples if s.edit.before.texture != "plain"]
    groups["all edits"] = list(samples)
    return {name: count(part) for name, part in groups.items() if part}


def count(samples: Sequence[EditSample]) -> dict[str, float]:
    """The shares of edits that changed what was asked for, kept the rest, and both."""
    columns = zip(*(s.shares for s in samples), strict=True)
    shares = {name: round(sum(column) / len(samples), 3) for name, column in zip(_COLUMNS, columns, strict=True)}
    return {"n": len(samples), **shares}
