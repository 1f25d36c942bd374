"""A job's receipt: all that is needed to generate the same images again, and the resources that they took.

The worker writes it, and clients get it as it is. Knows neither Redis nor HTTP.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from contracts.left_out_fields import LeftOutIfEmpty, OrLeftOut
from contracts.prompts.tokens import TokenUse
from contracts.requests.any_parameters import AnyParameters


class RecordPart(BaseModel):
    """Base of a job's record, its receipt and their parts: frozen, with all fields in what clients get."""

    # Fields that have a default are sent, too, unless their type says that they are left out.
    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class Weights(RecordPart):
    """Weights that an image was generated with."""

    id: str = Field(description="Id in the catalogue; for an uploaded LoRA, the one it was uploaded with.")
    sha256: str = Field(description="SHA-256 of the weights' content, in hexadecimal.")
    family: str | None = Field(
        None, description="Model family, such as `sdxl`; null in receipts of older releases."
    )
    scale: float | None = Field(None, description="Weight with which it was applied; null for a model.")
    repository: OrLeftOut[str] = Field(
        None, description="`org/name` on a hub; left out where the weights do not come from one."
    )
    revision: OrLeftOut[str] = Field(
        None, description="Commit of the repository; left out where the weights do not come from a hub."
    )
    quantization: OrLeftOut[str] = Field(
        None,
        description="How a model's weights are quantized, such as `int8_weight_only` or `gguf-q8_0`; "
        "left out where they are not.",
    )
    text_encoder_quantization: LeftOutIfEmpty[dict[str, str]] = Field(
        {}, description="Text encoder -> how its weights are quantized; left out where none is."
    )
    control_lora_scale: OrLeftOut[float] = Field(
        None,
        description="Weight of the Control LoRA that is merged into a model, whose file is part of `sha256`; left "
        "out where it has none.",
    )


class CacheUse(RecordPart):
    """Look-ups in the cache of prompt embeddings."""

    hits: int = Field(0, description="Prompts whose embeddings were in the cache.")
    misses: int = Field(0, description="Prompts that had to be encoded.")
    ahead: int = Field(
        0, description="Misses that T5 had already encoded on the CPU, while an earlier job was denoised."
    )


class MemoryUse(RecordPart):
    """Device memory that the job's pipeline call used."""

    plan: str = Field(description="Name of the memory plan that was used.")
    budget_bytes: int = Field(description="Device memory that the worker may use, in bytes.")
    planned_bytes: int = Field(description="Maximum that the plan predicted, in bytes, weights included.")
    peak_bytes: int | None = Field(
        None, description="Measured maximum in bytes, weights included; null on a CPU without a budget."
    )
    ran_out: list[str] = Field(
        default_factory=list, description="Names of larger plans with which this job ran out of memory before."
    )


class Energy(RecordPart):
    """Energy that the device drew for a job."""

    joules: float = Field(description="Joules of the device (3.6 million are a kilowatt hour), without its host.")
    source: Literal["measured", "estimated"] = Field(
        description="`measured`: by the card's counter, shared by device seconds with jobs that ran at the same "
        "time; `estimated`: the receipt's `flops` divided by `assumed_flops_per_joule` or, where not all of the "
        "job's operations are known, device seconds times `assumed_watts`."
    )
    assumed_flops_per_joule: OrLeftOut[float] = Field(
        None,
        description="Floating-point operations per joule that the estimate assumes; left out if the "
        "estimate is not based on them.",
    )
    assumed_watts: OrLeftOut[float] = Field(
        None,
        description="Power of the device that the estimate assumes; left out if the estimate is not based on it.",
    )


class ControlMap(RecordPart):
    """A control image that a job has made itself."""

    control: int = Field(description="Index of the control in the request's `controls`.")
    preprocessor: Weights = Field(description="The model that made it.")
    pixels_sha256: str = Field(description="SHA-256 of its RGB values, 8 bits each, row by row.")


class KeptLatents(RecordPart):
    """The latents after each step, which a job has kept."""

    steps: int = Field(description="Steps; the file has a tensor `step.001`, `step.002`, … for each.")
    size_bytes: int = Field(description="Bytes of the file.")
    sha256: str = Field(description="SHA-256 of the file, in hexadecimal.")


class CheckedStep(RecordPart):
    """One step that was made again."""

    step: int = Field(description="The step, counted from 1.")
    steps: int = Field(description="Number of steps of the whole job.")
    sha256: list[str] = Field(
        description="For each image, the hash of its latents after this step, as in the signature of an "
        "image file."
    )


class TrainedAdapter(RecordPart):
    """A file that a training has registered: a LoRA, a textual inversion or a ControlNet."""

    id: str = Field(description="Its name in requests.")
    sha256: str = Field(description="SHA-256 of its file, in hexadecimal.")
    step: int = Field(description="Steps after which it was taken.")


class TrainingReceipt(RecordPart):
    """The files and losses of a training."""

    loras: list[TrainedAdapter] = Field(
        default_factory=list, description="The LoRAs, snapshots first; empty if something else was trained."
    )
    textual_inversions: LeftOutIfEmpty[list[TrainedAdapter]] = Field(
        default_factory=list, description="The textual inversions, snapshots first."
    )
    controlnets: LeftOutIfEmpty[list[TrainedAdapter]] = Field(
        default_factory=list, description="The ControlNets, snapshots first."
    )
    losses: list[float] = Field(description="Losses of the last steps, without the class images' part.")


class Receipt(RecordPart):
    """Generation metadata: all that is needed to generate the same image again, and the resources it took."""

    parameters: AnyParameters = Field(
        description="All parameters, defaults included; `POST /v1/jobs/{id}/rerun` runs them again."
    )
    seeds: list[int | None] = Field(
        description="Seed of each image, in the order of the job's images; null for one not made from noise."
    )
    model: Weights = Field(description="The model.")
    refiner: OrLeftOut[Weights] = Field(
        None, description="The model that ran the last steps; left out where the request has no `refiner`."
    )
    cascade: OrLeftOut[Weights] = Field(
        None, description="The model that made the larger images; left out where the request has no `cascade`."
    )
    upscaler: OrLeftOut[Weights] = Field(
        None, description="The network that enlarged the images between two passes; left out without one."
    )
    loras: list[Weights] = Field(
        default_factory=list, description="The LoRAs that were applied, in the order of the request."
    )
    controlnets: list[Weights] = Field(
        default_factory=list, description="The ControlNets that were applied, in the order of the request."
    )
    control_maps: LeftOutIfEmpty[list[ControlMap]] = Field(
        default_factory=list,
        description="The control images that the job made itself, with preprocessors that are models.",
    )
    vae: OrLeftOut[Weights] = Field(
        None, description="The VAE that replaced the model's own; left out without one."
    )
    preview_vae: OrLeftOut[Weights] = Field(
        None,
        description="The VAE that made the previews; left out where they were approximated, and without previews.",
    )
    ip_adapters: LeftOutIfEmpty[list[Weights]] = Field(
        default_factory=list, description="The IP-Adapters that were applied, in the order of the request."
    )
    textual_inversions: LeftOutIfEmpty[list[Weights]] = Field(
        default_factory=list, description="The textual inversions in its prompts."
    )
    image_encoders: LeftOutIfEmpty[list[Weights]] = Field(
        default_factory=list,
        description="The image encoder of each of these IP-Adapters; it computes on the CPU in float32.",
    )
    mean_rows: float = Field(
        1.0,
        description="Mean number of rows (images and guidance passes) in the calls of the denoiser that the job "
        "was in, counting your own jobs only, this one included.",
    )
    pauses: int = Field(
        0, description="How often the job waited, once started, while a call of another job of yours was made."
    )
    joined: bool = Field(
        False, description="Whether any of its calls was joined with those of other jobs, of any owner."
    )
    placement: dict[str, str] = Field(
        default_factory=dict,
        description="Component, of a refiner `refiner:NAME`, of a second pass `hires:NAME` -> where its weights "
        "were: a device such as `cuda:0` or `cpu`, or `on_demand`, `streamed`, `skipped`.",
    )
    memory: MemoryUse | None = Field(
        None, description="The memory plan, and the memory that was used; null in receipts of older releases."
    )
    flops: OrLeftOut[int] = Field(
        None,
        description="Floating-point operations of the job's text encoders, denoiser, ControlNets and VAE, of its "
        "own rows only; left out where not all are known: of unusual components, preprocessors, upscalers and "
        "trainings. Adapters and image encoders are not included.",
    )
    energy: OrLeftOut[Energy] = Field(
        None,
        description="Energy that the device drew for the attempt that completed; left out in receipts of older "
        "releases.",
    )
    predicted_calls: int = Field(
        0, description="Calls of the denoiser that `speed: fast` predicted instead of computing; 0 with `exact`."
    )
    deviations: list[str] = Field(
        default_factory=list,
        validation_alias=AliasChoices("deviations", "departures"),
        description="How the memory plan changed the image, for lack of memory or by the operator's choice, one "
        "sentence each; empty if it did not.",
    )
    embeddings: CacheUse = Field(
        default_factory=CacheUse,
        description="Look-ups of your own jobs in the cache of prompt embeddings. A prompt that only other "
        "owners have used before counts as a miss.",
    )
    prompt_tokens: dict[str, TokenUse] = Field(
        default_factory=dict,
        description="Text encoder -> tokens of the prompt, and how many of them it read; empty in receipts of "
        "older releases.",
    )
    negative_prompt_tokens: dict[str, TokenUse] = Field(
        default_factory=dict, description="The same for the negative prompt; empty without one."
    )
    pixels_sha256: list[str] = Field(
        default_factory=list,
        description="SHA-256 of each image's RGB values (RGBA with transparency), 8 bits each, row by row: a file "
        "without loss has these pixels, whatever its format and metadata; empty in receipts of older releases.",
    )
    latents_merkle_root: LeftOutIfEmpty[list[str]] = Field(
        default_factory=list,
        description="Of each image, the root of the Merkle tree (RFC 6962, SHA-256) over its latents after each "
        "step; left out unless receipts are signed, or latents are kept.",
    )
    kept_latents: OrLeftOut[KeptLatents] = Field(
        None,
        description="The latents that were kept, at `links.latents`; left out where none were: unless the request "
        "had `keep_latents`, and where the safety check hid an image.",
    )
    checked_step: OrLeftOut[CheckedStep] = Field(
        None, description="Result of a request with `check_step`; left out for others."
    )
    device: str = Field("", description="Device that the denoiser ran on, such as `cuda:0` or `cpu`.")
    dtype: str = Field("", description="Data type that the denoiser computed in, such as `bfloat16`.")
    kernels: dict[str, str] = Field(
        default_factory=dict,
        description="Options that may change the last bits of an image (`attention`, `compile`, …) -> their "
        "values.",
    )
    versions: dict[str, str] = Field(default_factory=dict, description="Library -> its version.")
    timings: dict[str, float] = Field(
        default_factory=dict,
        description="Stage (`queue`, `load`, `encode_prompt`, `encode_inputs`, `denoise`, `decode`, `write`, "
        "…) -> seconds.",
    )
    worker: str = Field("", description="Id of the worker that ran the job.")
    training: OrLeftOut[TrainingReceipt] = Field(
        None, description="The trained files; left out for jobs of other tasks."
    )
