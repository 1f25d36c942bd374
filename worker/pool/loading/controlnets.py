"""The ControlNets and T2I-Adapters beside one model: the catalogue's, and the last uploaded ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any

import diffusers
import torch

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.catalogue.families import Mode
from contracts.jobs.receipt import Weights
from contracts.requests.entry_parameters import ControlParameters, is_upload
from worker.adapters.files import LoraFiles
from worker.checkpoints.controls.controlnets import check_controlnet_fits, load_controlnet
from worker.checkpoints.controls.t2i_adapters import check_t2i_fits, load_t2i_adapter, load_t2i_file
from worker.checkpoints.sliced import loaders_sliced
from worker.families import DiffusersFamily, Unions
from worker.pool.pipelines import View
from worker.runtime import slices

#: Uploaded ones that stay in memory beside those in use.
_KEPT_UPLOADS = 2


class LoadedControlNets:
    """The ControlNets beside one model, by `ControlParameters.component`.

    Changed by the jobs' thread alone; any thread may read it.
    """

    def __init__(
        self,
        family: DiffusersFamily,
        denoiser: Any,
        catalogue: Catalogue,
        files: LoraFiles,
        lock: RLock,
    ) -> None:
        """`lock` is held while one is loaded."""
        self._family, self._denoiser, self._catalogue = family, denoiser, catalogue
        self._files, self._lock = files, lock
        #: The last used last. Copied with each change: the heartbeat's thread may be reading it.
        self._loaded: dict[str, tuple[Any, Weights]] = {}

    @property
    def names(self) -> list[str]:
        """Those that are loaded."""
        return list(self._loaded)

    def load(
        self, control: ControlParameters, path: Path, dtype: torch.dtype, add: Callable[[str, Any], None]
    ) -> None:
        """Load one into host memory; nothing where it is loaded already.

        Args:
            add: told the component and the module.

        Raises:
            CatalogueError: it cannot be used with this model.
            Exception: whatever the libraries raise for damaged files.
        """
        name = control.component
        if name in self._loaded:
            self._loaded = {**self._without(name), name: self._loaded[name]}
            return
        row = None if is_upload(name) else self._catalogue.controlnet(name)
        module = self._read(control, row, path, dtype)
        sha256 = self._files.hasher.hash(path)
        weights = self._files.weights(control, sha256, self._family.id, "controlnet")
        self._loaded = {**self._loaded, name: (module, weights)}
        add(name, module)

    def _read(self, control: ControlParameters, row: ControlNetSpec | None, path: Path, dtype: torch.dtype) -> Any:
        """Load one from its files; `row` is that of the catalogue, None for an uploaded one."""
        with slices.holding(self._lock), loaders_sliced():
            if control.is_t2i_adapter or (row is not None and row.is_t2i_adapter):
                module = load_t2i_file(path, dtype) if row is None else load_t2i_adapter(path, dtype)
                check_t2i_fits(module, self._denoiser)
                return module
            module = load_controlnet(
                self._family, path, dtype, self._denoiser, 0 if row is None else len(row.modes)
            )
        check_controlnet_fits(module, self._denoiser)
        self._family.complete_controlnet(module, self._denoiser)
        return module

    def drop_uploaded(self, in_use: Iterable[ControlParameters]) -> list[str]:
        """Drop uploaded ones, but for those in use and the last ones used; returns which."""
        used = {control.component for control in in_use}
        idle = [name for name in self._loaded if name not in used and is_upload(name)]
        for name in idle[:-_KEPT_UPLOADS]:
            self._loaded = self._without(name)
        return idle[:-_KEPT_UPLOADS]

    def has(self, module: torch.nn.Module) -> bool:
        """Whether this is one of them."""
        return any(module is net for net, _ in self._loaded.values())

    def is_t2i_adapter(self, name: str) -> bool:
        """Whether a loaded one is a T2I-Adapter."""
        return isinstance(self.module(name), diffusers.T2IAdapter)

    def module(self, name: str) -> Any:
        """A loaded one."""
        return self._loaded[name][0]

    def pipelines(self, names: Sequence[str]) -> Mapping[Mode, str]:
        """Mode -> pipeline class of a job with these ControlNets."""
        unions = self._unions(names)
        return self._family.pipelines if unions is None else unions.pipelines

    def combined(self, names: Sequence[str], view: View) -> Any:
        """One or several ControlNets as the component `controlnet` of a pipeline.

        Args:
            names: as the controls of a job have them; several kinds of one union are one call of it, and several
                unions a list, which their pipelines combine themselves.
            view: returns what takes a module's place: (module, names of the entries that are called).
        """
        unions = self._unions(names)
        chosen = names if unions is None else list(dict.fromkeys(names))
        nets = [view(self.module(name), ("__call__",)) for name in chosen]
        if len(nets) == 1:
            return nets[0]
        return nets if unions is not None else getattr(diffusers, self._family.multi_controlnet)(nets)

    def _unions(self, names: Sequence[str]) -> Unions | None:
        """How to run these, where they are unions with pipelines of their own."""
        unions = self._family.unions
        if unions is None or not names:
            return None
        return unions if isinstance(self.module(names[0]), getattr(diffusers, unions.controlnet)) else None

    def weights(self, name: str, scale: float) -> Weights:
        """The same, for receipts."""
        return self._loaded[name][1].model_copy(update={"scale": scale})

    def _without(self, name: str) -> dict[str, tuple[Any, Weights]]:
        return {other: net for other, net in self._loaded.items() if other != name}
