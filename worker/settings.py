"""Settings of one worker process; built once in `worker/main.py`, frozen, and passed in."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from contracts import settings_table
from contracts.memory.policy import Policy, T5Policy
from contracts.settings import Settings
from worker.runtime.kernel_options import Attention, ChannelsLast, Compile, KernelOptions


def _own_name() -> str:
    return f"{os.uname().nodename.split('.')[0]}-{os.getpid()}-{secrets.token_hex(2)}"


class WorkerSettings(Settings):
    """Settings of a worker. Each field is an environment variable `DARKROOM_WORKER_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_WORKER_", frozen=True, extra="ignore")

    name: str = Field(
        default_factory=_own_name, description="name of this worker; unique among all workers and dispatchers"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    warm: list[str] = Field(
        default_factory=list, description='models to load at start, as JSON: ["sdxl"]; empty: the default model'
    )
    max_models: int = Field(
        3, ge=1, description="maximum number of loaded models; one more evicts the least recently used"
    )
    budget_bytes: int | None = Field(
        None, gt=0, description="maximum device memory for weights and activations; none: all that the device has"
    )
    host_bytes: int = Field(
        0, ge=0, description="maximum host memory for models evicted from the device; 0: they are dropped"
    )
    t5: T5Policy = Field(
        "auto",
        description="where the T5 encoder runs: auto (as the plan says), gpu, cpu, on_demand or off (SD3 only)",
    )
    encode_ahead: Literal["auto", "on", "off"] = Field(
        "auto",
        description="encode the next jobs' prompts on the CPU while jobs are denoised, where T5 runs on the CPU; "
        "auto: unless the device is the CPU, too",
    )
    allow_fp8: bool = Field(
        False, description="store denoiser weights in 8 bits if no other plan fits; changes images"
    )
    allow_drop_t5: bool = Field(False, description="leave T5 out if no other plan fits (SD3); changes images")
    loaded_loras: int = Field(
        16,
        ge=0,
        description="maximum number of LoRAs loaded beside each model; one more evicts the least recently used",
    )
    loaded_lora_bytes: int = Field(
        2 * 2**30, ge=0, description="maximum memory of the LoRAs loaded beside each model"
    )
    lora_folder: Path | None = Field(
        None, description="local folder for files of uploaded LoRAs; none: `loras` in the data folder"
    )
    lora_file_bytes: int = Field(
        16 * 2**30, ge=0, description="maximum size of that folder; least recently used files are deleted"
    )
    embedding_bytes: int = Field(
        2**28, ge=0, description="maximum host memory for cached prompt embeddings; 0: no cache"
    )
    max_rows: int = Field(
        16,
        ge=1,
        le=64,
        description="maximum rows of a denoiser call that several jobs share; an image has one, with guidance two",
    )
    max_jobs: int = Field(
        16,
        ge=1,
        le=64,
        description="maximum jobs of one priority and those above it that this worker has begun and not ended; "
        "others wait in the queue, where another worker may take them",
    )
    training: Literal["also", "never", "only"] = Field(
        "also",
        description="whether this worker runs trainings. also: one at a time, when no images are "
        "requested, and with a small share of the time otherwise; never: no trainings; only: "
        "trainings and nothing else",
    )
    scheduling: Literal["steps", "fifo"] = Field(
        "steps",
        description="steps: jobs share the denoiser step by step, and urgent and short ones go first; "
        "fifo: one job after the other, each to its end, for comparison",
    )
    seeds: Literal["exact", "joined"] = Field(
        "exact",
        description="what a seed guarantees if a request has no `batchable`. exact: the job's calls are "
        "not joined with others, so its image is the same, bit for bit, whatever else runs; "
        "joined: they may be joined with those of other jobs, which changes values by one "
        "level of 255, or a few in half precision",
    )
    residency_seconds: float = Field(
        10.0, ge=0, description="minimum time that a model runs before jobs of another may replace it"
    )
    poll_seconds: float = Field(
        1.0, gt=0, description="polling interval of an empty queue; new jobs are announced at once through Redis"
    )
    report_seconds: float = Field(
        0.1, ge=0, description="minimum interval between progress reports, which also read cancels; 0: every step"
    )
    stall_seconds: float = Field(
        600.0,
        gt=0,
        description="maximum time without a step; then the process exits, and its supervisor restarts it",
    )
    download_retry_seconds: float = Field(
        3600.0,
        ge=0,
        description="maximum time that jobs wait for files that cannot be downloaded for now (the hub is "
        "unreachable or overloaded, or the disk is full); then they fail with "
        "files_unavailable. 0: they fail at once",
    )
    storage_retry_seconds: float = Field(
        300.0,
        ge=0,
        description="maximum time that generated images wait in memory while the storage is full or "
        "unreachable; then their jobs go back to the queue",
    )
    drain_seconds: float = Field(
        120.0,
        ge=0,
        description="maximum time after SIGTERM for running jobs to finish; then they go back to the queue",
    )
    attention: Attention = Field(
        "auto", description="attention kernel to try first: auto (torch's order), cudnn, flash, efficient or math"
    )
    channels_last: ChannelsLast = Field(
        "auto", description="channels-last memory format of convolution weights: auto (off), on, off"
    )
    compile: Compile = Field(
        "off",
        description="off; blocks: compile the denoiser's blocks; graphs: also replay them as CUDA graphs; "
        "whole_graphs: replay the whole denoiser of models of up to 8 default steps, else as graphs",
    )
    compile_backend: str = Field(
        "inductor", description="back end of torch.compile; inductor needs a C++ compiler"
    )
    compiled_loras: int = Field(
        4,
        ge=0,
        le=64,
        description="maximum number of different sets of LoRAs in a call of a compiled denoiser, one for "
        "each job with other LoRAs or scales; 0: calls with LoRAs run uncompiled",
    )
    compiled_lora_rank: int = Field(
        32,
        ge=1,
        le=512,
        description="maximum sum of the ranks of one job's LoRAs there; others run uncompiled. Memory "
        "grows with both settings",
    )
    image_check: str = Field(
        "off",
        min_length=1,
        description="check of images and previews before they are stored or shown: off; checkpoint (the safety "
        "checker that a checkpoint carries); classifier (of a local folder); or the name of an entry point "
        "darkroom.image_checks of an installed package",
    )
    image_check_folder: Path | None = Field(
        None,
        description="folder of the classifier, as transformers saves it (CLIP, ViT, ResNet); with checkpoint, of "
        "the safety checker for checkpoints without one; safetensors only",
    )
    image_check_labels: list[str] = Field(
        default_factory=list, description='labels of the classifier that are flagged, as JSON: ["nsfw"]'
    )
    image_check_threshold: float = Field(
        0.5, gt=0, le=1, description="minimum score of a flagged image, above 0 and at most 1"
    )
    image_check_action: Literal["refuse", "blur", "mark"] = Field(
        "refuse",
        description="what happens with flagged images. refuse: the job fails with flagged; blur: clients get a "
        "blurred one; mark: the job says so. Operators can see refused and blurred images",
    )
    flops_per_joule: float | None = Field(
        None,
        gt=0,
        description="floating-point operations per joule of the device, for estimates of energy when the "
        "card has no counter that can be read; none: 8e9 for a CPU, 4e11 for a GPU",
    )
    watts: float | None = Field(
        None,
        gt=0,
        description="power of the device in watts while it computes, for energy estimates of jobs whose "
        "operations are not all counted; none: 65 for a CPU, 300 for a GPU",
    )
    cpu_threads: int = Field(0, ge=0, description="CPU threads that torch uses; 0: torch's default")

    @field_validator("t5", mode="before")
    @classmethod
    def _accept_old_name(cls, value: object) -> object:
        """Accept `visit`, the name of `on_demand` before 0.2."""
        return "on_demand" if value == "visit" else value

    @property
    def policy(self) -> Policy:
        """What memory plans may do."""
        return Policy(t5=self.t5, allow_fp8=self.allow_fp8, allow_drop_t5=self.allow_drop_t5)

    @property
    def jobs_in_flight(self) -> int:
        """Jobs of a tier that may be in flight: without sharing of steps, one."""
        return 1 if self.scheduling == "fifo" else self.max_jobs

    def encodes_ahead(self, device_type: str) -> bool:
        """Whether to encode ahead beside a device of this type (`cpu`, `cuda`)."""
        return self.encode_ahead == "on" or (self.encode_ahead == "auto" and device_type != "cpu")

    @property
    def kernels(self) -> KernelOptions:
        """Which kernels compute."""
        return KernelOptions(
            self.attention,
            self.channels_last,
            self.compile,
            self.compile_backend,
            lora_slots=self.compiled_loras,
            slot_rank=self.compiled_lora_rank,
        )

    def may_join(self, batchable: bool | None) -> bool:
        """Whether calls of a job may be joined with those of others; `batchable` as in `JobParameters`."""
        return self.seeds == "joined" if batchable is None else batchable


if __name__ == "__main__":
    sys.exit(settings_table.run(WorkerSettings))
