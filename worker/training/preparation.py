"""From a loaded model and images to a training that can begin: examples, and what is to learn. Knows no queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image

from contracts.errors import NotFound
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.receipt import Weights
from contracts.memory.plan import Plan
from contracts.memory.training import missing_role
from contracts.requests.training.parameters import TrainingImage, TrainingParameters
from contracts.storage import Storage
from worker.adapters.cache import AdapterSet
from worker.adapters.inversions import LoadedInversion
from worker.families.inputs import GenerationInputs
from worker.generation.inputs import decode_whole
from worker.pool.model import LoadedModel
from worker.sampling.previews import encode_distribution
from worker.training.examples import Embeddings, Example, Examples, Pixels, make_examples, read_pixels
from worker.training.objectives import OBJECTIVES
from worker.training.run import TrainingRun
from worker.training.trainees.adapter import LoraAdapter
from worker.training.trainees.controlnet import CONTROLNETS
from worker.training.trainees.inversion import InversionVectors, first_vectors
from worker.training.trainees.trainee import Trainee

#: `Pixels.hint` -> `Example.control`.
ReadControl = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Preparation:
    """The preparation of one owner's training on a model that is on the device."""

    model: LoadedModel
    training: TrainingParameters
    owner: str

    def read_examples(
        self, storage: Storage, prior: Sequence[Image.Image], read_control: ReadControl | None = None
    ) -> Examples:
        """Read the images, and encode them and their captions.

        Args:
            prior: images of the class.
            read_control: of a control image; None: as the kind in the settings has it.

        Raises:
            JobFailed: an image is no longer stored.
            Unavailable: the storage does not answer.
        """
        training = self.training
        subject = ((self._read(storage, one), one.caption) for one in training.images)
        keeps = ((self._pixels(image), training.class_prompt or "") for image in prior)
        return Examples(self._encode(subject, read_control), self._encode(keeps))

    def begin(self, examples: Examples, trainee: Trainee | None = None) -> TrainingRun:
        """Begin a training on examples.

        Args:
            trainee: what is to learn; None: what the settings name.

        Raises:
            JobFailed: a textual inversion cannot begin with the text that was given.
        """
        model, training = self.model, self.training
        objective = OBJECTIVES[model.spec.family](model.base.scheduler.config, training.settings.snr_gamma)
        fingerprint = training.fingerprint(model.weights.sha256)
        model.adapters.rest()
        with torch.inference_mode(mode=False), torch.no_grad():
            return TrainingRun(
                model.denoiser,
                trainee or self._trainee(examples),
                objective,
                examples,
                training.settings,
                fingerprint,
            )

    def _trainee(self, examples: Examples) -> Trainee:
        model, settings = self.model, self.training.settings
        if settings.kind == "lora":
            names = sorted(model.spec.family_spec.lora_text_encoders) if settings.train_text_encoder else ()
            texts = {name: getattr(model.base, name) for name in names}
            return LoraAdapter(model.denoiser, model.family.denoiser, settings, texts, self._encode_caption)
        if settings.kind == "controlnet":
            family, vae = model.spec.family, model.base.vae
            return CONTROLNETS[family].begin(family, model.denoiser, vae, examples.subject, settings.seed)
        encoders, start = {}, {}
        for name, part in model.spec.family_spec.inversion_encoders.items():
            encoder = getattr(model.base, name)
            tokenizer = getattr(model.base, name.replace("text_encoder", "tokenizer"))
            encoders[name] = (part, encoder)
            start[name] = first_vectors(encoder, tokenizer, settings.initial_text, settings.vectors or 1)
        return InversionVectors(model.denoiser, encoders, self.training.name, start, self._encode_with)

    def _encode_caption(self, caption: str) -> Embeddings:
        """Encode a caption as the text encoders are now."""
        encoder = self.model.encoder(AdapterSet(), self.owner)
        return encoder.encode_uncached(GenerationInputs(self.training.caption_parameters(caption)))

    def _encode_with(self, vectors: Mapping[str, torch.Tensor], caption: str) -> Embeddings:
        """Encode a caption with vectors in the place of the training's word."""
        weights = Weights(id=self.training.name, sha256="")
        inversion = LoadedInversion(weights, (self.training.name,), vectors)
        encoder = self.model.encoder(AdapterSet(inversions=(inversion,)), self.owner)
        return encoder.encode_uncached(GenerationInputs(self.training.caption_parameters(caption)))

    def _read(self, storage: Storage, one: TrainingImage) -> Pixels:
        control = one.conditioning_image
        return self._pixels(_read(storage, one.image), None if control is None else _read(storage, control))

    def _pixels(self, image: Image.Image, control: Image.Image | None = None) -> Pixels:
        return read_pixels(image, self.training.settings.resolution, control)

    def _encode(
        self, images: Iterable[tuple[Pixels, str]], read_control: ReadControl | None = None
    ) -> list[Example]:
        encoder = self.model.encoder(AdapterSet(), self.owner)

        def encode_text(caption: str) -> Embeddings:
            if self.training.settings.encodes_each_step:
                return {}
            found = encoder.encode(GenerationInputs(self.training.caption_parameters(caption)))
            return {name: _one_row(value) for name, value in found.items() if not name.startswith("negative_")}

        vae = self.model.base.vae
        if read_control is None and self.training.settings.kind == "controlnet":
            read_control = partial(CONTROLNETS[self.model.spec.family].read_control, vae)
        with torch.inference_mode(mode=False), torch.no_grad():
            return make_examples(images, partial(encode_distribution, vae), encode_text, read_control)


def _one_row(value: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
    """An argument of a pipeline for one image as a tensor (1, …); some families have a list of images there."""
    return torch.stack(value) if isinstance(value, list) else value


def require_room(plan: Plan, training: TrainingParameters) -> None:
    """Raise JobFailed where a plan does not have all on the device that gradients pass through."""
    missing = missing_role(plan, training)
    if missing is not None:
        message = (
            f"the worker's memory has no room for the whole {missing.value.replace('_', ' ')}, which training "
            "needs; use a smaller model, or a worker with more memory"
        )
        raise JobFailed(FailureCode.OUT_OF_MEMORY, message)


def _read(storage: Storage, key: str) -> Image.Image:
    try:
        return decode_whole(storage.read(key))
    except NotFound as error:
        message = "a training image is no longer stored; send the training again"
        raise JobFailed(FailureCode.INPUT_MISSING, message) from error
