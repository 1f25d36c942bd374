"""Textual inversions of a job: each one's file found, read, and compared with the model's text encoders.

A few kilobytes, read for each job that names them. Changes nothing: `worker/encoding/placed_words.py` makes them
act.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from contracts.catalogue.families import Family
from contracts.errors import AdapterRefused
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.receipt import Weights
from contracts.requests.entry_parameters import TextualInversionParameters
from contracts.requests.parameters import JobParameters
from contracts.weights.adapters.inversion_files import read_inversion
from worker.adapters.files import LoraFiles


@dataclass(frozen=True, eq=False)
class LoadedInversion:
    """One textual inversion in host memory.

    Attributes:
        weights: its id and content hash, for receipts.
        words: in prompts that stand for it.
        vectors: text encoder -> (vectors, width).
    """

    weights: Weights
    words: tuple[str, ...]
    vectors: Mapping[str, torch.Tensor]

    @property
    def count(self) -> int:
        """Tokens that its word takes."""
        return len(next(iter(self.vectors.values())))


def read_inversions(
    base: Any, family: Family, job: JobParameters, files: LoraFiles
) -> tuple[LoadedInversion, ...]:
    """Read the textual inversions of a job.

    Args:
        base: the pipeline that holds the text encoders.

    Raises:
        JobFailed: ADAPTER_MISSING, ADAPTER_DAMAGED: as `LoraFiles.locate`; ADAPTER_INCOMPATIBLE: a file is not a
            textual inversion, or not one for this model.
        Unavailable, NotPrepared: as `LoraFiles.locate`.
    """
    return tuple(_read(base, family, one, files) for one in job.textual_inversions)


def with_counts(job: JobParameters, inversions: tuple[LoadedInversion, ...]) -> JobParameters:
    """Return a job's parameters with the numbers of vectors, which the API may not have known."""
    counted = tuple(
        one.model_copy(update={"vectors": loaded.count})
        for one, loaded in zip(job.textual_inversions, inversions, strict=True)
    )
    return job.model_copy(update={"textual_inversions": counted})


def _read(base: Any, family: Family, one: TextualInversionParameters, files: LoraFiles) -> LoadedInversion:
    path = files.locate(one, "textual_inversion")
    try:
        vectors = _vectors(base, family, path)
    except (AdapterRefused, ValueError) as error:
        message = f"textual inversion {one.name} cannot be used: {error}"
        raise JobFailed(FailureCode.ADAPTER_INCOMPATIBLE, message) from error
    sha256 = files.fingerprint(path)
    return LoadedInversion(files.weights(one, sha256, family.id, "textual_inversion"), one.words, vectors)


def _vectors(base: Any, family: Family, path: Path) -> dict[str, torch.Tensor]:
    facts = read_inversion(path)
    if set(facts.widths) != set(family.inversion_encoders.values()):
        needed = " and ".join(family.inversion_encoders.values())
        raise ValueError(f"it has vectors for {' and '.join(facts.widths)}; {family.id} needs {needed}")
    found = {}
    with safe_open(path, framework="pt") as file:
        for encoder, part in family.inversion_encoders.items():
            tensor = file.get_tensor(facts.tensors[part]).to(torch.float32).reshape(facts.vectors, -1).clone()
            width = getattr(base, encoder).config.hidden_size
            if tensor.shape[1] != width:
                raise ValueError(
                    f"its vectors for {encoder} have {tensor.shape[1]} values, the model's have {width}"
                )
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{facts.tensors[part][:80]} contains NaN or infinite values")
            found[encoder] = tensor
    return found
