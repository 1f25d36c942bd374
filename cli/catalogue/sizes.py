"""Sizes for `darkroom plan`: of files on this machine, in the hub's cache or on the hub, else as published."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.hub.errors import HubError
from contracts.memory.sizes.component import Component, ModelComponents
from contracts.memory.sizes.extras import size_adapter, size_controlnet
from contracts.memory.sizes.models import read_components
from contracts.memory.sizes.on_hub import read_hub_components, size_hub_extra

_Found = TypeVar("_Found", ModelComponents, Component)


class Sizes:
    """Sizes of a catalogue's rows. Each method raises CatalogueError where nothing tells the size.

    Attributes:
        reasons: why a hub told no size, where another source had to do.
    """

    def __init__(self, catalogue: Catalogue, value_bytes: int) -> None:
        """`value_bytes`: of one value in the dtype that is computed in."""
        self._catalogue = catalogue
        self._value_bytes = value_bytes
        self.reasons: list[str] = []

    def model(self, model: ModelSpec, *, may_ask: bool) -> ModelComponents:
        """The components of a model; the hub is asked only if `may_ask`."""
        here = read_components(self._catalogue, model, self._value_bytes)
        if here is not None and (here.origin == "files" or not may_ask):
            return here
        return self._of_hub(model.id, lambda: read_hub_components(self._catalogue, model, self._value_bytes), here)

    def lora(self, id: str) -> Component:
        """A LoRA of the catalogue."""
        row = self._catalogue.lora(id)
        here = size_adapter(self._catalogue, id, self._value_bytes)
        return here or self._of_hub(id, lambda: size_hub_extra(self._catalogue, row, self._value_bytes), None)

    def controlnet(self, id: str) -> Component:
        """A ControlNet of the catalogue."""
        row = self._catalogue.controlnet(id)
        here = size_controlnet(self._catalogue, id, self._value_bytes)
        if here is not None and here.origin == "files":
            return here
        return self._of_hub(id, lambda: size_hub_extra(self._catalogue, row, self._value_bytes), here)

    def _of_hub(self, id: str, ask: Callable[[], _Found | None], otherwise: _Found | None) -> _Found:
        try:
            found = ask() or otherwise
        except HubError as error:
            found = otherwise
            self.reasons.append(f"the size of {id} is not known from the hub: {error}")
        if found is None:
            raise CatalogueError(self.reasons[-1] if self.reasons else f"the size of {id} is not known")
        return found
