"""Why jobs fail: the codes that clients read, and the error that a worker raises with one."""

from __future__ import annotations

from enum import StrEnum

from contracts.errors import DarkroomError


class FailureCode(StrEnum):
    """Stable codes of failed jobs; part of the HTTP API.

    Attributes:
        OUT_OF_MEMORY: the device had too little memory, even for the smallest memory plan.
        MODEL_LOAD_FAILED: files of the model or of a ControlNet are damaged, or do not fit together.
        FILES_UNAVAILABLE: files could not be downloaded for a long time.
        LORA_INCOMPATIBLE: layers of a LoRA are not those of the model.
        LORA_DAMAGED: the file of a LoRA is damaged.
        LORA_MISSING: a LoRA was removed before the job started.
        ADAPTER_INCOMPATIBLE, ADAPTER_DAMAGED, ADAPTER_MISSING: the same for an adapter of another kind.
        PROMPT_TOO_LONG: an encoder cannot read all of a prompt, and `long_prompt` is `refuse`.
        FLAGGED: the operator's safety check flagged an image, and the operator refuses such images.
        INPUT_MISSING: an input image expired or was deleted before the job started.
        INPUT_INCOMPATIBLE: latents that were sent are not of this job on this device, or the checkpoint does not
            have the class or the size that the request names.
        DEADLINE_EXCEEDED: the job had not ended by its deadline.
        DURATION_EXCEEDED: the job ran for longer than the operator allows.
        WORKER_LOST: the workers that ran the job died, as often as the operator allows.
        REFUSED_FUNCTION: somebody queued a function that is not Darkroom's.
        UNREADABLE: the job's record cannot be read by this version.
        INTERNAL: an unexpected error; the service's log has the details under the job's id.
    """

    OUT_OF_MEMORY = "out_of_memory"
    MODEL_LOAD_FAILED = "model_load_failed"
    FILES_UNAVAILABLE = "files_unavailable"
    LORA_INCOMPATIBLE = "lora_incompatible"
    LORA_MISSING = "lora_missing"
    LORA_DAMAGED = "lora_damaged"
    ADAPTER_INCOMPATIBLE = "adapter_incompatible"
    ADAPTER_MISSING = "adapter_missing"
    ADAPTER_DAMAGED = "adapter_damaged"
    PROMPT_TOO_LONG = "prompt_too_long"
    FLAGGED = "flagged"
    INPUT_MISSING = "input_missing"
    INPUT_INCOMPATIBLE = "input_incompatible"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    DURATION_EXCEEDED = "duration_exceeded"
    WORKER_LOST = "worker_lost"
    REFUSED_FUNCTION = "refused_function"
    UNREADABLE = "unreadable"
    INTERNAL = "internal"


#: Codes of failures where the same request may succeed when it is sent again.
RETRYABLE = frozenset(
    {
        FailureCode.OUT_OF_MEMORY,
        FailureCode.FILES_UNAVAILABLE,
        FailureCode.DEADLINE_EXCEEDED,
        FailureCode.WORKER_LOST,
        FailureCode.UNREADABLE,
        FailureCode.INTERNAL,
    }
)


class JobFailed(DarkroomError):
    """A job's failure whose reason the worker knows; becomes the job's `error`."""

    def __init__(self, code: FailureCode, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{code}: {message}")
