"""Stable Diffusion 3 and 3.5: two CLIP encoders and T5, a transformer on a rectified flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import Call, Encoding, FamilyCode, one_or_all


def arguments(call: Call) -> dict[str, Any]:
    """Arguments of an SD3 pipeline."""
    job = call.job
    return {
        **call.size,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": call.guidance_scale,
        "max_sequence_length": job.max_sequence_length,
        **_BY_MODE[job.mode](call),
    }


def _txt2img(call: Call) -> dict[str, Any]:  # noqa: ARG001
    return {}


def _img2img(call: Call) -> dict[str, Any]:
    return call.start


def _inpaint(call: Call) -> dict[str, Any]:
    return {**call.start, **call.repaint}


def _controlnet(call: Call) -> dict[str, Any]:
    return {"control_image": one_or_all(call.controls), **call.control_weights()}


def _controlnet_inpaint(call: Call) -> dict[str, Any]:
    # The ControlNet itself sees the masked image; there is no other start than noise.
    return {"control_image": call.image, "control_mask": call.mask, **call.control_weights()}


def _negatives(call: Call, settings: Mapping[str, Any]) -> Sequence[str] | None:
    del settings
    if call.guidance_scale <= 1:
        return None
    return call.texts.get("negative_prompt", [""] * len(call.texts["prompt"]))


class _SteadyVae:
    """The VAE as SD3's ControlNet pipelines should see it.

    They sample the control latents from torch's global generator, which would make the image depend on what
    ran before and on its neighbours in a batch. Here a sample is the distribution's mean.
    """

    def __init__(self, vae: Any) -> None:
        self._vae = vae

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def encode(self, pixels: Any) -> Any:
        """As the VAE's own, with a distribution whose sample is its mean."""
        mean = self._vae.encode(pixels).latent_dist.mode
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=mean))


def _adapt(pipeline: Any) -> None:
    if "controlnet" in pipeline.components:
        pipeline.vae = _SteadyVae(pipeline.vae)


_BY_MODE: dict[Mode, Callable[[Call], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.IMG2IMG: _img2img,
    Mode.INPAINT: _inpaint,
    Mode.CONTROLNET: _controlnet,
    Mode.CONTROLNET_INPAINT: _controlnet_inpaint,
}

FAMILY = FamilyCode(
    id="sd3",
    pipelines={
        Mode.TXT2IMG: "StableDiffusion3Pipeline",
        Mode.IMG2IMG: "StableDiffusion3Img2ImgPipeline",
        Mode.INPAINT: "StableDiffusion3InpaintPipeline",
        Mode.CONTROLNET: "StableDiffusion3ControlNetPipeline",
        Mode.CONTROLNET_INPAINT: "StableDiffusion3ControlNetInpaintingPipeline",
    },
    controlnet="SD3ControlNetModel",
    multi_controlnet="SD3MultiControlNetModel",
    denoiser="transformer",
    denoiser_class="SD3Transformer2DModel",
    repeated=("JointTransformerBlock",),
    t5="text_encoder_3",
    encoding=Encoding(
        texts=("prompt", "prompt_2", "prompt_3"),
        options=("clip_skip", "max_sequence_length"),
        negative_options=("max_sequence_length",),
        negatives=_negatives,
        places=(0, 2),
        fixed={"do_classifier_free_guidance": False},
    ),
    arguments=arguments,
    adapt=_adapt,
)
