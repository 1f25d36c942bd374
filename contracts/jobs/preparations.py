"""How the preparation of files goes on that jobs wait for, as workers report it and clients read it.

Knows no files and no hub.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

#: Behind other preparations of the same worker.
WAITING = "waiting"
#: Its files are being downloaded.
FETCHING = "fetching"
#: Its files are on the worker's machine, and are read once for their content hash.
READING = "reading"
#: The download failed for now; it is tried again after `retry_seconds`.
RETRYING = "retrying"
#: It cannot be prepared; jobs that need it have failed.
FAILED = "failed"
#: Its files can be loaded.
READY = "ready"


class Preparation(BaseModel):
    """One thing that is being prepared: a model, a ControlNet or a LoRA."""

    # `state` is not a Literal: a report of a later release with another state must stay readable.
    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    name: str = Field(description="The model's id, `controlnet:ID` or `lora:ID`.")
    state: str = Field(
        description="`waiting` for other preparations, `fetching`, `reading`, `retrying` after "
        "`retry_seconds`, `failed`, or `ready`."
    )
    message: str = Field("", description="Why it is retried or has failed; empty otherwise.")
    bytes_done: int | None = Field(None, description="Bytes that are on the worker's machine; null while unknown.")
    bytes_total: int | None = Field(None, description="Bytes of all files; null while unknown.")
    bytes_per_second: float | None = Field(
        None, description="Speed over the last seconds; null while nothing is fetched."
    )
    remaining_seconds: float | None = Field(
        None, description="Estimated seconds for the rest at this speed; null while unknown."
    )
    retry_seconds: float | None = Field(
        None, description="Seconds until the next attempt; null unless the state is `retrying`."
    )

    def describe(self) -> str:
        """It in a few words: `sdxl: 1.2 of 6.9 GB, 84.0 MB/s, 68 s left`."""
        if self.message:
            retry = "" if self.retry_seconds is None else f"; trying again in {self.retry_seconds:.0f} s"
            return f"{self.name}: {self.message}{retry}"
        if self.bytes_done is None or not self.bytes_total:
            return f"{self.name}: {self.state}"
        unit_bytes, unit = (1e9, "GB") if self.bytes_total >= 1e9 else (1e6, "MB")
        text = f"{self.name}: {self.bytes_done / unit_bytes:.1f} of {self.bytes_total / unit_bytes:.1f} {unit}"
        if self.bytes_per_second is not None:
            text += f", {self.bytes_per_second / 1e6:.1f} MB/s"
        return text if self.remaining_seconds is None else f"{text}, {self.remaining_seconds:.0f} s left"
