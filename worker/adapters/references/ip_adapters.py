"""The IP-Adapters of jobs: each one's file and image encoder found, and its reference images made ready to act.

Nothing of them stays loaded: a job keeps the keys and values of its own images. Knows no queue and no storage.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import CatalogueError, DarkroomError, NotFound, first_line
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.receipt import Weights
from contracts.requests.entry_parameters import IpAdapterParameters
from contracts.weights.adapters.ip_adapter_files import read_ip_adapter
from contracts.weights.adapters.ip_adapter_models import encoders_of
from worker.adapters.files import LoraFiles
from worker.adapters.references.image_encoders import ImageEncoders
from worker.adapters.references.image_prompts import ImagePrompt, KeyValues, mask_of, read_layers
from worker.adapters.references.redux import read_tokens
from worker.checkpoints.places import NotPrepared
from worker.families.inputs import GenerationInputs
from worker.runtime.out_of_memory import is_out_of_memory

_log = logging.getLogger(__name__)


class ReferenceModel(Protocol):
    """The part of a loaded model that IP-Adapters use.

    Attributes:
        denoiser: its UNet or transformer.
    """

    denoiser: Any
    device: torch.device
    spec: Any


class IpAdapters:
    """All IP-Adapters of a worker's catalogue. Only the thread that runs the jobs may use them."""

    def __init__(self, catalogue: Catalogue, files: LoraFiles) -> None:
        """`files` knows where the catalogue's files are."""
        self._catalogue = catalogue
        self._files = files
        self._encoders = ImageEncoders(files.hasher)

    def read(self, model: ReferenceModel, inputs: GenerationInputs) -> tuple[ImagePrompt, ...]:
        """Make the reference images of a job ready to act on a model; those with scale 0 do nothing.

        Raises:
            JobFailed: ADAPTER_MISSING, ADAPTER_DAMAGED: as `LoraFiles.locate`; ADAPTER_INCOMPATIBLE: it does not
                fit the model, or its image encoder is gone.
            NotPrepared: a file must be downloaded first.
            Exception: failed allocations (`is_out_of_memory`), as they are.
        """
        return tuple(
            self._read_one(model, inputs, number, adapter)
            for number, adapter in enumerate(inputs.job.ip_adapters)
            if adapter.scale
        )

    def _read_one(
        self, model: ReferenceModel, inputs: GenerationInputs, number: int, adapter: IpAdapterParameters
    ) -> ImagePrompt:
        try:
            return self._image_prompt(model, inputs, number, adapter)
        except (JobFailed, NotPrepared):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise JobFailed(FailureCode.ADAPTER_INCOMPATIBLE, _message(adapter.name, error)) from error

    def _encoder_of(self, adapter: IpAdapterParameters) -> str:
        """The source of the image encoder that the row names, or that an upload was compared with."""
        if adapter.image_encoder is None:
            return self._catalogue.ip_adapter(adapter.name).image_encoder
        known = encoders_of(self._catalogue)
        if adapter.image_encoder not in known:
            raise CatalogueError(f"the image encoder {adapter.image_encoder} is no longer in the catalogue")
        return known[adapter.image_encoder]

    def _image_prompt(
        self, model: ReferenceModel, inputs: GenerationInputs, number: int, adapter: IpAdapterParameters
    ) -> ImagePrompt:
        path = self._files.locate(adapter, "ip_adapter")
        folder = self._catalogue.image_encoder(self._encoder_of(adapter))
        images, mask = inputs.image_prompts[number], mask_of(inputs.image_prompt_masks[number], model.device)
        encoded = self._encoders.encode(folder, images, read_ip_adapter(path).reads)
        is_guided = inputs.guidance_scale > model.spec.family_spec.guidance_off
        layers: Mapping[Any, KeyValues] = {}
        tokens: torch.Tensor | None = None
        if model.spec.family_spec.image_tokens_follow_prompt:
            tokens = read_tokens(model.denoiser, path, encoded)
        else:
            layers = read_layers(
                model.denoiser, path, encoded, is_guided=is_guided, apart=mask is not None, device=model.device
            )
        sha256 = self._files.fingerprint(path)
        weights = self._files.weights(adapter, sha256, model.spec.family_spec.id, "ip_adapter")
        return ImagePrompt(
            weights=weights.model_copy(update={"scale": adapter.scale}),
            encoder=Weights(id=folder.name, sha256=self._encoders.sha256(folder)),
            scale=adapter.scale,
            layers=layers,
            is_guided=is_guided,
            mask=mask,
            tokens=tokens,
        )


def _message(name: str, error: Exception) -> str:
    """What a client may read: texts of libraries and of the system may have paths."""
    if isinstance(error, NotFound):
        return f"IP-Adapter {name} was removed from the catalogue while the job was waiting; use another one"
    if isinstance(error, CatalogueError):
        _log.error("IP-Adapter %s: %s", name, error)
        place, _, rest = str(error).partition(": ")
        reason = rest if rest and place.startswith(("/", ".", "~")) else str(error)
    elif isinstance(error, ValueError | DarkroomError):
        reason = first_line(error)
    else:
        _log.error("IP-Adapter %s", name, exc_info=error)
        reason = f"its files are unusable ({type(error).__name__}); see the worker's log"
    return f"IP-Adapter {name} cannot be used: {reason}"
