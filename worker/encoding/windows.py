"""Encodes prompts that diffusers' `encode_prompt` reads only in part: long ones, and those with weighted words.

A long prompt is read by each CLIP encoder in windows of 75 tokens, whose embeddings are joined along the sequence;
the pooled embedding is that of the first window. A weight moves a token's embedding away from that of the empty
prompt at the same place, or towards it: `empty + weight × (embedding − empty)`, as `ClipTokenWeightEncoder` of
ComfyUI does (`comfy/sd1_clip.py`). A1111 scales the embedding and then divides by the mean of all, which changes
the other tokens and may divide by nearly nothing. Knows no cache and no adapters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from contracts.catalogue.families import Family, TextEncoder
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.prompts.tokens import (
    WINDOW_TOKENS,
    Tokenize,
    TokenUse,
    WeightedToken,
    plain_chunks,
    sequence_of,
    windows_of,
)
from contracts.requests.parameters import JobParameters
from contracts.requests.prompts.counts import count_tokens
from worker.encoding.cache import Embedding
from worker.families.prompts import Prompt

#: Tokens of a window with its start and its end.
WINDOW_LENGTH = WINDOW_TOKENS + 2


@dataclass(frozen=True)
class PromptWindows:
    """The tokens of one prompt.

    Attributes:
        clip: encoder -> its windows, for encoders whose sequence reaches the denoiser; only the first one of a
            prompt that is to be truncated.
        t5: what T5 reads.
    """

    clip: Mapping[str, Sequence[Sequence[WeightedToken]]]
    t5: Sequence[WeightedToken] = ()

    @property
    def count(self) -> int:
        """Windows of the embedding; 0 if it has none."""
        return max(map(len, self.clip.values()), default=0)

    @property
    def is_plain(self) -> bool:
        """Whether `encode_prompt` reads all of it."""
        return self.count <= 1 and not is_weighted(token for window in self._parts() for token in window)

    def _parts(self) -> Iterable[Sequence[WeightedToken]]:
        yield self.t5
        for windows in self.clip.values():
            yield from windows


def is_weighted(tokens: Iterable[WeightedToken]) -> bool:
    """Whether any token has another weight than 1."""
    return any(weight != 1 for _, weight in tokens)


def tokenizers_of(pipeline: Any, family: Family) -> dict[str, Tokenize]:
    """Return text encoder -> its tokenizer. Only the thread that runs the jobs may use them."""
    return {encoder.name: tokenize_by(getattr(pipeline, encoder.tokenizer)) for encoder in family.text_encoders}


def tokenize_by(tokenizer: Any) -> Tokenize:
    """Return what tokenizes with a tokenizer of transformers."""

    def tokenize(text: str) -> list[tuple[int, int]]:
        if not tokenizer.is_fast:  # Kolors': nothing divides its prompts, so where tokens end does not matter
            return [(token, len(text)) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [(token, end) for token, (_, end) in zip(found["input_ids"], found["offset_mapping"], strict=True)]

    return tokenize


def read_windows(prompt: Prompt, family: Family, tokenizers: Mapping[str, Tokenize]) -> PromptWindows:
    """Divide a prompt among the windows of each encoder."""
    clip: dict[str, Sequence[Sequence[WeightedToken]]] = {}
    t5: Sequence[WeightedToken] = ()
    for encoder in family.text_encoders:
        field = encoder.prompt if prompt.arguments.get(encoder.prompt) is not None else "prompt"
        chunks = prompt.chunks.get(field) or plain_chunks(prompt.arguments[field])
        tokenize = tokenizers[encoder.name]
        if encoder.kind == "llm":
            continue  # `encode_prompt` reads all that it can of it, and nothing is weighted
        if encoder.kind == "t5":
            t5 = sequence_of(chunks, tokenize, prompt.arguments.get("max_sequence_length") or encoder.max_tokens)
        elif not encoder.pooled_only:
            windows = windows_of(chunks, tokenize)
            clip[encoder.name] = windows if prompt.long_prompt == "chunk" else windows[:1]
    return PromptWindows(clip, t5)


def encode_windows(
    pipeline: Any,
    family: Family,
    windows: PromptWindows,
    *,
    beginning: Embedding,
    empty: Embedding,
    clip_skip: int | None,
    device: torch.device,
) -> Embedding:
    """Encode a prompt from its tokens.

    Args:
        beginning: what `encode_prompt` gives for the text; T5 has read all it can of it.
        empty: the same for the empty prompt.
    """
    length = WINDOW_LENGTH if windows.clip else 0
    rest = _weighted(beginning.sequence[:, length:], empty.sequence[:, length:], [w for _, w in windows.t5])
    if not windows.clip:
        return beginning.with_tensors(0, prompt_embeds=rest)
    sequences, pooled = [], []
    for encoder in family.text_encoders:
        if encoder.name not in windows.clip:
            continue
        nothing, _ = _encode_window(pipeline, encoder, (), clip_skip, device)
        encoded = [
            _encode_window(pipeline, encoder, window, clip_skip, device) for window in windows.clip[encoder.name]
        ]
        weights = [[1.0, *(weight for _, weight in window)] for window in windows.clip[encoder.name]]
        parts = [_weighted(part, nothing, weight) for (part, _), weight in zip(encoded, weights, strict=True)]
        sequences.append(torch.cat(parts + [nothing] * (windows.count - len(parts)), dim=1))
        pooled += [vector for _, vector in encoded[:1] if vector is not None]
    joined = torch.cat(sequences, dim=-1).to(rest)
    joined = torch.nn.functional.pad(joined, (0, rest.shape[-1] - joined.shape[-1]))
    changed = {"prompt_embeds": torch.cat([joined, rest], dim=1)}
    if "pooled_prompt_embeds" in beginning.tensors:
        vector = torch.cat(pooled, dim=-1)
        changed["pooled_prompt_embeds"] = vector.to(beginning.tensors["pooled_prompt_embeds"])
    return beginning.with_tensors(windows.count, **changed)


def padded(embedding: Embedding, empty: Embedding, windows: int) -> Embedding:
    """Return an embedding with this many windows, the additional ones of the empty prompt."""
    missing = windows - embedding.windows
    if missing <= 0 or not embedding.windows:
        return embedding
    split = WINDOW_LENGTH * embedding.windows
    more = empty.sequence[:, :WINDOW_LENGTH].repeat(1, missing, 1)
    sequence = torch.cat([embedding.sequence[:, :split], more, embedding.sequence[:, split:]], dim=1)
    return embedding.with_tensors(windows, prompt_embeds=sequence)


def _encode_window(
    pipeline: Any,
    encoder: TextEncoder,
    window: Sequence[WeightedToken],
    clip_skip: int | None,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a window's sequence and, of an encoder with a projection, its pooled embedding; as diffusers does."""
    tokenizer = getattr(pipeline, encoder.tokenizer)
    row = [tokenizer.bos_token_id, *(token for token, _ in window), tokenizer.eos_token_id]
    row += [tokenizer.pad_token_id] * (WINDOW_LENGTH - len(row))
    model = getattr(pipeline, encoder.name)
    output = model(torch.tensor([row]).to(device), output_hidden_states=True)
    skipped, pooled = clip_skip or 0, output[0] if output[0].ndim == 2 else None
    if encoder.final_norm:
        return model.text_model.final_layer_norm(output.hidden_states[-(skipped + 1)]), pooled
    return output.hidden_states[-(skipped + 2)], pooled


def _weighted(sequence: torch.Tensor, empty: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Weigh the tokens from the first one on; those without a weight stay as they are, bit for bit."""
    if all(weight == 1 for weight in weights):
        return sequence
    rest = [1.0] * (sequence.shape[1] - len(weights))
    factors = torch.tensor([*weights, *rest], dtype=sequence.dtype, device=sequence.device)[None, :, None]
    return torch.where(factors == 1, sequence, empty + factors * (sequence - empty))


def token_counts(pipeline: Any, family: Family, job: JobParameters) -> dict[str, dict[str, TokenUse]]:
    """Return the receipt's fields about what each text encoder reads of a job's prompts.

    Raises:
        JobFailed: PROMPT_TOO_LONG: a prompt is longer than the job allows.
    """
    counts = count_tokens(family, job, tokenizers_of(pipeline, family))
    if counts.problems:
        problem = counts.problems[0]
        raise JobFailed(FailureCode.PROMPT_TOO_LONG, f"{problem.field} {problem.message}")
    found = {"prompt_tokens": counts.prompt, "negative_prompt_tokens": counts.negative or {}}
    return {
        name: {encoder: _read_by(pipeline, encoder, use) for encoder, use in uses.items()}
        for name, uses in found.items()
    }


def _read_by(pipeline: Any, encoder: str, use: TokenUse) -> TokenUse:
    """What an encoder reads; nothing where the memory plan skips it."""
    return use if getattr(pipeline, encoder) is not None else TokenUse(given=use.given, used=0)
