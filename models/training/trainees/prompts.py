"""Examples without a prompt, as the calls that guidance compares with have it."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from worker.training.examples import Example


def without_prompts(rows: Sequence[Example]) -> list[Example]:
    """The rows; where the caption is empty, with zeros for embeddings, which SDXL's pipelines guide away from."""
    return [row if row.caption else _bare(row) for row in rows]


def _bare(row: Example) -> Example:
    zeros = {name: torch.zeros_like(values) for name, values in row.embeddings.items()}
    return replace(row, embeddings=zeros)
