"""The catalogue of all that the service offers, as frozen rows: models, adapters, ControlNets and networks.

Checks that the rows agree with each other and with `families.py`. Opens no file: `reader.py` reads the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.catalogue.rows.adapters import IpAdapterSpec, LoraSpec, TextualInversionSpec
from contracts.catalogue.rows.controlnets import ControlNetSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.rows.networks import EraserSpec, NetworkSpec, PreprocessorSpec, UpscalerSpec
from contracts.catalogue.rows.row import SOURCE_FORMS, SourceRow
from contracts.catalogue.rows.vaes import VaeSpec
from contracts.errors import CatalogueError, NotFound
from contracts.hub.source import HubSource, parse_source

__all__ = [
    "AnySpec",
    "Catalogue",
    "ControlNetSpec",
    "EraserSpec",
    "IpAdapterSpec",
    "LoraSpec",
    "ModelSpec",
    "NetworkSpec",
    "PreprocessorSpec",
    "TextualInversionSpec",
    "UpscalerSpec",
    "VaeSpec",
]


#: A row of any kind that has files.
AnySpec = ModelSpec | ControlNetSpec | VaeSpec | LoraSpec | NetworkSpec
#: What rows are, in the singular of their tables' names.
_KINDS = (
    "model",
    "lora",
    "controlnet",
    "ip_adapter",
    "textual_inversion",
    "vae",
    "upscaler",
    "eraser",
    "preprocessor",
)


class Catalogue(BaseModel):
    """All rows. Relative sources are relative to `root`, the folder of the catalogue file.

    Attributes:
        image_encoders: folders with image encoders for IP-Adapters that clients upload, beside those that
            `ip_adapters` name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    default_model: str
    models: tuple[ModelSpec, ...] = Field(min_length=1)
    loras: tuple[LoraSpec, ...] = ()
    controlnets: tuple[ControlNetSpec, ...] = ()
    ip_adapters: tuple[IpAdapterSpec, ...] = ()
    textual_inversions: tuple[TextualInversionSpec, ...] = ()
    vaes: tuple[VaeSpec, ...] = ()
    image_encoders: tuple[str, ...] = ()
    upscalers: tuple[UpscalerSpec, ...] = ()
    erasers: tuple[EraserSpec, ...] = ()
    preprocessors: tuple[PreprocessorSpec, ...] = ()

    @model_validator(mode="after")
    def _ids_are_unique_and_present(self) -> Catalogue:
        for kind in _KINDS:
            ids = [row.id for row in getattr(self, f"{kind}s")]
            repeated = sorted({id for id in ids if ids.count(id) > 1})
            if repeated:
                raise ValueError(f"{kind} ids must be unique, got {', '.join(repeated)} more than once")
        names = [name for row in self.models for name in (row.id, *row.aliases)]
        names += [row.id for row in self.networks]  # jobs name them as their model, too
        shared = sorted({name for name in names if names.count(name) > 1})
        if shared:
            raise ValueError(
                "ids of models, upscalers, erasers and preprocessors, and aliases, must differ, got "
                f"{', '.join(shared)} twice"
            )
        if self.default_model not in {row.id for row in self.models}:
            models = ", ".join(row.id for row in self.models)
            raise ValueError(f"default_model must be the id of a model ({models}), got {self.default_model!r}")
        return self

    @model_validator(mode="after")
    def _revisions_are_of_a_hub(self) -> Catalogue:
        for row in self.rows_by_need.values():
            if row.revision is not None and self._find(row.source) is not None:
                raise ValueError(
                    f"{row.id}: revision is for a source on a hub, and {row.source!r} is on this machine"
                )
        return self

    def take_over(self, newer: Catalogue) -> None:
        """Take the rows of a newer file, for all that hold this catalogue; only `catalogue_reload` calls it."""
        vars(self).update(vars(newer))

    @property
    def rows_by_need(self) -> dict[str, AnySpec]:
        """All rows by the names under which jobs need them: `ID`, `controlnet:ID`, `lora:ID`, `ip_adapter:ID`,
        `textual_inversion:ID`, `vae:ID`, `upscaler:ID`, `eraser:ID`, `preprocessor:ID`.
        """
        kinds: tuple[tuple[str, Sequence[AnySpec]], ...] = (
            ("", self.models),
            ("controlnet:", self.controlnets),
            ("lora:", self.loras),
            ("ip_adapter:", self.ip_adapters),
            ("textual_inversion:", self.textual_inversions),
            ("vae:", self.vaes),
            ("upscaler:", self.upscalers),
            ("eraser:", self.erasers),
            ("preprocessor:", self.preprocessors),
        )
        return {f"{prefix}{row.id}": row for prefix, rows in kinds for row in rows}

    def model(self, id: str) -> ModelSpec:
        """Return the row of a model by its id or one of its aliases; raises NotFound."""
        named = next((row for row in self.models if id in row.aliases), None)
        return named or _find("model", self.models, id)

    def lora(self, id: str) -> LoraSpec:
        """Return the row of a LoRA; raises NotFound."""
        return _find("lora", self.loras, id)

    def controlnet(self, id: str) -> ControlNetSpec:
        """Return the row of a ControlNet; raises NotFound."""
        return _find("controlnet", self.controlnets, id)

    def ip_adapter(self, id: str) -> IpAdapterSpec:
        """Return the row of an IP-Adapter; raises NotFound."""
        return _find("IP-Adapter", self.ip_adapters, id)

    def textual_inversion(self, id: str) -> TextualInversionSpec:
        """Return the row of a textual inversion; raises NotFound."""
        return _find("textual inversion", self.textual_inversions, id)

    def vae(self, id: str) -> VaeSpec:
        """Return the row of a VAE; raises NotFound."""
        return _find("VAE", self.vaes, id)

    @property
    def networks(self) -> tuple[NetworkSpec, ...]:
        """Rows of networks that run by themselves, of all kinds."""
        return (*self.upscalers, *self.erasers, *self.preprocessors)

    def upscaler(self, id: str) -> UpscalerSpec:
        """Return the row of an upscaler; raises NotFound."""
        return _find("upscaler", self.upscalers, id)

    def eraser(self, id: str) -> EraserSpec:
        """Return the row of an eraser; raises NotFound."""
        return _find("eraser", self.erasers, id)

    def preprocessor(self, id: str) -> PreprocessorSpec:
        """Return the row of a preprocessor that is a model; raises NotFound."""
        return _find("preprocessor", self.preprocessors, id)

    def image_encoder(self, source: str) -> Path:
        """Return the folder of an image encoder; raises CatalogueError if this machine lacks it."""
        path = self._find(source)
        if path is None or not path.is_dir():
            raise CatalogueError(
                f"{source}: the image encoder must be a folder on this machine, with config.json and "
                "model.safetensors"
            )
        return path

    def place(self, row: SourceRow) -> Path | HubSource:
        """Return where a row's files are: a file or folder on this machine where there is one, else on a hub.

        Raises:
            CatalogueError: the source is neither, or a folder on this machine lacks the LoRA's `file`.
        """
        path = self._find(row.source)
        if path is None:
            source = row.hub_source
            if source is None:
                raise CatalogueError(
                    f"{row.source} was not found on this machine and names nothing on a hub; use {SOURCE_FORMS}"
                )
            return source
        if isinstance(row, LoraSpec) and row.file is not None and path.is_dir():
            path /= row.file
            if not path.is_file():
                raise CatalogueError(f"{row.source} has no file {row.file}")
        return path

    def locate(self, source: str) -> Path | HubSource:
        """Return a source's path if that exists, else what it names on a hub; raises CatalogueError if neither."""
        place = self._find(source) or parse_source(source)
        if place is None:
            raise CatalogueError(
                f"{source} was not found on this machine and names nothing on a hub; use {SOURCE_FORMS}"
            )
        return place

    def _find(self, source: str) -> Path | None:
        path = self.root / source  # an absolute source stays as it is
        return path if path.exists() else None


_AnyRow = TypeVar("_AnyRow", bound=SourceRow)


def _find(kind: str, rows: tuple[_AnyRow, ...], id: str) -> _AnyRow:
    for row in rows:
        if row.id == id:
            return row
    raise NotFound(kind, id)
