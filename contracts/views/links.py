"""URLs of a job and of its files under the service's address, some of them signed."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.auth.signed_links import LinkSigner
from contracts.jobs.records import JobRecord
from contracts.requests.task_parameters import JobTask


@dataclass(frozen=True)
class Links:
    """Maker of absolute URLs under the service's base URL (without a trailing slash), some of them signed."""

    base: str
    signer: LinkSigner

    def job(self, id: str) -> str:
        """The URL of a job."""
        return f"{self.base}/v1/jobs/{id}"

    def image(self, id: str, number: int) -> str:
        """The signed URL of an image, which needs no API key until it expires."""
        return f"{self.job(id)}/images/{number}?{self.signer.sign_image(id, number)}"

    def events(self, id: str) -> str:
        """The signed URL of a job's event stream, for which `EventSource` needs no header until it expires."""
        return f"{self.job(id)}/events?{self.signer.sign_events(id)}"

    def of(self, record: JobRecord) -> dict[str, str]:
        """The links of a job in its present state."""
        links = {"self": self.job(record.id), "events": self.events(record.id)}
        if record.parameters.task != JobTask.TRAINING:
            links["rerun"] = f"{links['self']}/rerun"
        if record.receipt is not None and record.receipt.kept_latents is not None:
            links["latents"] = f"{links['self']}/latents"
        links |= {f"released/{number}": f"{links['self']}/released/{number}" for number in record.released}
        if not record.state.is_final:
            links["cancel"] = f"{links['self']}/cancel"
        return links
