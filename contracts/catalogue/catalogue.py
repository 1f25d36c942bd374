"""The catalogue: which models, LoRAs and ControlNets this service offers, as frozen rows read from a TOML file.

It checks that the rows agree with each other and with `families.py`; it opens no checkpoint.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contracts.catalogue.families import FAMILIES, Family, Mode, Task
from contracts.catalogue.schedulers import SCHEDULERS, names_for
from contracts.errors import CatalogueError, NotFound

#: Ids travel in Redis keys and URLs, so they are plain.
Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Id
    family: str
    source: str
    title: str = ""

    @model_validator(mode="after")
    def _family_is_known(self) -> _Row:
        if self.family not in FAMILIES:
            raise ValueError(f"family {self.family!r} is unknown; there are {', '.join(FAMILIES)}")
        return self


class ModelSpec(_Row):
    """One checkpoint.

    Attributes:
        source: hub id (`org/name`), folder in diffusers layout, or one `.safetensors` file.
        config: folder or hub id with the components' configurations; only for a single file.
        variant: weight variant in the folder, such as `fp16`.
        dtype: dtype on the device; `auto` is bfloat16 on CUDA and float32 on the CPU.
        defaults: replaces entries of the family's defaults.
        max_pixels: replaces the family's bound, width × height.
        refuses: fields that this checkpoint would ignore (`guidance_scale` for a distilled FLUX).
        max_clip_skip: the most that `clip_skip` may be; less than the request's bound for small encoders.
        prompt_hint: an example that this model answers well.
    """

    config: str | None = None
    variant: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    defaults: Mapping[str, int | float | str] = Field(default_factory=dict)
    max_pixels: int | None = None
    refuses: tuple[str, ...] = ()
    max_clip_skip: int = 8
    prompt_hint: str = ""

    @property
    def family_spec(self) -> Family:
        """The family's row."""
        return FAMILIES[self.family]

    @property
    def pixel_cap(self) -> int:
        """Width × height at the most."""
        return self.max_pixels or self.family_spec.max_pixels

    @property
    def tasks(self) -> list[Task]:
        """The tasks that this model can run."""
        return [task for task in Task if Mode(task.value) in self.family_spec.modes]

    @property
    def schedulers(self) -> list[str]:
        """Public names of the schedulers that can drive it."""
        return names_for(self.family_spec.kind)

    def default(self, field: str) -> object:
        """Value of a field that the client left out; None where neither model nor family has one."""
        return self.defaults.get(field, self.family_spec.defaults.get(field))

    @model_validator(mode="after")
    def _defaults_are_usable(self) -> ModelSpec:
        unknown = set(self.defaults) - set(self.family_spec.defaults)
        if unknown:
            raise ValueError(f"defaults {sorted(unknown)} are no defaults of family {self.family}")
        scheduler = SCHEDULERS.get(str(self.default("scheduler")))
        if scheduler is None or scheduler.kind != self.family_spec.kind:
            raise ValueError(f"scheduler {self.default('scheduler')!r} cannot drive {self.family}")
        return self


class LoraSpec(_Row):
    """One adapter: a `.safetensors` file for models of one family.

    Attributes:
        trigger: the words that call its effect, shown to people.
        models: those whose layers it fits; none named: all of its family.
    """

    trigger: str = ""
    models: tuple[str, ...] = ()

    def suits(self, model: ModelSpec) -> bool:
        """Whether it is made for this model."""
        return self.family == model.family and (not self.models or model.id in self.models)


class ControlNetSpec(_Row):
    """One ControlNet.

    Attributes:
        kind: `hint` takes a control image; `inpaint` takes the job's own image and mask.
        preprocessors: names in the preprocessor list that make its control image out of a picture.
    """

    kind: Literal["hint", "inpaint"] = "hint"
    preprocessors: tuple[str, ...] = ()


class Catalogue(BaseModel):
    """All rows. Relative sources are relative to `root`, the catalogue file's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    default_model: str
    models: tuple[ModelSpec, ...] = Field(min_length=1)
    loras: tuple[LoraSpec, ...] = ()
    controlnets: tuple[ControlNetSpec, ...] = ()

    @model_validator(mode="after")
    def _ids_are_unique_and_present(self) -> Catalogue:
        for kind, rows in (("model", self.models), ("lora", self.loras), ("controlnet", self.controlnets)):
            ids = [row.id for row in rows]
            twice = sorted({id for id in ids if ids.count(id) > 1})
            if twice:
                raise ValueError(f"{kind} ids {twice} stand twice")
        if self.default_model not in {row.id for row in self.models}:
            raise ValueError(f"default_model {self.default_model!r} is none of the models")
        return self

    def model(self, id: str) -> ModelSpec:
        """The model's row; raises NotFound."""
        return _find("model", self.models, id)

    def lora(self, id: str) -> LoraSpec:
        """The adapter's row; raises NotFound."""
        return _find("lora", self.loras, id)

    def controlnet(self, id: str) -> ControlNetSpec:
        """The ControlNet's row; raises NotFound."""
        return _find("controlnet", self.controlnets, id)

    def locate(self, source: str) -> Path | str:
        """Where a source is: a path where such a file or folder exists, else the hub id as written.

        Raises:
            CatalogueError: the source can only be a path, and nothing is there.
        """
        path = Path(source) if Path(source).is_absolute() else self.root / source
        if path.exists():
            return path
        if source.endswith(".safetensors") or source.startswith((".", "/")) or source.count("/") != 1:
            raise CatalogueError(f"{source}: no such file or folder below {self.root}, and no hub id")
        return source


_AnyRow = TypeVar("_AnyRow", ModelSpec, LoraSpec, ControlNetSpec)


def _find(kind: str, rows: tuple[_AnyRow, ...], id: str) -> _AnyRow:
    for row in rows:
        if row.id == id:
            return row
    raise NotFound(kind, id)


def read_catalogue(path: Path) -> Catalogue:
    """Read and check a catalogue file.

    Raises:
        CatalogueError: the file is missing, is no TOML, or its rows do not hold together.
    """
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))
        return Catalogue(root=path.resolve().parent, **rows)
    except FileNotFoundError:
        raise CatalogueError(f"{path}: there is no such catalogue file") from None
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise CatalogueError(f"{path}: {error}") from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise CatalogueError(f"{path}: " + "; ".join(lines)) from None
