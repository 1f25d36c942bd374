"""Rebuilds the request of a job on a diffusion model from the parameters that are stored with it.

For reruns, for files whose receipt is read, and for images that are made again to check them. Finds no image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.requests.entries import Control, Hires, IpAdapter
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import REQUESTS

#: Placeholder in the request for an image.
STORED = "stored"


def request_fields(parameters: JobParameters) -> dict[str, Any]:
    """The fields of the request that has these parameters, with placeholders for images; none about delivery."""
    fields = parameters.model_dump(
        mode="json", exclude={"mode", "batchable", "preview_vae", "input_images", "check_step"}, exclude_none=True
    )
    if parameters.inputs and parameters.fit is None:
        fields["fit"] = "stretch"  # as releases did that had no `fit`
    fields["loras"] = [{"name": lora.name, "scale": lora.scale} for lora in parameters.loras]
    fields["textual_inversions"] = [{"name": one.name} for one in parameters.textual_inversions]
    for name in {"image", "mask_image", "control_image"} & fields.keys():
        fields[name] = STORED
    for control in fields["controls"]:
        for name in control.keys() - Control.model_fields.keys():
            del control[name]  # of an uploaded file, which its name is resolved to again, and of its image
        if "image" in control:
            control["image"] = STORED
    fields["references"] = [STORED] * len(parameters.references)
    for adapter in fields.get("ip_adapters", ()):
        for name in adapter.keys() - IpAdapter.model_fields.keys():
            del adapter[name]  # of an uploaded file, which its name is resolved to again
        adapter["images"] = [STORED] * len(adapter["images"])
        if "mask" in adapter:
            adapter["mask"] = STORED
    for name in fields.get("hires", {}).keys() - Hires.model_fields.keys():
        del fields["hires"][name]  # its size, which follows from the scale
    if parameters.prompt is not None:
        # Jobs of releases that knew no long prompts were truncated.
        fields.setdefault("long_prompt", "truncate")
    known = REQUESTS[parameters.task].model_fields
    return {name: value for name, value in fields.items() if name in known}


def images_of(parameters: JobParameters) -> dict[str, str]:
    """Return what names a job's images in its parameters, such as storage keys, by their paths in its request."""
    keys = {name: getattr(parameters, name) for name in ("image", "mask_image", "control_image")}
    keys |= {
        f"controls.{index}.image": control.source or control.image
        for index, control in enumerate(parameters.controls)
    }
    keys |= {f"references.{index}": reference.image for index, reference in enumerate(parameters.references)}
    for number, adapter in enumerate(parameters.ip_adapters):
        keys |= {f"ip_adapters.{number}.images.{index}": key for index, key in enumerate(adapter.images)}
        keys[f"ip_adapters.{number}.mask"] = adapter.mask
    return {path: key for path, key in keys.items() if key is not None}


def is_mask(path: str) -> bool:
    """Whether the image at a path of a request is a mask, which is named by its stored form."""
    return path == "mask_image" or path.endswith(".mask")


def place_images(fields: dict[str, Any], names: Mapping[str, str]) -> None:
    """Put what names an image in place of its placeholder, for each path; changes `fields`."""
    for path, name in names.items():
        holder: Any = fields
        *steps, last = path.split(".")
        for step in steps:
            holder = holder[int(step)] if isinstance(holder, list) else holder[step]
        holder[int(last) if isinstance(holder, list) else last] = name
