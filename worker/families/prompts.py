"""A family's prompts, and how its pipeline encodes them. Knows no encoders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import torch
from PIL import Image

from contracts.catalogue.families import LongPrompt
from contracts.prompts.syntax import Chunks
from contracts.requests.fields import PROMPT_FIELDS
from contracts.requests.parameters import JobParameters
from worker.families.inputs import GenerationInputs

#: Arguments of `encode_prompt` for one prompt.
PromptArguments = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """A prompt for all encoders.

    Attributes:
        arguments: of `encode_prompt`.
        chunks: the same names -> weighted spans where the encoders read more than the text.
        long_prompt: `chunk` if CLIP is to read all of it.
        images: what the encoder sees beside the text, at the sizes at which it sees them.
        read_as_negative: whether it is a negative prompt of a family that encodes these differently.
    """

    arguments: PromptArguments
    chunks: Mapping[str, Chunks] = field(default_factory=dict)
    long_prompt: LongPrompt = "truncate"
    images: tuple[Image.Image, ...] = ()
    read_as_negative: bool = False

    @property
    def without_text(self) -> Prompt:
        """The empty prompt with the same options."""
        texts = {name: "" if name == "prompt" else None for name in PROMPT_FIELDS if name in self.arguments}
        return Prompt({**self.arguments, **texts}, images=self.images, read_as_negative=self.read_as_negative)

    @cached_property
    def image_digests(self) -> tuple[tuple[object, ...], ...]:
        """Size and content hash of each image."""
        return tuple((*image.size, hashlib.sha256(image.tobytes()).hexdigest()) for image in self.images)


def _read_t5(pipeline: Any, text: str, max_length: int, device: torch.device) -> object:
    return pipeline._get_t5_prompt_embeds([text], max_sequence_length=max_length, device=device)


def _encode_prompt(pipeline: Any, arguments: Mapping[str, Any]) -> Sequence[Any]:
    return cast("Sequence[Any]", pipeline.encode_prompt(**arguments))


def one_tensor(rows: Sequence[Any]) -> Any:
    """Return rows, each (1, …), as one tensor."""
    return torch.cat(list(rows))


@dataclass(frozen=True)
class PromptEncoding:
    """Encoding of a family's prompts as embeddings: the arguments of `encode_prompt`, and its results.

    A negative prompt is encoded in a call of its own, like any other prompt unless `encode_negative` says how.

    Attributes:
        prompt_fields: fields of a job that are prompts of `encode_prompt`; None is passed for those it lacks.
        option_fields: other fields that change the embedding of a prompt.
        negative_option_fields: other fields that change the embedding of a negative prompt.
        negative_prompt: (inputs, the pipeline's config) -> its text; None if the pipeline needs none.
        results: argument of the pipeline call, for the prompt -> where `encode_prompt`'s result holds its value.
            For the negative prompt the argument is the same after `negative_`.
        constants: arguments of `encode_prompt` that never change.
        read_t5: (pipeline, text, tokens, device) -> has T5 read a text, as `encode_prompt` does; `tokens` is 0
            where requests have no `max_sequence_length`.
        join: rows, (1, …) of each image -> that argument's value.
        images: what the encoder sees beside a text, the same for both prompts; None: it reads texts only.
        encode_prompt: (pipeline, arguments of its method `encode_prompt`) -> that method's result, or what stands
            for it where the pipeline's call reads a prompt otherwise, such as behind an instruction.
        encode_negative: the same, for a negative prompt that the pipeline reads otherwise than a prompt.
    """

    prompt_fields: tuple[str, ...]
    option_fields: tuple[str, ...]
    negative_option_fields: tuple[str, ...]
    negative_prompt: Callable[[GenerationInputs, Mapping[str, Any]], str | None]
    results: Mapping[str, int]
    constants: Mapping[str, Any]
    read_t5: Callable[[Any, str, int, torch.device], object] = _read_t5
    join: Callable[[Sequence[Any]], Any] = one_tensor
    images: Callable[[GenerationInputs], Sequence[Image.Image]] | None = None
    encode_prompt: Callable[[Any, Mapping[str, Any]], Sequence[Any]] = _encode_prompt
    encode_negative: Callable[[Any, Mapping[str, Any]], Sequence[Any]] | None = None

    def prompt_of(self, inputs: GenerationInputs) -> Prompt:
        """Return the job's prompt."""
        texts = inputs.texts
        options = {name: getattr(inputs.job, name) for name in self.option_fields}
        arguments = {**{name: texts.get(name) for name in self.prompt_fields}, **options}
        prompt = _with_chunks(inputs.job, arguments, {name: name for name in self.prompt_fields})
        return self._with_images(prompt, inputs)

    def negative_prompt_of(self, inputs: GenerationInputs, config: Mapping[str, Any]) -> Prompt | None:
        """Return the job's negative prompt; None if the pipeline needs none."""
        text = self.negative_prompt(inputs, config)
        if text is None:
            return None
        options = {name: getattr(inputs.job, name) for name in self.negative_option_fields}
        others = {name: None for name in self.prompt_fields if name != "prompt"}
        arguments = {"prompt": text, **others, **options}
        prompt = _with_chunks(inputs.job, arguments, {"prompt": "negative_prompt"})
        return replace(self._with_images(prompt, inputs), read_as_negative=self.encode_negative is not None)

    def encode(self, pipeline: Any, prompt: Prompt, arguments: Mapping[str, Any]) -> Sequence[Any]:
        """Have a pipeline encode a prompt with these arguments; `results` says what is where in the result."""
        if prompt.read_as_negative and self.encode_negative is not None:
            return self.encode_negative(pipeline, arguments)
        return self.encode_prompt(pipeline, arguments)

    def _with_images(self, prompt: Prompt, inputs: GenerationInputs) -> Prompt:
        return prompt if self.images is None else replace(prompt, images=tuple(self.images(inputs)))


def _with_chunks(job: JobParameters, arguments: PromptArguments, fields: Mapping[str, str]) -> Prompt:
    """Return a prompt with its weighted spans; `fields` says which field of the job each argument is."""
    chunks = {name: job.prompt_chunks[field] for name, field in fields.items() if field in job.prompt_chunks}
    return Prompt(arguments, chunks, job.long_prompt or "truncate")


def negative_if_guided(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:
    """Return the negative prompt; None where the scale is 1 or less, at which the pipeline guides nothing."""
    del config
    return None if inputs.guidance_scale <= 1 else inputs.negative_prompt
