"""What Darkroom makes equals, bit for bit, what a call of diffusers' pipeline makes with the same parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES, Mode
from contracts.storage import Storage
from tests.support.bare_diffusers import paint
from tests.support.combinations import ALL
from tests.support.jobs import INPUT_IMAGES, generate_pixels, make_job, model_of
from tests.support.trained import TRAINED_FAMILIES
from worker.pool.pool import Pool

IMAGE, MASK, CONTROL = (INPUT_IMAGES[f"inputs/{name}.png"] for name in ("image", "mask", "control"))
TEXTS = {"prompt": "a red circle", "negative_prompt": "a blue square"}
SIZE = {"width": 64, "height": 64}
START = {"image": IMAGE, "strength": 0.8}
CONTROL_FIELDS = {"conditioning_scale": 0.7, "guidance_start": 0.1, "guidance_end": 0.9}
CONTROL_CALL = {
    "controlnet_conditioning_scale": 0.7, "control_guidance_start": 0.1, "control_guidance_end": 0.9,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One request of Darkroom's, and the call of diffusers' that it stands for.

    Attributes:
        fields: of the request, beside its texts, steps and images.
        settings: entries of the scheduler's configuration that the call changes.
        pipeline: class in diffusers.
        call: what the call has beside texts and steps.
    """

    family: str
    mode: Mode
    pipeline: str
    call: Mapping[str, Any]
    fields: Mapping[str, Any] = field(default_factory=dict)
    scheduler: str = "euler"
    steps: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.family} {self.mode} {self.scheduler}"


#: Sizes and captions as they are given.
_EXACT = {"use_resolution_binning": False, "clean_caption": False}


def _sd15(mode: Mode, name: str, scheduler: str, call: Mapping[str, Any], **fields: Any) -> Case:
    guidance = {"guidance_scale": 5.0}
    steps = 4 if "controlnet" in mode else 3  # of fewer, none is in the ControlNet's range
    call, fields = {**call, **guidance}, {**fields, **guidance}
    return Case("sd15", mode, f"StableDiffusion{name}Pipeline", call, fields, scheduler, steps)


def _t5(
    family: str, mode: Mode, name: str, scheduler: str, call: Any = MappingProxyType({}), **fields: Any
) -> Case:
    both = {"guidance_scale": 4.0, "max_sequence_length": 64}
    return Case(family, mode, f"{name}Pipeline", {**SIZE, **call, **both}, {**fields, **both}, scheduler)


def _z_image(mode: Mode, name: str, scheduler: str, call: Any = MappingProxyType({}), **fields: Any) -> Case:
    both = {"guidance_scale": 3.0, "max_sequence_length": 64, **fields.pop("both", {})}
    scale = {name: value for name, value in CONTROL_CALL.items() if "scale" in name and "controlnet" in mode}
    return Case(
        "z-image", mode, f"ZImage{name}Pipeline", {**SIZE, **call, **scale, **both}, {**fields, **both}, scheduler
    )


def _qwen(mode: Mode, name: str, scheduler: str, call: Any = MappingProxyType({}), **fields: Any) -> Case:
    both = {"true_cfg_scale": 3.0, "max_sequence_length": 64, **fields.pop("both", {})}
    pipeline = f"QwenImage{name}Pipeline"
    return Case("qwen-image", mode, pipeline, {**SIZE, **call, **both}, {**fields, **both}, scheduler, 3)


def _lumina2(scheduler: str, guidance_scale: float) -> Case:
    both = {"guidance_scale": guidance_scale, "max_sequence_length": 256}
    texts = {"negative_prompt": TEXTS["negative_prompt"] if guidance_scale > 1 else None}
    return Case("lumina2", Mode.TXT2IMG, "Lumina2Pipeline", {**SIZE, **both, **texts}, both | texts, scheduler, 2)


def _sana(mode: Mode, name: str, guidance_scale: float = 3.0, **call: Any) -> Case:
    both: dict[str, Any] = {"guidance_scale": guidance_scale, "max_sequence_length": 32}
    both |= {"negative_prompt": TEXTS["negative_prompt"] if guidance_scale > 1 else None}
    if mode is Mode.CONTROLNET:
        call["controlnet_conditioning_scale"] = CONTROL_FIELDS["conditioning_scale"]
    call |= {**SIZE, **_EXACT, **both}
    return Case("sana", mode, f"Sana{name}Pipeline", call, both, "flow_dpmpp_2m", 3)


def _hunyuandit(mode: Mode, name: str, scheduler: str, **more: Any) -> Case:
    both: dict[str, Any] = {"guidance_scale": 4.0, "guidance_rescale": 0.5}
    call: dict[str, Any] = {**SIZE, "use_resolution_binning": False, **both, **more}
    if mode is Mode.CONTROLNET:
        call["controlnet_conditioning_scale"] = CONTROL_FIELDS["conditioning_scale"]
    return Case("hunyuandit", mode, f"HunyuanDiT{name}Pipeline", call, both, scheduler)


def _kolors(mode: Mode, name: str, **call: Any) -> Case:
    both: dict[str, Any] = {"guidance_scale": 4.0, "original_size": (64, 48)}
    fields = {**both, **({"strength": 0.8} if mode is Mode.IMG2IMG else SIZE)}
    return Case("kolors", mode, f"Kolors{name}Pipeline", {**both, **call}, fields)


def _ovis(guidance_scale: float) -> Case:
    both: dict[str, Any] = {"guidance_scale": guidance_scale, "max_sequence_length": 64}
    both |= {"negative_prompt": TEXTS["negative_prompt"] if guidance_scale > 1 else None}
    return Case("ovis-image", Mode.TXT2IMG, "OvisImagePipeline", {**SIZE, **both}, both, "flow_euler", 3)


def _auraflow(scheduler: str, guidance_scale: float, **settings: Any) -> Case:
    both: dict[str, Any] = {"guidance_scale": guidance_scale, "max_sequence_length": 64}
    both |= {"negative_prompt": TEXTS["negative_prompt"] if guidance_scale > 1 else None}
    call = {**SIZE, **both}
    return Case("auraflow", Mode.TXT2IMG, "AuraFlowPipeline", call, both, scheduler, settings=settings)


def _deepfloyd(mode: Mode, name: str, scheduler: str, call: Any = SIZE, **fields: Any) -> Case:
    both: dict[str, Any] = {"guidance_scale": fields.pop("guidance_scale", 4.0)}
    both |= {"negative_prompt": TEXTS["negative_prompt"] if both["guidance_scale"] > 1 else None}
    given = fields.get("dynamic_thresholding", {})
    settings = {"dynamic_thresholding_ratio": given.get("ratio"), "sample_max_value": given.get("max_value")}
    return Case(
        "deepfloyd", mode, f"IF{name}Pipeline", {**call, **both, "clean_caption": False}, {**fields, **both},
        scheduler, settings={name: value for name, value in settings.items() if value is not None},
    )  # fmt: skip


def _flux2(mode: Mode, **call: Any) -> Case:
    both = {"guidance_scale": 3.0, "max_sequence_length": 96}
    fields = {**both, **SIZE, "negative_prompt": None}
    return Case("flux2", mode, "Flux2Pipeline", {**SIZE, **call, **both}, fields, "flow_euler", 2)


CASES = [
    _sd15(Mode.TXT2IMG, "", "pndm", SIZE | {"guidance_rescale": 0.5}, guidance_rescale=0.5),
    _sd15(Mode.TXT2IMG, "", "euler_a", SIZE | {"clip_skip": 1}, clip_skip=1),
    _sd15(Mode.IMG2IMG, "Img2Img", "dpmpp_2m_karras", START, strength=0.8),
    _sd15(Mode.INPAINT, "Inpaint", "euler", START | SIZE | {"mask_image": MASK}, strength=0.8, mask_blur=0),
    _sd15(Mode.CONTROLNET, "ControlNet", "euler", {"image": CONTROL, **SIZE, **CONTROL_CALL}),
    _sd15(
        Mode.CONTROLNET_IMG2IMG, "ControlNetImg2Img", "pndm", START | {"control_image": CONTROL, **CONTROL_CALL},
        strength=0.8,
    ),
    _sd15(
        Mode.CONTROLNET_INPAINT, "ControlNetInpaint", "euler_a",
        START | SIZE | {"mask_image": MASK, "control_image": CONTROL, **CONTROL_CALL}, strength=0.8, mask_blur=0,
    ),
    _t5("pixart", Mode.TXT2IMG, "PixArtSigma", "dpmpp_2m", _EXACT),
    _t5("chroma", Mode.TXT2IMG, "Chroma", "flow_euler"),
    _t5("chroma", Mode.IMG2IMG, "ChromaImg2Img", "flow_euler", START, strength=0.8),
    _t5(
        "chroma", Mode.INPAINT, "ChromaInpaint", "flow_euler", START | {"mask_image": MASK},
        strength=0.8, mask_blur=0,
    ),
    _z_image(Mode.TXT2IMG, "", "flow_euler"),
    _z_image(Mode.TXT2IMG, "", "flow_euler", both={"guidance_scale": 0.0, "negative_prompt": ""}),
    _z_image(Mode.IMG2IMG, "Img2Img", "flow_euler", START, strength=0.8),
    _z_image(Mode.INPAINT, "Inpaint", "flow_euler", START | {"mask_image": MASK}, strength=0.8, mask_blur=0),
    _z_image(Mode.CONTROLNET, "ControlNet", "flow_euler", {"control_image": CONTROL}),
    _z_image(
        Mode.CONTROLNET_INPAINT, "ControlNetInpaint", "flow_euler",
        {"control_image": CONTROL, "image": IMAGE, "mask_image": MASK}, mask_blur=0,
    ),
    _lumina2("flow_euler", 3.0),
    _lumina2("flow_euler", 1.0),
    _sana(Mode.TXT2IMG, ""),
    _sana(Mode.TXT2IMG, "", 1.0),
    _sana(Mode.CONTROLNET, "ControlNet", control_image=CONTROL),
    _hunyuandit(Mode.TXT2IMG, "", "ddim"),
    _hunyuandit(Mode.CONTROLNET, "ControlNet", "ddim", control_image=CONTROL),
    _kolors(Mode.TXT2IMG, "", **SIZE),
    _kolors(Mode.IMG2IMG, "Img2Img", **START),
    _auraflow("flow_euler", 3.0),
    _auraflow("flow_euler", 1.0),
    _auraflow(
        "flow_dpmpp_2m", 3.0, use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=1.73
    ),
    _ovis(3.0),
    _ovis(1.0),
    _deepfloyd(Mode.TXT2IMG, "", "ddpm"),
    _deepfloyd(Mode.TXT2IMG, "", "ddpm", guidance_scale=1.0),
    _deepfloyd(Mode.TXT2IMG, "", "ddpm_dpmpp_2m", dynamic_thresholding={"ratio": 0.8, "max_value": 3.0}),
    _deepfloyd(Mode.IMG2IMG, "Img2Img", "ddpm", START, strength=0.8),
    _deepfloyd(
        Mode.INPAINT, "Inpainting", "ddpm", START | {"mask_image": MASK}, strength=0.8, mask_blur=0,
        dynamic_thresholding={"max_value": 1.0},
    ),
    _flux2(Mode.TXT2IMG),
    _flux2(Mode.EDIT, image=[INPUT_IMAGES["inputs/reference.png"]]),
    _qwen(Mode.TXT2IMG, "", "flow_euler"),
    _qwen(Mode.TXT2IMG, "", "flow_euler", both={"true_cfg_scale": 1.0, "negative_prompt": None}),
    _qwen(Mode.IMG2IMG, "Img2Img", "flow_euler", START, strength=0.8),
    _qwen(Mode.INPAINT, "Inpaint", "flow_euler", START | {"mask_image": MASK}, strength=0.8, mask_blur=0),
    _qwen(Mode.CONTROLNET, "ControlNet", "flow_euler", {"control_image": CONTROL, **CONTROL_CALL}),
    _qwen(
        Mode.CONTROLNET_INPAINT, "ControlNetInpaint", "flow_euler",
        {"control_image": IMAGE, "control_mask": MASK, **CONTROL_CALL}, mask_blur=0,
    ),
]  # fmt: skip
#: Of schedulers that differ in nothing that the families know: they are compared in `test_host_timesteps.py`.
if ALL:
    CASES += [
        *(_sd15(Mode.TXT2IMG, "", scheduler, SIZE) for scheduler in ("lcm", "tcd", "euler_trailing")),
        _t5("pixart", Mode.TXT2IMG, "PixArtSigma", "euler_a", _EXACT),
        _hunyuandit(Mode.TXT2IMG, "", "dpmpp_2m"),
    ]


def _agreeing(pipeline: Any) -> None:
    """Where the installed diffusers asks its models, or those of transformers, for what they no longer have."""
    if isinstance(pipeline, diffusers.ChromaInpaintPipeline):
        pipeline.transformer.register_to_config(guidance_embeds=False)
    elif isinstance(
        pipeline, diffusers.QwenImageControlNetInpaintPipeline | diffusers.HunyuanDiTControlNetPipeline
    ):
        # They draw the latents of the control image from the generator of the whole process.
        pipeline.vae.encode = _means_only(pipeline.vae.encode)
    elif isinstance(pipeline, diffusers.StableDiffusionPipeline):
        object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)


def _means_only(encode: Any) -> Any:
    def call(pixels: Any) -> Any:
        encoded = encode(pixels)
        encoded.latent_dist.sample = encoded.latent_dist.mode
        return encoded

    return call


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_image_equals_that_of_bare_diffusers(
    case: Case, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    fields: dict[str, Any] = {**TEXTS, **case.fields}
    fields = {name: value for name, value in fields.items() if name != "negative_prompt" or case.family != "flux2"}
    controlnet = None
    if "controlnet" in case.mode:
        row = catalogue.controlnet(f"{case.family}-{'mask' if 'control_mask' in case.call else 'hint'}")
        controlnet = getattr(diffusers, FAMILIES[case.family].controlnet).from_pretrained(row.source)
        ranged = FAMILIES[case.family].control_ranges
        fields["control_fields"] = CONTROL_FIELDS if ranged else {"conditioning_scale": 0.7}
    fields["num_inference_steps"] = case.steps
    job = make_job(catalogue, case.family, case.mode, scheduler=case.scheduler, **fields)

    ours = generate_pixels(job, pool, storage)

    theirs = paint(
        Path(catalogue.model(model_of(catalogue, case.family)).source),
        case.pipeline,
        {**{name: text for name, text in TEXTS.items() if name in fields}, "num_inference_steps": case.steps}
        | dict(case.call),
        scheduler=case.scheduler,
        seed=7,
        controlnet=controlnet,
        settings=case.settings,
        prepare=_agreeing,
    )
    if case.call.keys() & {"mask_image", "control_mask"}:  # what the mask leaves black is the input's
        theirs = Image.composite(theirs, IMAGE, MASK)
    assert np.array_equal(ours, np.asarray(theirs))


def test_every_mode_of_every_untrained_family_is_compared() -> None:
    prompted = [family for family in FAMILIES.values() if not family.prompted_by_class]  # others: `test_dit.py`
    every = {(family.id, mode) for family in prompted for mode in family.modes}
    assert {(case.family, case.mode) for case in CASES} == {
        (family, mode) for family, mode in every if family not in TRAINED_FAMILIES
    }
