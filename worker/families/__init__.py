"""How each family maps to diffusers: classes and arguments as data and small functions, one file per family.

What a family can do is in `contracts/catalogue/families.py`. No family imports another;
what several share has a file of its own.

chroma.py          Chroma
deterministic_vae.py a VAE for pipelines that draw from the global generator
flux2.py           FLUX.2 dev
flux2_klein.py     FLUX.2 klein
flux2_parts.py     what these two share
flux.py            FLUX.1 dev and schnell
flux_control.py    FLUX.1 Canny and Depth
flux_fill.py       FLUX.1 Fill
flux_kontext.py    FLUX.1 Kontext
flux_parts.py      what these four share
lumina2.py         Lumina-Image 2.0
pixart.py          PixArt-Σ
qwen_image.py      Qwen-Image
qwen_image_edit.py Qwen-Image-Edit
qwen_image_edit_plus.py Qwen-Image-Edit-Plus, 2509 and 2511
qwen_parts.py      what these three share
sd15.py            Stable Diffusion 1 and 2
sd3.py             Stable Diffusion 3 and 3.5
sdxl.py            Stable Diffusion XL
sdxl_parts.py      what it shares with its refiner
sdxl_refiner.py    the refiner of Stable Diffusion XL
z_image.py         Z-Image and Z-Image-Turbo
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from PIL import Image

from contracts.catalogue.families import LongPrompt, Mode
from contracts.prompts.syntax import Chunks
from contracts.requests.fields import PROMPT_FIELDS
from contracts.requests.parameters import JobParameters

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class GenerationInputs:
    """Inputs of one job's pipeline call.

    Attributes:
        image, mask, controls: images of the output's size; a control is None where the job's `image` serves, and
            the job's control image is the only one where it has no ControlNet.
        references: reference images, each of its own size.
        image_prompts: of each IP-Adapter, its images as they came.
        image_prompt_masks: of each IP-Adapter, where it acts, of the output's size; None: everywhere.
        latents: that the stage before has made, in which this one goes on; None in the first stage.
        starts: what each image starts from in place of `image`: images, or latents (n, channels, height, width).
    """

    job: JobParameters
    image: Image.Image | None = None
    mask: Image.Image | None = None
    controls: Sequence[Image.Image | None] = ()
    references: Sequence[Image.Image] = ()
    image_prompts: Sequence[Sequence[Image.Image]] = ()
    image_prompt_masks: Sequence[Image.Image | None] = ()
    latents: torch.Tensor | None = None
    starts: Sequence[Image.Image] | torch.Tensor = ()

    @property
    def texts(self) -> dict[str, str]:
        """Prompt field -> what the encoders read of it, without weights; without the fields that the job lacks."""
        texts = {field: self.job.text_of(field) for field in PROMPT_FIELDS}
        return {field: text for field, text in texts.items() if text is not None}

    @property
    def size(self) -> dict[str, int]:
        """Arguments for the output's size. Without them FLUX and SD3 use their own default."""
        return {"width": self.job.width, "height": self.job.height}

    @property
    def start(self) -> dict[str, Any]:
        """Arguments for the image to start from and the strength.

        The image is repeated for each generator: given once, some pipelines draw all noise from the first
        generator, and an image would depend on its position in the call.
        """
        images = self.starts if len(self.starts) else [self.image] * self.job.num_images
        return {"image": images, "strength": self.job.strength}

    @property
    def inpaint_mask(self) -> dict[str, Any]:
        """Argument for the mask, once per image."""
        return {"mask_image": [self.mask] * self.job.num_images}

    @property
    def guidance_scale(self) -> float:
        """The job's guidance scale, or 1 (no guidance in most families) for a model that ignores it."""
        return self.guidance_scale_or(1.0)

    def guidance_scale_or(self, off: float) -> float:
        """Return the job's guidance scale, or `off`, the family's value for none, for a model that ignores it."""
        return off if self.job.guidance_scale is None else self.job.guidance_scale

    @property
    def negative_prompt(self) -> str:
        """The negative prompt; empty if the job has none."""
        return self.texts.get("negative_prompt", "")

    def control_weights(self) -> dict[str, Any]:
        """Arguments for the scales and step ranges of the ControlNets."""
        controls = self.job.controls
        return {
            "controlnet_conditioning_scale": single_or_list([control.conditioning_scale for control in controls]),
            "control_guidance_start": single_or_list([control.guidance_start for control in controls]),
            "control_guidance_end": single_or_list([control.guidance_end for control in controls]),
        }


def single_or_list(values: Sequence[_Value]) -> _Value | list[_Value]:
    """Return the value for a single ControlNet, the list for several, as diffusers takes them."""
    return values[0] if len(values) == 1 else list(values)


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
        read_t5: (pipeline, text, tokens, device) -> has T5 read a text, as `encode_prompt` does.
        join: rows, (1, …) of each image -> that argument's value.
        images: what the encoder sees beside a text, the same for both prompts; None: it reads texts only.
        encode_negative: (pipeline, arguments of `encode_prompt`) -> the values at the places of `results`, for a
            negative prompt that the pipeline reads otherwise than a prompt, such as without an instruction.
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
        return cast("Sequence[Any]", pipeline.encode_prompt(**arguments))

    def _with_images(self, prompt: Prompt, inputs: GenerationInputs) -> Prompt:
        return prompt if self.images is None else replace(prompt, images=tuple(self.images(inputs)))


def _with_chunks(job: JobParameters, arguments: PromptArguments, fields: Mapping[str, str]) -> Prompt:
    """Return a prompt with its weighted spans; `fields` says which field of the job each argument is."""
    chunks = {name: job.prompt_chunks[field] for name, field in fields.items() if field in job.prompt_chunks}
    return Prompt(arguments, chunks, job.long_prompt or "truncate")


def _needs_no_patch(pipeline: Any) -> None:
    pass


def _already_unpacked(pipeline: Any, latents: Any, size: tuple[int, int]) -> Any:  # noqa: ARG001
    return latents


def _no_others(folder: Path) -> dict[str, Any]:  # noqa: ARG001
    return {}


def _is_whole(controlnet: Any, denoiser: Any) -> None:
    pass


def _fits(components: Mapping[str, Any]) -> str | None:  # noqa: ARG001
    return None


@dataclass(frozen=True)
class DiffusersFamily:
    """One family's classes and arguments in diffusers.

    Attributes:
        id: of its row in `contracts/catalogue/families.py`.
        pipelines: mode -> pipeline class; the first is the one that holds a loaded checkpoint's components.
        controlnet: class of a ControlNet.
        multi_controlnet: class that combines several; both are empty where it has none.
        denoiser: name of the component that runs at every step.
        denoiser_class: its class.
        repeated_blocks: classes of the blocks that it repeats; these are compiled.
        absent: components that the pipeline class takes, and its checkpoints do not have.
        t5: name of the T5 encoder's component; None if there is none.
        encoding: how prompts become embeddings.
        arguments: all arguments of a pipeline call but embeddings, generators and callback.
        patch: works round a pipeline class, on a freshly made pipeline.
        prepare: works round a class of the components, on the pipeline that has just loaded them.
        misfit: components -> why their configurations do not make this family together; None: they do.
        guides_in_two_calls: whether a guided step calls the denoiser with the prompt, and then without it; else
            both are rows of one call.
        complete_controlnet: (ControlNet, denoiser) -> gives a ControlNet the denoiser's layers that it runs.
        load_others: checkpoint's folder -> components without weights that its own class cannot load here.
        unpack_latents: (pipeline, latents, (width, height) in pixels) -> latents (n, channels, height, width).
    """

    id: str
    pipelines: Mapping[Mode, str]
    controlnet: str
    multi_controlnet: str
    denoiser: str
    denoiser_class: str
    repeated_blocks: tuple[str, ...]
    t5: str | None
    encoding: PromptEncoding
    arguments: Callable[[GenerationInputs], dict[str, Any]]
    patch: Callable[[Any], None] = _needs_no_patch
    prepare: Callable[[Any], None] = _needs_no_patch
    misfit: Callable[[Mapping[str, Any]], str | None] = _fits
    guides_in_two_calls: bool = False
    complete_controlnet: Callable[[Any, Any], None] = _is_whole
    load_others: Callable[[Path], dict[str, Any]] = _no_others
    unpack_latents: Callable[[Any, Any, tuple[int, int]], Any] = _already_unpacked
    absent: frozenset[str] = frozenset()

    @property
    def shares_layers(self) -> bool:
        """Whether its ControlNets run layers of the denoiser."""
        return self.complete_controlnet is not _is_whole

    @property
    def checkpoint_class(self) -> str:
        """The pipeline class that holds a checkpoint's components, and that its `model_index.json` names."""
        return next(iter(self.pipelines.values()))


def first_difference(pairs: Mapping[str, tuple[Any, Any]]) -> str | None:
    """Return the first of `what: (found, needed)` that differ, as the end of a sentence; None: all agree."""
    for what, (found, needed) in pairs.items():
        if found != needed:
            return f"{what} is {found}, but must be {needed}"
    return None


def get_family(name: str) -> DiffusersFamily:
    """Return the family with this id, which a file of its name in this folder describes, with `_` for `-`."""
    module = importlib.import_module(f"worker.families.{name.replace('-', '_')}")
    return cast("DiffusersFamily", module.FAMILY)
