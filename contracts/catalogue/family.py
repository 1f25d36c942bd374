"""What a row of `families.py` says of a model family; tasks, and the modes that their jobs run in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from contracts.catalogue.guidance import GuidanceKind
from contracts.catalogue.references import References
from contracts.catalogue.schedulers import Kind, SchedulerSpec

#: What happens to a prompt that an encoder cannot read at once.
LongPrompt = Literal["chunk", "truncate", "refuse"]


class Task(StrEnum):
    """Kind of job that a client can request; each has its own route."""

    TXT2IMG = "txt2img"
    IMG2IMG = "img2img"
    INPAINT = "inpaint"
    CONTROLNET = "controlnet"
    EDIT = "edit"


class Mode(StrEnum):
    """Pipeline that a job runs on: its task, or for ControlNet and edits also whether it has image or mask."""

    TXT2IMG = "txt2img"
    IMG2IMG = "img2img"
    INPAINT = "inpaint"
    CONTROLNET = "controlnet"
    CONTROLNET_IMG2IMG = "controlnet_img2img"
    CONTROLNET_INPAINT = "controlnet_inpaint"
    EDIT = "edit"
    EDIT_INPAINT = "edit_inpaint"


@dataclass(frozen=True)
class StepCacheSchedule:
    """The steps at which `speed: fast` runs the denoiser; at the others it predicts the result from earlier steps.

    The schedule is fixed, so an image depends neither on the jobs it shares a call with nor on the device's speed.

    Attributes:
        first_steps: number of initial steps that are all computed; they decide the composition.
        interval: after those, one step in this many is computed.
        order: order of the Taylor expansion: 0 repeats the last result, 1 extrapolates linearly.
        min_steps: minimum number of steps of a job; with fewer there is too little to predict from.
    """

    first_steps: int = 3
    interval: int = 2
    order: int = 1
    min_steps: int = 8

    def computes(self, step: int) -> bool:
        """Return whether the denoiser runs at this step, counted from 0 as in diffusers' TaylorSeer cache."""
        return step < self.first_steps or (step - self.first_steps - 1) % self.interval == 0


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder of a family, and what it reads.

    Attributes:
        name: component of the checkpoint.
        tokenizer: the same.
        prompt: request field that it reads; without that, it reads `prompt`.
        kind: CLIP reads windows of 75 tokens; T5 and a language model (`llm`) read up to `max_sequence_length`.
            `llm` is also any other encoder whose words cannot be weighted.
        pooled_only: the denoiser gets one vector of the first window, and no sequence.
        final_norm: the denoiser gets the last layer's output through the encoder's norm; else the one before it.
        template_tokens: of a language model, tokens of its chat template before the text, which
            `max_sequence_length` includes.
        max_tokens: tokens that it reads of a text where requests have no `max_sequence_length`.
        is_padded: whether it reads as many of a shorter text, too.
        instruction_tokens: tokens before those that it reads beside them, and the denoiser is not given.
    """

    name: str
    tokenizer: str
    prompt: str
    kind: Literal["clip", "t5", "llm"]
    pooled_only: bool = False
    final_norm: bool = False
    template_tokens: int = 0
    max_tokens: int = 0
    is_padded: bool = True
    instruction_tokens: int = 0

    @property
    def can_weigh(self) -> bool:
        """Whether words of its prompt can be weighted: the denoiser gets a vector for each."""
        return self.kind != "llm" and not self.pooled_only

    def text_tokens(self, max_sequence_length: int | None) -> int:
        """Number of a text's tokens that fit into a sequence, for an encoder without windows."""
        others = 1 if self.kind == "t5" else self.template_tokens
        return max(0, (max_sequence_length or self.max_tokens) - others)


@dataclass(frozen=True)
class Family:
    """A model architecture, or the checkpoints of one that were trained for other tasks.

    Attributes:
        id: name in the catalogue.
        kind: decides which schedulers work with it.
        more_kinds: of some of its checkpoints.
        pipeline: class that the `model_index.json` of its checkpoints names.
        more_pipelines: classes whose checkpoints it can run, too, beside those that begin as `pipeline` does.
        controlnet: class that the `config.json` of its ControlNets names; empty where it has none.
        modes: modes that diffusers has a pipeline for, each with the request fields that it uses.
        size_multiple: width and height must be multiples of it (VAE stride × patch size), in pixels.
        max_pixels: maximum of width × height; a model's row may override it.
        defaults: default of each field that depends on the model; a model's row may override it.
        max_sequence_length: maximum prompt length in tokens of T5 or a language model; None without either.
        negative_needs_true_cfg: a negative prompt has an effect only with `true_cfg_scale` > 1.
        guidance_off: a `guidance_scale` up to this guides nothing: one pass a step, and no negative prompt.
        guidance_kinds: other guidance than plain classifier-free guidance that it can follow, in the modes that
            have the field `guidance`.
        guides_in_turn: whether the passes with and without the prompt are calls of their own.
        single_file, gguf: whether a checkpoint may be one file, and its transformer a GGUF file.
        refuses: fields of every task that its models ignore.
        t5_optional: T5 may be skipped, which changes the image.
        inpaint_control_only: a ControlNet job with a mask needs a ControlNet trained for inpainting.
        t2i_multiple: what a side in pixels must be a multiple of with a T2I-Adapter; None: it has none.
        max_controls: ControlNets and T2I-Adapters that one request may have.
        controls_encoded_once: modes in which the VAE encodes control images once, not once for each pass.
        control_ranges: whether a ControlNet may act on some of the steps only.
        union: class of its ControlNets that are unions of several kinds of control; empty where it has none.
        denoiser_layers: regular expression for the beginning of its denoiser layers' names, in the layout of any
            LoRA trainer, with `_` for dots; empty where diffusers loads no LoRAs.
        lora_text_encoders: text encoders that LoRAs can change.
        inversion_encoders: text encoders that textual inversions give vectors to -> their names in the files.
        context_widths: of the published checkpoints: channels of the prompt's embedding that attention is given.
        few_steps: entries of a scheduler's configuration by which a checkpoint is known that is distilled for few
            steps, and its defaults.
        step_cache: schedule of `speed: fast`.
        text_encoders: in the order of their components.
        long_prompts: values of `long_prompt` that it can follow.
        required_fields: fields of `modes` that every request must have.
        references: of edits; None without the task `edit`.
        reads_image_as_reference: in an inpaint, the image itself is a reference.
        reserved_words: that prompts may not have, since the encoder takes them for images.
        other_checkpoints: classes that a `model_index.json` may name for checkpoints of this architecture that
            were trained for other tasks -> what these support.
        denoiser_channels: channels of the denoiser's input where other checkpoints have fewer or more; None: they
            do not tell its checkpoints from others.
        index_entries: entries of `model_index.json` that its checkpoints have, where the class is not enough to
            tell them from others.
        starts_from_latents: whether its img2img pipeline takes latents in place of an image.
        image_tokens_follow_prompt: whether its IP-Adapters are Redux; else they have attention layers.
        with_control_lora: class of the other checkpoints that a Control LoRA makes of its usual ones; empty where
            there are none.
        prompted_by_class: whether requests name a class, by `class_label`, in place of a prompt.
        fixed_size: whether a checkpoint makes images of one size only, which is its default.
        unit_noise: whether its pipeline starts from noise of deviation 1 whatever the scheduler's is.
        later_models: id of the row whose models can go on with its images in the same job, as a `refiner` or a
            `cascade`; empty where there are none.
        runs_later_only: whether its models do nothing but go on with the images of another one.
        unused: components of its checkpoints that no job uses.
    """

    id: str
    kind: Kind
    pipeline: str
    controlnet: str
    modes: Mapping[Mode, frozenset[str]]
    size_multiple: int
    max_pixels: int
    defaults: Mapping[str, object]
    denoiser_layers: str
    lora_text_encoders: frozenset[str]
    inversion_encoders: Mapping[str, str] = field(default_factory=dict)
    more_kinds: tuple[Kind, ...] = ()
    context_widths: frozenset[int] = frozenset()
    more_pipelines: tuple[str, ...] = ()
    max_sequence_length: int | None = None
    negative_needs_true_cfg: bool = False
    guidance_off: float = 1.0
    guides_in_turn: bool = False
    guidance_kinds: tuple[GuidanceKind, ...] = ()
    single_file: bool = True
    gguf: bool = False
    refuses: tuple[str, ...] = ()
    inpaint_control_only: bool = False
    t2i_multiple: int | None = None
    max_controls: int = 4
    controls_encoded_once: frozenset[Mode] = frozenset()
    control_ranges: bool = True
    union: str = ""
    t5_optional: bool = False
    few_steps: tuple[Mapping[str, object], Mapping[str, object]] = field(default=({}, {}))
    step_cache: StepCacheSchedule = StepCacheSchedule()
    text_encoders: tuple[TextEncoder, ...] = ()
    long_prompts: tuple[LongPrompt, ...] = ("chunk", "truncate", "refuse")
    required_fields: frozenset[str] = frozenset()
    references: References | None = None
    reads_image_as_reference: bool = False
    reserved_words: tuple[str, ...] = ()
    other_checkpoints: Mapping[str, Family] = field(default_factory=dict)
    denoiser_channels: int | None = None
    index_entries: Mapping[str, object] = field(default_factory=dict)
    starts_from_latents: bool = True
    image_tokens_follow_prompt: bool = False
    with_control_lora: str = ""
    prompted_by_class: bool = False
    fixed_size: bool = False
    unit_noise: bool = False
    later_models: str = ""
    runs_later_only: bool = False
    unused: frozenset[str] = frozenset()

    def of_checkpoint(self, pipeline: str | None) -> Family:
        """Return what checkpoints of this class support; this row where it is the usual class, or not known."""
        return self.other_checkpoints.get(pipeline or "", self)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of checkpoint that it has, the usual one first."""
        return (self.kind, *self.more_kinds)

    def follows(self, scheduler: SchedulerSpec) -> bool:
        """Whether a scheduler works with its models, as far as their checkpoints agree with each other."""
        return scheduler.kind in self.kinds and not (self.unit_noise and scheduler.scales_noise)

    @property
    def makes_layers(self) -> bool:
        """Whether each of its images is several files, its layers."""
        return any("layers" in fields for fields in self.modes.values())

    @property
    def max_images(self) -> int | None:
        """Most images of one request; None: as many as any request may have."""
        return 1 if self.makes_layers else None

    @property
    def subject(self) -> str:
        """The field that says what an image shows; every request must have it."""
        return "class_label" if self.prompted_by_class else "prompt"

    def any_subject(self, prompt: str) -> dict[str, str | int]:
        """That field with this prompt, or with the first class; for images of which it does not matter."""
        return {self.subject: 0 if self.prompted_by_class else prompt}

    @property
    def embeds_guidance(self) -> bool:
        """Whether guidance is an input of its denoiser, which distilled checkpoints lack; else it makes passes."""
        return self.negative_needs_true_cfg

    @property
    def chunks_prompts(self) -> bool:
        """Whether it has an encoder that reads a long prompt in several windows."""
        return any(encoder.kind == "clip" and not encoder.pooled_only for encoder in self.text_encoders)


#: The modes of a task, where it has several.
_MODES_OF: Mapping[Task, tuple[Mode, ...]] = MappingProxyType(
    {
        Task.CONTROLNET: (Mode.CONTROLNET, Mode.CONTROLNET_IMG2IMG, Mode.CONTROLNET_INPAINT),
        Task.EDIT: (Mode.EDIT, Mode.EDIT_INPAINT),
    }
)


def modes_of(task: Task) -> tuple[Mode, ...]:
    """Return all modes that jobs of a task may run in."""
    return _MODES_OF.get(task, (Mode(task.value),))


def task_of(mode: Mode) -> Task:
    """Return the task whose jobs run in a mode."""
    return next(task for task in Task if mode in modes_of(task))


def mode_of(task: Task, *, has_image: bool, has_mask: bool) -> Mode:
    """Return the mode of a task, given which images the request has."""
    if task is Task.EDIT:
        return Mode.EDIT_INPAINT if has_mask else Mode.EDIT
    if task is not Task.CONTROLNET:
        return Mode(task.value)
    if has_mask:
        return Mode.CONTROLNET_INPAINT
    return Mode.CONTROLNET_IMG2IMG if has_image else Mode.CONTROLNET
