"""What the web UI's lists say of this service: samplers, models, LoRAs, textual inversions, ControlNets.

A list of something that this service lacks is empty. Reads the catalogue, and headers of its files.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from app.dialects.a1111.hires import LANCZOS_NAME, NONE_NAME
from app.dialects.a1111.samplers import AUTOMATIC, SAMPLERS, SCHEDULE_TYPES, names_for
from contracts.catalogue.catalogue import Catalogue
from contracts.uploads.adapters import UploadedInversion
from contracts.weights.adapters.inversion_models import find_inversion_facts

NO_MODULE = "none"


class A1111Sampler(BaseModel):
    """A sampler."""

    name: str = Field(description="Value of `sampler_name`.")
    aliases: list[str] = Field(description="Further names, among them those of `/v1/schedulers`.")
    options: dict[str, str] = Field(description="Always empty.")


class A1111ScheduleType(BaseModel):
    """A schedule type."""

    name: str = Field(description="Value of `scheduler`.")
    label: str = Field(description="Name for people, also a value.")
    aliases: list[str] | None = Field(None, description="Always null.")
    default_rho: float = Field(-1.0, description="Always -1.")
    need_inner_model: bool = Field(False, description="Always false.")


class A1111Model(BaseModel):
    """A model."""

    title: str = Field(description="Value of `sd_model_checkpoint`: the id in `/v1/models`.")
    model_name: str = Field(description="The same.")
    hash: str | None = Field(None, description="Always null: the receipt of a job has the hash.")
    sha256: str | None = Field(None, description="Always null, as `hash`.")
    filename: str = Field(description="The id again: file locations are not disclosed.")
    config: str | None = Field(None, description="Always null.")


class A1111Lora(BaseModel):
    """A LoRA."""

    name: str = Field(description="Name in `<lora:NAME:SCALE>`: the id in `/v1/loras`.")
    alias: str = Field(description="Name for people.")
    path: str = Field(description="The id again: file locations are not disclosed.")
    metadata: dict[str, Any] = Field(description="`ss_base_model_version`: the family; `trigger`: its words.")


class A1111Hypernetwork(BaseModel):
    """A hypernetwork."""

    name: str = Field(description="Name in `<lora:NAME:SCALE>`: the id in `/v1/loras`.")
    path: str = Field(description="The id again: file locations are not disclosed.")


class A1111Upscaler(BaseModel):
    """An upscaler."""

    name: str = Field(description="Value of `hr_upscaler`: `None`, `Lanczos`, or an id from `/v1/upscalers`.")
    model_name: str | None = Field(None, description="The id again; null for those without a network.")
    model_path: str | None = Field(None, description="Always null: file locations are not disclosed.")
    model_url: str | None = Field(None, description="Always null, as `model_path`.")
    scale: float = Field(4.0, description="How many times as wide and high its images are by themselves.")


class A1111Named(BaseModel):
    """Something with a name."""

    name: str = Field(description="Its name.")


class A1111Scripts(BaseModel):
    """Scripts of both calls."""

    txt2img: list[str] = Field(description="Scripts of `/sdapi/v1/txt2img`.")
    img2img: list[str] = Field(description="Scripts of `/sdapi/v1/img2img`.")


class A1111Embedding(BaseModel):
    """A textual inversion."""

    step: int | None = Field(None, description="Always null: not known.")
    sd_checkpoint: str | None = Field(None, description="Always null, as `step`.")
    sd_checkpoint_name: str | None = Field(None, description="Always null, as `step`.")
    shape: int | None = Field(description="Width of its vectors; null where its file is not on this machine.")
    vectors: int | None = Field(description="Tokens that its word takes; null as `shape`.")


class A1111Embeddings(BaseModel):
    """Textual inversions, by the word that stands for each in a prompt."""

    loaded: dict[str, A1111Embedding] = Field(description="Those that work with the default model.")
    skipped: dict[str, A1111Embedding] = Field(description="Those for other models.")


class A1111Memory(BaseModel):
    """Memory; workers report it themselves."""

    ram: dict[str, str] = Field(description="`error`: where to find it instead.")
    cuda: dict[str, str] = Field(description="The same.")


class A1111Flags(BaseModel):
    """Flags of the command line that clients look at."""

    api: bool = Field(True, description="Always true.")
    nowebui: bool = Field(True, description="Always true: the web UI itself is not part of this service.")
    api_auth: str | None = Field(None, description="Always null: keys are secret.")


class A1111ControlNetVersion(BaseModel):
    """The version of the ControlNet extension's API."""

    version: int = Field(description="Always 2.")


class A1111ControlNetModels(BaseModel):
    """The ControlNets."""

    model_list: list[str] = Field(description="Values of a unit's `model`: the ids in `/v1/controlnets`.")


class A1111ControlNetModules(BaseModel):
    """The preprocessors."""

    module_list: list[str] = Field(description="Values of a unit's `module`.")
    module_detail: dict[str, Any] = Field(description="Preprocessor -> its sliders: the resolution, and its own.")


class A1111Detection(BaseModel):
    """Control images made by a preprocessor."""

    images: list[str] = Field(description="The images in base64.")
    info: str = Field(description="Always `Success`.")


def list_samplers(catalogue: Catalogue) -> list[A1111Sampler]:
    """Those that any model can use."""
    usable = {name for model in catalogue.models for name in names_for(model)}
    return [
        A1111Sampler(
            name=sampler.name,
            aliases=[*sampler.aliases, *sampler.schedulers[AUTOMATIC][:1]],
            options={},
        )
        for sampler in SAMPLERS
        if sampler.name in usable
    ]


def list_schedule_types() -> list[A1111ScheduleType]:
    """All of them."""
    return [A1111ScheduleType(name=name, label=label) for name, label in SCHEDULE_TYPES.items()]


def list_models(catalogue: Catalogue) -> list[A1111Model]:
    """The models; the default one first, as the web UI has the loaded one."""
    rows = sorted(catalogue.models, key=lambda row: row.id != catalogue.default_model)
    return [A1111Model(title=row.id, model_name=row.id, filename=row.id) for row in rows]


def list_embeddings(catalogue: Catalogue) -> A1111Embeddings:
    """The textual inversions that the caller may use."""
    lists: tuple[dict[str, A1111Embedding], dict[str, A1111Embedding]] = ({}, {})
    model = catalogue.model(catalogue.default_model)
    for row in catalogue.textual_inversions:
        facts = row.facts if isinstance(row, UploadedInversion) else find_inversion_facts(catalogue, row)
        one = A1111Embedding(shape=None, vectors=None)
        if facts is not None:
            one = A1111Embedding(shape=sum(facts.widths.values()), vectors=facts.vectors)
        for word in row.words:
            lists[0 if row.suits(model) else 1].setdefault(word, one)
    return A1111Embeddings(loaded=lists[0], skipped=lists[1])


def list_loras(catalogue: Catalogue) -> list[A1111Lora]:
    """The LoRAs that the caller may use."""
    return [
        A1111Lora(
            name=row.id,
            alias=row.title or row.id,
            path=row.id,
            metadata={"ss_base_model_version": row.family, "trigger": row.trigger},
        )
        for row in catalogue.loras
    ]


def list_scripts(catalogue: Catalogue) -> A1111Scripts:
    """ControlNet, where there is one; `webuiapi` knows it by the name of a script that comes with it."""
    names = ["controlnet", "controlnet m2m"] if catalogue.controlnets else []
    return A1111Scripts(txt2img=names, img2img=names)


def list_upscalers(catalogue: Catalogue) -> list[A1111Upscaler]:
    """Return what can enlarge images: by scaling, and by networks."""
    networks = [A1111Upscaler(name=row.id, model_name=row.id, scale=row.scale) for row in catalogue.upscalers]
    return [A1111Upscaler(name=NONE_NAME), A1111Upscaler(name=LANCZOS_NAME), *networks]
