"""Everything about a request that can be known before its job is queued. Stores and queues nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from app.auth import Principal
from app.inputs.reader import GivenImage, InputReader, Inputs
from app.limits.admission import too_long
from app.parsing.requests import Reading
from app.services import Services
from contracts import logs
from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.errors import DestinationRefused, DestinationUnknown, FieldProblem, InvalidRequest
from contracts.job_view import Links
from contracts.jobs.records import WebhookRecord
from contracts.outbound.outbox import resolve_webhook
from contracts.requests.defaults import resolve
from contracts.requests.inversions import names_any, with_inversions
from contracts.requests.parameters import JobParameters
from contracts.requests.prompt_counts import PromptCounts
from contracts.requests.prompts import read_prompts
from contracts.requests.refining import with_refiner
from contracts.requests.schema import JobRequest, Priority
from contracts.requests.validation import check
from contracts.uploads.adapters import INVERSIONS, IP_ADAPTERS, LORAS, UploadKind, resolve_uploads


@dataclass(frozen=True)
class JobDraft:
    """A request as it was read, and the images that are given with it instead of named in it, by field path.

    Attributes:
        images: None where something is wrong with the reading and it does not have the request's images.
        prediction_version: as `WebhookRecord` says.
    """

    reading: Reading[JobRequest]
    images: Mapping[str, GivenImage] | None = field(default_factory=dict)
    prediction_version: str | None = None


@dataclass(frozen=True)
class CheckedJob:
    """A request that passed every check: what it runs on and how, and its images in memory."""

    model: ModelSpec
    parameters: JobParameters
    images: Inputs
    priority: Priority
    webhook: WebhookRecord | None
    counts: PromptCounts | None


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
        reading = reading.with_problems(partial(self._broken_rules, catalogue))
        more: list[FieldProblem] = []
        with _collecting(more):
            webhook = self._resolve_webhook(request, draft.prediction_version)
        if reading.problems or more:
            if draft.images is not None:
                known = {problem.field for problem in reading.problems} | reading.made_up
                more += self.inputs.find_problems(request, draft.images, known)
            raise InvalidRequest([*reading.problems, *more], reading.count + len(more))
        model = catalogue.model(request.model or catalogue.default_model)
        priority = self.principal.priority_of(request)
        images = self.inputs.preprocess(request, model, self.inputs.read(request, draft.images))
        parameters = resolve(request, model, {path: image.stored for path, image in images.items()})
        parameters = with_refiner(with_inversions(parameters, model, catalogue), catalogue)
        parameters = resolve_uploads(parameters, catalogue)
        counts = self.services.prompt_counter.count(model, parameters)
        return CheckedJob(model, parameters, images, priority, webhook, counts)

    def _broken_rules(self, catalogue: Catalogue, request: JobRequest) -> list[FieldProblem]:
        """What is wrong with a request whose fields by themselves are right."""
        problems: list[FieldProblem] = []
        with _collecting(problems):
            check(request, catalogue)
        with _collecting(problems):
            self.principal.priority_of(request)
        if self.services.prompt_guard is not None:
            problems += self.services.prompt_guard.problems(request)
        return problems

    def predict_overtime(self, job: JobParameters) -> FieldProblem | None:
        """Why the job would take too long, as far as its time can be predicted."""
        return too_long(job, self.services.queue.eta.run_seconds(job), self.services.settings.max_job_seconds)

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
        return self.services.adapters.extend(catalogue, self.principal.owner, kinds) if kinds else catalogue

    def _resolve_webhook(self, request: JobRequest, prediction_version: str | None) -> WebhookRecord | None:
        if request.webhook is None:
            return None
        try:
            webhook = resolve_webhook(request.webhook, self.links.base, self.services.settings.outbound)
        except (DestinationRefused, DestinationUnknown) as error:
            raise InvalidRequest([FieldProblem("webhook.url", str(error))]) from None
        return webhook.model_copy(update={"prediction_version": prediction_version})


def prompts_of(request: JobRequest) -> dict[str, str]:
    """The texts of a request by their fields, for the log and for keeping them out of it."""
    names = ("prompt", "prompt_2", "prompt_3", "negative_prompt")
    return {name: text for name in names if (text := getattr(request, name, None)) is not None}


@contextmanager
def _collecting(problems: list[FieldProblem]) -> Iterator[None]:
    """Add the problems of a request that is refused in the block, and go on."""
    try:
        yield
    except InvalidRequest as error:
        problems.extend(error.problems)
