"""Settings of one worker process; built once in `worker/main.py`, frozen, and passed in."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from contracts.memory.plan import Policy, T5Policy
from contracts.settings import Settings, describe
from worker.runtime.kernel_options import Attention, ChannelsLast, Compile, KernelOptions


def _own_name() -> str:
    return f"{os.uname().nodename.split('.')[0]}-{os.getpid()}-{secrets.token_hex(2)}"


class WorkerSettings(Settings):
    """Each field is an environment variable `DARKROOM_WORKER_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_WORKER_", frozen=True, extra="ignore")

    name: str = Field(default_factory=_own_name, description="unique among all workers")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    warm: list[str] = Field(default_factory=list, description='models to load at start, as JSON: ["sdxl"]')
    max_models: int = Field(3, ge=1, description="models kept ready at once")
    budget_bytes: int | None = Field(
        None, gt=0, description="device memory to plan with and to keep to; none: what the device has"
    )
    host_bytes: int = Field(0, ge=0, description="host memory for models that had to leave the device")
    t5: T5Policy = Field(
        "auto", description="where the T5 encoder works: auto (by the plan), gpu, cpu, on_demand or off (SD3 only)"
    )
    encode_ahead: Literal["auto", "on", "off"] = Field(
        "auto",
        description="whether a T5 on the CPU reads the next batch's prompts while a batch is painted; "
        "auto: unless that is painted on the CPU, too",
    )
    allow_fp8: bool = Field(
        False, description="store denoisers in 8 bits where nothing better fits; changes images"
    )
    allow_drop_t5: bool = Field(False, description="leave T5 out where nothing else fits (SD3); changes images")
    loaded_loras: int = Field(16, ge=0, description="LoRAs that stay loaded beside each model")
    loaded_lora_bytes: int = Field(2 * 2**30, ge=0, description="memory that they may take beside each model")
    lora_folder: Path | None = Field(None, description="where files of uploaded LoRAs go; none: below the data")
    lora_file_bytes: int = Field(16 * 2**30, ge=0, description="what they may take there")
    embedding_bytes: int = Field(2**28, ge=0, description="host memory for embeddings of prompts; 0: none kept")
    max_batch_images: int = Field(4, ge=1, le=64, description="images that one pipeline call may make")
    max_batch_pixels: int = Field(4 * 1024 * 1024, ge=4096, description="pixels that one pipeline call may make")
    batching: str = Field(
        "on",
        pattern=r"^(off|on|[0-9]{1,5})$",
        description="off; on; or milliseconds that a lone batchable job waits for company",
    )
    residency_seconds: float = Field(10.0, ge=0, description="how long a model stays before it may be displaced")
    poll_seconds: float = Field(0.02, gt=0, description="pause between two looks at an empty queue")
    report_seconds: float = Field(
        0.1, ge=0, description="steps are reported, and cancels heard, no more often than this; 0: each step"
    )
    stall_seconds: float = Field(600.0, gt=0, description="a worker without a step for this long ends itself")
    drain_seconds: float = Field(120.0, ge=0, description="after SIGTERM, how long the running batch may take")
    attention: Attention = Field(
        "auto", description="attention kernel to try first: auto (torch's order), cudnn, flash, efficient, math"
    )
    channels_last: ChannelsLast = Field(
        "auto", description="convolutions' weights with the channels last: auto (on CUDA), on, off"
    )
    compile: Compile = Field(
        "off", description="off; blocks: compile the denoiser's blocks; graphs: and replay them as CUDA graphs"
    )
    compile_backend: str = Field("inductor", description="torch.compile's back end; inductor needs a C++ compiler")
    cpu_threads: int = Field(0, ge=0, description="threads of CPU work; 0: torch's choice")

    @field_validator("t5", mode="before")
    @classmethod
    def _accept_old_name(cls, value: object) -> object:
        """Until 0.2 `visit` is accepted for `on_demand`."""
        return "on_demand" if value == "visit" else value

    @property
    def policy(self) -> Policy:
        """What the memory plans may do."""
        return Policy(t5=self.t5, allow_fp8=self.allow_fp8, allow_drop_t5=self.allow_drop_t5)

    def encodes_ahead(self, device_type: str) -> bool:
        """Whether to encode ahead beside a device of this type (`cpu`, `cuda`)."""
        return self.encode_ahead == "on" or (self.encode_ahead == "auto" and device_type != "cpu")

    @property
    def kernels(self) -> KernelOptions:
        """How arithmetic is carried out."""
        return KernelOptions(self.attention, self.channels_last, self.compile, self.compile_backend)

    @property
    def batch_wait_seconds(self) -> float:
        """How long a lone batchable job waits for company."""
        return int(self.batching) / 1000 if self.batching.isdigit() else 0.0


if __name__ == "__main__":
    print(describe(WorkerSettings))  # noqa: T201
