"""Rows of models: a checkpoint, its family, and what it takes. Opens no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.catalogue.families import FAMILIES, Family, Mode, Task
from contracts.catalogue.quantizations import QUANTIZATIONS, kinds_of
from contracts.catalogue.rows.row import Alias, Row, Variant, address_of
from contracts.catalogue.rows.vaes import LatentSpace
from contracts.catalogue.schedulers import SCHEDULERS, SchedulerSpec, mismatch, names_for
from contracts.hub.source import GGUF, SAFETENSORS, parse_source

#: Key of the Control LoRA among the files of a row.
_CONTROL_LORA = "control_lora"


class ControlLora(BaseModel):
    """A Control LoRA that is merged into a model's transformer while it is loaded.

    Attributes:
        source: its `.safetensors` file, here or on a hub.
        scale: weight of what it adds; norms that it replaces are replaced whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    scale: float = Field(1.0, gt=0, le=4, allow_inf_nan=False)

    @model_validator(mode="after")
    def _source_is_a_file(self) -> ControlLora:
        if not self.source.endswith(SAFETENSORS):
            raise ValueError(
                f"source must be a {SAFETENSORS} file, here or on a hub (org/name/FILE{SAFETENSORS}), got "
                f"{self.source[:200]!r}"
            )
        return self


class ModelSpec(Row):
    """A checkpoint.

    Attributes:
        source: folder in diffusers layout or repository of that layout on a hub, or a single `.safetensors` file,
            or a `.gguf` file that holds a transformer.
        config: folder or repository with the components' configurations; for a single file only, and with the
            other components for a `.gguf` file.
        text_encoders: component -> `.safetensors` file with its weights, here or on a hub, such as
            `clip_l.safetensors`; its configuration and tokenizer are those of the folder or of `config`.
        control_lora: that makes a FLUX.1 Control model of a usual FLUX.1 checkpoint.
        variant: weight variant in the folder, for example `fp16`.
        dtype: dtype on the device; `auto` is bfloat16 on CUDA and float32 on the CPU.
        defaults: overrides entries of the family's defaults.
        max_pixels: overrides the family's limit on width × height.
        refuses: fields that it ignores (`guidance_scale` for a distilled FLUX) and requests may not set.
        max_clip_skip: largest `clip_skip`; lower than the request's limit for encoders with few layers.
        guidance_layers: layers that `guidance` can name, of a checkpoint whose configuration is on this machine.
        prompt_hint: an example prompt that works well.
        only_tasks: tasks that its weights can run, where these are fewer than the family's; empty: all of them.
        pipeline: class that the checkpoint's `model_index.json` names, where it is one of the family's other
            checkpoints, such as `FluxKontextPipeline`; None: the family's usual class, or, of a checkpoint on this
            machine, what it says itself.
        scheduler_config: configuration of its own scheduler, which the others must follow; empty: not known.
        vae: id of the VAE that takes the place of its own where a request names none.
        preview_vae: id of the tiny VAE that makes its previews; None: they are approximated from the latents.
        latents: of its own VAE, of a checkpoint whose configuration is on this machine.
        class_labels: number -> label of the classes that its requests can name, of a checkpoint whose
            configuration is on this machine; None: it has no classes, or they are not known.
        quantization: how its denoiser's weights are quantized: `int8_weight_only`, `float8_weight_only` or, on a
            CUDA card, `bitsandbytes_int8` or `bitsandbytes_nf4`, which loading does; or as they are in a file on
            this machine, such as `gguf-q8_0`. None: they are not, or that is not known yet.
        text_encoder_quantization: component -> how the weights of a text encoder are quantized, by torchao.
        aliases: other names that requests may use for it, such as those of other services' models.
    """

    config: str | None = None
    text_encoders: Mapping[str, str] = Field(default_factory=dict)
    control_lora: ControlLora | None = None
    variant: Variant | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    defaults: Mapping[str, int | float | str] = Field(default_factory=dict)
    max_pixels: int | None = None
    refuses: tuple[str, ...] = ()
    max_clip_skip: int = 8
    guidance_layers: int | None = None
    prompt_hint: str = ""
    only_tasks: tuple[Task, ...] = ()
    pipeline: str | None = None
    scheduler_config: Mapping[str, object] = Field(default_factory=dict)
    vae: str | None = None
    preview_vae: str | None = None
    latents: LatentSpace | None = None
    class_labels: Mapping[int, str] | None = None
    quantization: str | None = None
    text_encoder_quantization: Mapping[str, str] = Field(default_factory=dict)
    aliases: tuple[Alias, ...] = ()

    @property
    def family_spec(self) -> Family:
        """The row of what it can do: its family's, or that of the family's other checkpoints if it is one."""
        family = FAMILIES[self.family]
        return family.of_checkpoint(self.pipeline if self.control_lora is None else family.with_control_lora)

    @property
    def checkpoint_family(self) -> Family:
        """The row of what its files are, before its Control LoRA is merged into them."""
        return FAMILIES[self.family].of_checkpoint(self.pipeline)

    @property
    def files_beside(self) -> Mapping[str, str]:
        """Key -> source of each file that it has beside its checkpoint, here or on a hub."""
        lora = self.control_lora
        return self.text_encoders if lora is None else {**self.text_encoders, _CONTROL_LORA: lora.source}

    @property
    def pixel_cap(self) -> int:
        """Maximum of width × height."""
        return self.max_pixels or self.family_spec.max_pixels

    @property
    def refused(self) -> frozenset[str]:
        """Fields that requests may not set: those that this checkpoint or its whole family ignores."""
        return frozenset({*self.refuses, *self.family_spec.refuses})

    @property
    def tasks(self) -> list[Task]:
        """Tasks that the model can run."""
        return [task for task in Task if self.can_run(task)]

    def can_run(self, task: Task) -> bool:
        """Return whether the model can run a task."""
        able = self.family_spec.modes.keys() if not self.family_spec.runs_later_only else ()
        return Mode(task.value) in able and task in (self.only_tasks or Task)

    @property
    def schedulers(self) -> list[str]:
        """Public names of the schedulers that work with the model."""
        every = [SCHEDULERS[name] for kind in self.family_spec.kinds for name in names_for(kind)]
        return [row.id for row in every if self.takes(row)]

    def takes(self, scheduler: SchedulerSpec) -> bool:
        """Whether a scheduler works with the model."""
        family = self.family_spec
        if not family.follows(scheduler):
            return False
        if not self.scheduler_config:
            return scheduler.kind == family.kind or scheduler.id == self.default("scheduler")
        return mismatch(scheduler, self.scheduler_config) is None

    def pinned(
        self,
        commit: str | None,
        config_commit: str | None = None,
        commits_beside: Mapping[str, str | None] = MappingProxyType({}),
    ) -> Self:
        """Return the row with these commits for its source, its `config` and its `files_beside`."""
        changes: dict[str, object] = {} if commit is None else {"revision": commit}
        encoders = dict(self.text_encoders)
        for name, own_commit in commits_beside.items():
            source = parse_source(self.files_beside[name])
            if source is None or own_commit is None:
                continue
            address = address_of(replace(source, revision=own_commit))
            if name == _CONTROL_LORA and self.control_lora is not None:
                changes[name] = self.control_lora.model_copy(update={"source": address})
            else:
                encoders[name] = address
                changes["text_encoders"] = encoders
        config = None if self.config is None else parse_source(self.config)
        if config is not None and config_commit is not None:
            changes["config"] = address_of(replace(config, revision=config_commit))
        return self.model_copy(update=changes)

    def default(self, field: str) -> object:
        """Return the default of a request field: the model's, else the family's, else None."""
        if field == "vae":
            return self.vae
        return self.defaults[field] if field in self.defaults else self.family_spec.defaults.get(field)

    @property
    def is_gguf(self) -> bool:
        """Whether it is a `.gguf` file, which holds a transformer; the rest comes from `config`."""
        return self.source.endswith(GGUF)

    @property
    def is_quantized(self) -> bool:
        """Whether its denoiser's weights are quantized, or may be, as those of a `.gguf` file on a hub."""
        return self.quantization is not None or self.is_gguf

    @model_validator(mode="after")
    def _quantization_is_usable(self) -> ModelSpec:
        if self.quantization is not None and self.is_gguf:
            raise ValueError("quantization is read from the file: leave it out")
        if self.quantization is not None:
            _check_quantization("quantization", self.quantization, tuple(QUANTIZATIONS))
            if self.quantization in kinds_of("bitsandbytes") and self.source.endswith(SAFETENSORS):
                raise ValueError(
                    f"quantization {self.quantization} needs a folder in diffusers' layout, not one file: "
                    f"name a folder or one of {', '.join(kinds_of('torchao'))}"
                )
        if not self.is_gguf:
            return self
        if not FAMILIES[self.family].gguf:
            able = ", ".join(id for id, family in FAMILIES.items() if family.gguf)
            raise ValueError(f"a .gguf file can be used of {able}, not of {self.family}: name another source")
        if self.config is None:
            raise ValueError("a .gguf file holds a transformer alone: name a whole checkpoint in config")
        return self

    @model_validator(mode="after")
    def _text_encoders_are_files(self) -> ModelSpec:
        able = [one.name for one in self.family_spec.text_encoders if one.kind in ("clip", "t5")]
        for name, source in self.text_encoders.items():
            if name not in able:
                known = ", ".join(able) or "none"
                raise ValueError(f"text_encoders of family {self.family} can be {known}, got {name[:40]!r}")
            if not source.endswith(SAFETENSORS):
                raise ValueError(
                    f"text_encoders: {name} must be a {SAFETENSORS} file, here or on a hub "
                    f"(org/name/FILE{SAFETENSORS}), got {source[:200]!r}"
                )
        return self

    @model_validator(mode="after")
    def _text_encoder_quantization_is_usable(self) -> ModelSpec:
        able = [one.name for one in self.family_spec.text_encoders]
        for name, kind in self.text_encoder_quantization.items():
            if name not in able:
                known = ", ".join(able)
                raise ValueError(
                    f"text_encoder_quantization of family {self.family} can name {known}, got {name[:40]!r}"
                )
            _check_quantization(f"text_encoder_quantization: {name}", kind, kinds_of("torchao"))
        return self

    @model_validator(mode="after")
    def _control_lora_is_usable(self) -> ModelSpec:
        if self.control_lora is None:
            return self
        family = FAMILIES[self.family]
        if not family.with_control_lora:
            able = ", ".join(one.id for one in FAMILIES.values() if one.with_control_lora)
            raise ValueError(f"control_lora works with {able}, not with {self.family}: leave it out")
        if self.pipeline not in (None, family.pipeline):
            raise ValueError(
                f"control_lora is for checkpoints of {family.pipeline}, and pipeline is {self.pipeline!r}: leave "
                "one of them out"
            )
        if self.is_quantized:
            raise ValueError(
                "control_lora is added to the model's own weights, which cannot be quantized then: leave "
                "quantization out, and name a folder or a .safetensors file as source"
            )
        return self

    @model_validator(mode="after")
    def _pipeline_is_known(self) -> ModelSpec:
        family = FAMILIES[self.family]
        known = [family.pipeline, *family.other_checkpoints]
        if self.pipeline is not None and self.pipeline not in known:
            raise ValueError(
                f"pipeline of family {self.family} must be one of {', '.join(known)}, got {self.pipeline!r}"
            )
        return self

    @model_validator(mode="after")
    def _defaults_are_usable(self) -> ModelSpec:
        unknown = set(self.defaults) - set(self.family_spec.defaults)
        if unknown:
            known = sorted(self.family_spec.defaults)
            raise ValueError(f"unknown defaults {sorted(unknown)}; family {self.family} has {known}")
        scheduler = SCHEDULERS.get(str(self.default("scheduler")))
        if scheduler is None or scheduler.kind not in self.family_spec.kinds:
            allowed = ", ".join(name for kind in self.family_spec.kinds for name in names_for(kind))
            raise ValueError(
                f"scheduler {self.default('scheduler')!r} does not work with {self.family}; allowed: {allowed}"
            )
        return self


def _check_quantization(name: str, kind: str, able: tuple[str, ...]) -> None:
    if kind not in able:
        raise ValueError(f"{name} must be one of {', '.join(able)}, got {kind[:40]!r}")
