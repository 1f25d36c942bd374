"""One training: its steps, its checkpoints, its result. Knows no queue, no storage and no pipelines."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from safetensors import SafetensorError
from safetensors.torch import load

from contracts.requests.training.settings import TrainingSettings
from worker.training.examples import Example, Examples, pick, step_generator
from worker.training.files import to_safetensors
from worker.training.objectives import Objective
from worker.training.optimizers import OPTIMIZERS
from worker.training.trainees.trainee import Trainee

_MAX_GRADIENT_NORM = 1.0
_LENGTH_BYTES = 8


class CheckpointUnusable(Exception):
    """A checkpoint that is damaged, or belongs to another training."""


class TrainingRun:
    """Something in training, whatever it is.

    Attributes:
        step: steps that are done.
    """

    def __init__(
        self,
        denoiser: Any,
        trainee: Trainee,
        objective: Objective,
        examples: Examples,
        settings: TrainingSettings,
        fingerprint: str = "",
    ) -> None:
        """Begin; between steps the denoiser is unchanged.

        Args:
            fingerprint: of everything that the training depends on; checkpoints of others are refused.
        """
        self.step = 0
        self._denoiser, self._objective, self._examples = denoiser, objective, examples
        self._settings, self._fingerprint = settings, fingerprint
        self._trainee = trainee
        self._parameters = list(self._trainee.parameters.values())
        self._optimizer = OPTIMIZERS[settings.optimizer](trainee.parameters, settings.learning_rate)
        schedule: Any = get_scheduler(
            "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
            self._optimizer.torch,
            num_warmup_steps=settings.warmup_steps,
            num_training_steps=settings.steps,
        )
        #: Step -> share of the learning rate.
        self._share_of_rate = schedule.lr_lambdas[0]

    @property
    def is_done(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self._settings.steps

    @property
    def state_bytes(self) -> int:
        """Device memory between two steps: weights, and the optimizer's averages of each."""
        return sum(parameter.nbytes for parameter in self._parameters) + self._optimizer.state_bytes

    def learn(self) -> float:
        """Make one step; returns its loss, without the class images' part.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        settings, step = self._settings, self.step
        generator = step_generator(settings.seed, step)
        subject = self._pick(self._examples.subject, "subject")
        prior = self._pick(self._examples.prior, "prior") if self._examples.prior else []
        with torch.inference_mode(mode=False), torch.enable_grad(), self._trainee.in_place(), self._exactly():
            self._optimizer.torch.zero_grad(set_to_none=True)
            loss = self._learn_from(subject, generator, 1.0)
            if prior and settings.prior_loss_weight:
                self._learn_from(prior, generator, settings.prior_loss_weight)
            norm = torch.nn.utils.clip_grad_norm_(self._parameters, _MAX_GRADIENT_NORM)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"the loss is not finite at step {step + 1}; try a lower learning rate")
            self._optimizer.step(settings.learning_rate * self._share_of_rate(step))
        self.step += 1
        return loss

    def checkpoint(self, notes: str = "") -> bytes:
        """Everything that the remaining steps depend on, as a safetensors file; with notes for who restores it."""
        return to_safetensors(
            self._tensors, {"step": str(self.step), "fingerprint": self._fingerprint, "notes": notes}
        )

    def restore(self, data: bytes) -> str:
        """Go on from a checkpoint, bit for bit as the training that wrote it; returns its notes.

        Raises:
            CheckpointUnusable: nothing has changed.
        """
        with torch.inference_mode(mode=False), torch.no_grad():
            step, notes, found = self._read(data)
            if step:
                self._optimizer.begin(step)
            for name, own in self._tensors.items():
                if name not in found or (found[name].shape, found[name].dtype) != (own.shape, own.dtype):
                    self._optimizer.forget()
                    raise CheckpointUnusable(f"the checkpoint has no {name}")
            for name, own in self._tensors.items():
                own.copy_(found[name])
        self.step = step
        return notes

    def result(self, facts: Mapping[str, str]) -> bytes:
        """The trained values in their present state; arguments and errors as `Trainee.file`."""
        return self._trainee.file(facts)

    @property
    def _tensors(self) -> dict[str, torch.Tensor]:
        """Everything that a checkpoint has, `KIND:NAME`."""
        weights = {f"weight:{name}": parameter for name, parameter in self._trainee.parameters.items()}
        return {**weights, **self._optimizer.state}

    def _pick(self, examples: Sequence[Example], kind: str) -> list[Example]:
        settings = self._settings
        indexes = pick(len(examples), settings.batch_size, self.step, settings.seed, kind)
        return [examples[index] for index in indexes]

    def _learn_from(self, rows: Sequence[Example], generator: torch.Generator, weight: float) -> float:
        """Add gradients; images of one size are one call. Returns the mean loss."""
        total = 0.0
        with self._autocast():
            rows = self._trainee.read(rows)
        for group in _by_size(rows):
            noised = self._objective.add_noise(torch.cat([row.draw(generator) for row in group]), generator)
            device, dtype = self._parameters[0].device, self._denoiser.dtype
            on_device = type(noised)(
                noised.latents.to(device, dtype),
                noised.target.to(device),
                noised.timesteps.to(device),
                noised.weights.to(device),
            )
            with self._autocast():
                denoiser = self._trainee.steered(self._denoiser, group)
                answer = self._objective.predict(denoiser, on_device, group)
            errors = (answer.float() - on_device.target).square().flatten(1).mean(1)
            loss = (errors * on_device.weights).sum() / len(rows)
            (loss * weight).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _autocast(self) -> AbstractContextManager[Any]:
        """Half-precision weights compute in bfloat16, whose range needs no scaling of the loss."""
        if self._denoiser.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._parameters[0].device.type, torch.bfloat16)

    @contextmanager
    def _exactly(self) -> Iterator[None]:
        """Inside, a CUDA device adds in the same order each time; a CPU always does."""
        if self._parameters[0].device.type != "cuda":
            yield
            return
        before, warned = (
            torch.are_deterministic_algorithms_enabled(),
            (torch.is_deterministic_algorithms_warn_only_enabled()),
        )
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warned)

    def _read(self, data: bytes) -> tuple[int, str, dict[str, torch.Tensor]]:
        try:
            tensors = load(data)
            length = int.from_bytes(data[:_LENGTH_BYTES], "little")
            metadata = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])["__metadata__"]
            step, fingerprint, notes = int(metadata["step"]), metadata["fingerprint"], metadata["notes"]
        except (SafetensorError, ValueError, KeyError) as error:
            raise CheckpointUnusable(f"the checkpoint is damaged: {type(error).__name__}") from None
        if fingerprint != self._fingerprint:
            raise CheckpointUnusable("the checkpoint is of another training")
        return step, notes, tensors


def _by_size(rows: Sequence[Example]) -> list[list[Example]]:
    """Rows whose tensors can be joined, in the order of their first ones."""
    groups: dict[object, list[Example]] = defaultdict(list)
    for row in rows:
        shapes = tuple((name, tuple(tensor.shape)) for name, tensor in sorted(row.embeddings.items()))
        groups[row.size, shapes].append(row)
    return list(groups.values())
