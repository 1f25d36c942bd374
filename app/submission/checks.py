"""Everything about a request that can be known before its job is queued. Stores and queues nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from app.auth import Principal
from app.inputs.image import GivenImage, Inputs
from app.inputs.reader import InputReader
from app.limits.admission import Admission, too_long
from app.parsing.requests import Reading
from app.services import Services
from app.submission.step_checks import with_step_check
from contracts import logs
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import DestinationRefused, DestinationUnknown, FieldProblem, InvalidRequest
from contracts.jobs.records import WebhookRecord
from contracts.outbound.outbox import resolve_webhook
from contracts.provenance.kept_latents import require_room
from contracts.requests.any_parameters import AnyParameters
from contracts.requests.checks.control_maps import with_map_options
from contracts.requests.checks.second_models import with_second_model
from contracts.requests.checks.t2i_adapters import require_t2i_size
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.fields import ImageFields
from contracts.requests.parameters import JobParameters
from contracts.requests.prompts.counts import PromptCounts
from contracts.requests.prompts.inversions import names_any, with_inversions
from contracts.requests.prompts.reading import read_prompts
from contracts.requests.schema import DeliveryFields, JobRequest, Priority
from contracts.requests.task_parameters import JobTask, TaskParameters
from contracts.uploads.adapters import CONTROLNETS, INVERSIONS, IP_ADAPTERS, LORAS, UploadKind, resolve_uploads
from contracts.views.links import Links

AnyRequest = TypeVar("AnyRequest", bound=DeliveryFields)

#: How old a measured pace may be that a job's time is predicted by: paces change slowly.
_PACE_SECONDS = 1.0


@dataclass(frozen=True)
class JobDraft:
    """A request for a diffusion model as it was read.

    Attributes:
        images: those given with it instead of named in it, by field path; None where something is wrong with the
            reading and it does not have the request's images.
        prediction_version: as `WebhookRecord` says.
    """

    reading: Reading[JobRequest]
    images: Mapping[str, GivenImage] | None = field(default_factory=dict)
    prediction_version: str | None = None

    def check(self, checks: RequestChecks) -> CheckedJob:
        """As `RequestChecks.check`."""
        return checks.check(self)


class Draft(Protocol):
    """A request of any task, as it was read."""

    @property
    def reading(self) -> Reading[Any]:
        """Of a kind of `DeliveryFields`."""

    def check(self, checks: RequestChecks) -> Checked:
        """Check everything that can be known before the job is queued. Stores nothing.

        Raises:
            InvalidRequest: with every problem found.
            ImageTooLarge, NotAnImage, Unavailable: as `InputReader.read` says.
        """


@dataclass(frozen=True)
class Delivery:
    """Delivery of a checked request's job, whatever the task.

    Attributes:
        images: in memory.
    """

    images: Inputs
    priority: Priority
    webhook: WebhookRecord | None


class Checked(Protocol):
    """A request of any task that passed every check."""

    @property
    def parameters(self) -> AnyParameters:
        """Parameters of its job."""

    @property
    def delivery(self) -> Delivery:
        """How the job is queued, and its images."""

    @property
    def counts(self) -> PromptCounts | None:
        """Tokens of its prompts; None where it has none, or they are not known."""

    def require_worker(self, admission: Admission) -> None:
        """Refuse a job that no live worker can run; raises as `Admission.require`."""


@dataclass(frozen=True)
class CheckedJob:
    """A request for a diffusion model that passed every check: what it runs on and how."""

    model: ModelSpec
    parameters: JobParameters
    delivery: Delivery
    counts: PromptCounts | None

    def require_worker(self, admission: Admission) -> None:
        """As `Checked`."""
        admission.require(self.model, self.parameters)


@dataclass(frozen=True)
class RequestChecks:
    """The checks of one principal's requests."""

    services: Services
    principal: Principal
    links: Links

    def check(self, draft: JobDraft) -> CheckedJob:
        """Check everything about a request that can be known before it is queued. Stores nothing.

        Raises:
            InvalidRequest: with every problem found.
            ImageTooLarge, NotAnImage, Unavailable: as `InputReader.read` says.
        """
        reading = draft.reading
        if not reading.requests:
            reading.require()
        for request in reading.requests:
            logs.hide(*prompts_of(request).values(), *read_prompts(request).texts.values())
        catalogue = self._catalogue_for(request := reading.requests[0])
        rules = partial(check, catalogue=catalogue)
        delivery = self.check_delivery(reading, draft.images, rules, draft.prediction_version)
        model = catalogue.model(request.model or catalogue.default_model)
        images = self.inputs.preprocess(request, model, delivery.images)
        stored = {path: image.stored for path, image in images.items()}
        parameters = with_map_options(resolve(request, model, stored), catalogue, stored)
        require_t2i_size(parameters, catalogue)
        parameters = with_second_model(with_inversions(parameters, model, catalogue), catalogue)
        parameters = resolve_uploads(parameters, catalogue)
        require_room(parameters)
        parameters, latents = with_step_check(request.check_step, parameters, self.inputs)
        counts = self.services.prompt_counter.count(model, parameters)
        return CheckedJob(model, parameters, replace(delivery, images={**images, **latents}), counts)

    def check_delivery(
        self,
        reading: Reading[AnyRequest],
        images: Mapping[str, GivenImage] | None,
        rules: Callable[[AnyRequest], object],
        prediction_version: str | None = None,
    ) -> Delivery:
        """What requests of all tasks have to pass, and their images.

        Args:
            images: as in `JobDraft`.
            rules: checks what several fields together, or the catalogue, allow; raises InvalidRequest.

        Raises:
            InvalidRequest: with every problem found.
            ImageTooLarge, NotAnImage, Unavailable: as `InputReader.read` says.
        """
        if not reading.requests:
            reading.require()
        request = reading.requests[0]
        reading = reading.with_problems(partial(self._broken_rules, rules))
        more: list[FieldProblem] = []
        with _collecting(more):
            webhook = self._resolve_webhook(request, prediction_version)
        if reading.problems or more:
            if images is not None:
                known = {problem.field for problem in reading.problems} | reading.made_up
                more += self.inputs.find_problems(request, images, known)
            raise InvalidRequest([*reading.problems, *more], reading.count + len(more))
        priority = self.principal.priority_of(request)
        return Delivery(self.inputs.read(request, images), priority, webhook)

    def _broken_rules(self, rules: Callable[[AnyRequest], object], request: AnyRequest) -> list[FieldProblem]:
        """What is wrong with a request whose fields by themselves are right."""
        problems: list[FieldProblem] = []
        with _collecting(problems):
            rules(request)
        with _collecting(problems):
            self.principal.priority_of(request)
        if self.services.prompt_guard is not None and isinstance(request, ImageFields):
            problems += self.services.prompt_guard.problems(request)
        return problems

    def predict_overtime(self, job: TaskParameters) -> FieldProblem | None:
        """Why the job would take too long, as far as its time can be predicted."""
        settings = self.services.settings
        is_training = job.task == JobTask.TRAINING
        max_seconds = settings.max_training_seconds if is_training else settings.max_job_seconds
        return too_long(job, self.services.queue.eta.run_seconds(job, _PACE_SECONDS), max_seconds)

    @property
    def inputs(self) -> InputReader:
        """What reads and stores the images of this principal's requests."""
        services = self.services
        return InputReader(
            services.decoder,
            services.queue,
            services.storage,
            services.retention,
            self.principal.owner,
            services.fetcher,
            services.settings.max_owner_bytes,
        )

    def _catalogue_for(self, request: JobRequest) -> Catalogue:
        """With uploads of a kind only where the request may name one, since they are read from Redis."""
        catalogue = self.services.catalogue
        built_in = {lora.id for lora in catalogue.loras}
        kinds: list[UploadKind[Any]] = []
        if any(lora.name not in built_in for _, lora in read_prompts(request).loras):
            kinds.append(LORAS)
        if names_any(request):
            kinds.append(INVERSIONS)
        own = {row.id for row in catalogue.ip_adapters}
        if any(adapter.name not in own for adapter in request.ip_adapters):
            kinds.append(IP_ADAPTERS)
        nets = {row.id for row in catalogue.controlnets}
        if any(control.controlnet not in nets for control in vars(request).get("controls", ())):
            kinds.append(CONTROLNETS)
        return self.services.adapters.extend(catalogue, self.principal.owner, kinds) if kinds else catalogue

    def _resolve_webhook(self, request: DeliveryFields, prediction_version: str | None) -> WebhookRecord | None:
        if request.webhook is None:
            return None
        try:
            webhook = resolve_webhook(request.webhook, self.links.base, self.services.settings.outbound)
        except (DestinationRefused, DestinationUnknown) as error:
            raise InvalidRequest([FieldProblem("webhook.url", str(error))]) from None
        return webhook.model_copy(update={"prediction_version": prediction_version})


def prompts_of(request: DeliveryFields) -> dict[str, str]:
    """The texts of a request by field: the log either prints or hides them."""
    names = ("prompt", "prompt_2", "prompt_3", "negative_prompt")
    return {name: text for name in names if (text := vars(request).get(name)) is not None}


@contextmanager
def _collecting(problems: list[FieldProblem]) -> Iterator[None]:
    """Add the problems of a request that is refused in the block, and go on."""
    try:
        yield
    except InvalidRequest as error:
        problems.extend(error.problems)
