"""Fields of the web UI's requests. What it has and this service lacks may only have values that ask for nothing.

Source: `modules/processing.py` and `modules/api/models.py` of https://github.com/AUTOMATIC1111/stable-diffusion-webui.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from app.dialects.a1111.controlnet import A1111AlwaysonScripts
from app.dialects.a1111.neutral import Off, Only, Text
from app.dialects.a1111.options import A1111OptionsRequest
from contracts.requests.entries import MAX_STEPS
from contracts.requests.fields import MAX_SEED, Prompt, Side
from contracts.requests.images.image_fields import MaskBlur, MaskCrop
from contracts.requests.strict_model import StrictModel

_Name = Annotated[str, Field(max_length=128)]
_Count = Annotated[int, Field(ge=1, le=8)]
_Number = Annotated[float, Field(ge=-(2**32), le=2**32)]
_NO_NOISE = "sampling noise is not changed here"
_NO_SCRIPTS = "no scripts run here"


class A1111Request(StrictModel):
    """The fields of both calls. Null counts as absent."""

    prompt: Prompt = Field(
        description="What the image shows, in the web UI's syntax; `<lora:NAME:SCALE>` applies a LoRA."
    )
    negative_prompt: Annotated[str, Field(max_length=10_000)] = Field(
        "", description="What the image should not show. Default: empty."
    )
    width: Side | None = Field(
        None, description="Width in pixels. Default: the model's own; in img2img the image's."
    )
    height: Side | None = Field(
        None, description="Height in pixels. Default: the model's own; in img2img the image's."
    )
    seed: int = Field(-1, ge=-1, le=MAX_SEED, description="Seed of the first image; -1 draws one. Default: -1.")
    steps: int | None = Field(None, ge=1, le=MAX_STEPS, description="Number of steps. Default: the model's own.")
    cfg_scale: float | None = Field(
        None, ge=0, le=30, description="How closely the image follows the prompt. Default: the model's own."
    )
    sampler_name: _Name = Field(
        "", description="Name from `/sdapi/v1/samplers`. Default: the model's own sampler."
    )
    sampler_index: _Name = Field("", description="Read if `sampler_name` is absent. Default: none.")
    scheduler: _Name = Field(
        "automatic",
        description="Schedule type from `/sdapi/v1/schedulers`. Default: `automatic`, the sampler's own.",
    )
    batch_size: _Count = Field(1, description="Number of images, times `n_iter`: 8 at most together. Default: 1.")
    n_iter: _Count = Field(1, description="Number of images, times `batch_size`. Default: 1.")
    override_settings: A1111OptionsRequest = Field(
        default_factory=A1111OptionsRequest,
        description="Options for this call, before those of `POST /sdapi/v1/options`: `sd_model_checkpoint` "
        "chooses the model. Default: none.",
    )
    override_settings_restore_afterwards: bool = Field(
        True, description="False needs `override_settings` to be empty: they act on this call only. Default: true."
    )
    alwayson_scripts: A1111AlwaysonScripts = Field(
        default_factory=A1111AlwaysonScripts,
        description="ControlNet units; other scripts only without arguments. Default: none.",
    )
    send_images: bool = Field(True, description="Whether the answer has the images. Default: true.")
    save_images: bool = Field(
        False, description="Only for compatibility: images are kept with their job either way. Default: false."
    )
    do_not_save_samples: bool = Field(
        False, description="Only for compatibility, as `save_images`. Default: false."
    )
    do_not_save_grid: bool = Field(
        False, description="Only for compatibility: grids are not made. Default: false."
    )
    force_task_id: Annotated[str, Field(max_length=256)] = Field(
        "",
        description="Stored as `force_task_id` in the job's metadata, by which jobs can be found. Default: none.",
    )
    denoising_strength: float | None = Field(
        None,
        ge=0,
        le=1,
        description="In img2img, and in a second pass, the fraction of the steps that is run. Default: 0.75.",
    )
    eta: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Noise of some samplers; only the sampler's own value. Default: the sampler's own.",
    )
    restore_faces: Annotated[Any, Off("faces are not restored")] = Field(
        False, description="Only false. Default: false."
    )
    tiling: Annotated[Any, Off("images do not tile")] = Field(False, description="Only false. Default: false.")
    styles: Annotated[Any, Only([], why="styles are not supported; write them into the prompt")] = Field(
        [], description="Only empty: styles are not supported. Default: empty."
    )
    script_name: Annotated[Any, Only("", "None", why=_NO_SCRIPTS)] = Field(
        "", description="Only empty: no scripts. Default: none."
    )
    script_args: Annotated[Any, Only([], why=_NO_SCRIPTS)] = Field(
        [], description="Only empty: no scripts. Default: empty."
    )
    subseed: int = Field(-1, ge=-1, le=MAX_SEED, description="Read with `subseed_strength` only. Default: -1.")
    subseed_strength: Annotated[Any, Only(0, why="seeds are not mixed")] = Field(
        0, description="Only 0. Default: 0."
    )
    seed_resize_from_h: Annotated[Any, Only(0, -1, why="noise is not resized")] = Field(
        0, description="Only 0 or -1. Default: 0."
    )
    seed_resize_from_w: Annotated[Any, Only(0, -1, why="noise is not resized")] = Field(
        0, description="Only 0 or -1. Default: 0."
    )
    s_churn: Annotated[Any, Only(0, why=_NO_NOISE)] = Field(0, description="Only 0. Default: 0.")
    s_tmin: Annotated[Any, Only(0, why=_NO_NOISE)] = Field(0, description="Only 0. Default: 0.")
    s_tmax: Annotated[Any, Only(0, why=_NO_NOISE)] = Field(0, description="Only 0. Default: 0.")
    s_noise: Annotated[Any, Only(1, why=_NO_NOISE)] = Field(1, description="Only 1. Default: 1.")
    s_min_uncond: Annotated[Any, Only(0, why="no step is run without guidance")] = Field(
        0, description="Only 0. Default: 0."
    )
    disable_extra_networks: Annotated[Any, Off("write the prompt without its LoRAs")] = Field(
        False, description="Only false. Default: false."
    )
    refiner_checkpoint: Text = Field(
        "", description="Title of the model that runs the last steps; empty or `None` for none. Default: none."
    )
    refiner_switch_at: _Number | None = Field(
        None, description="Fraction of the noise schedule after which it takes over. Default: 0.8."
    )
    comments: Annotated[Any, Only({}, why="images have no comments")] = Field(
        {}, description="Only empty. Default: empty."
    )
    infotext: Annotated[Any, Only("", why="fields are read from the request itself")] = Field(
        "", description="Only empty. Default: empty."
    )
    enable_hr: Annotated[Any, Only(True, False, 0, 1, why="it is a switch")] = Field(
        False, description="In txt2img: enlarge the images and refine them in a second pass. Default: false."
    )
    firstphase_width: _Number = Field(0, description="With `enable_hr` only 0. Default: 0.")
    firstphase_height: _Number = Field(0, description="With `enable_hr` only 0. Default: 0.")
    hr_scale: _Number = Field(2, description="How many times as wide and high they become. Default: 2.")
    hr_upscaler: Text = Field("", description="`Latent`, or a name from `/sdapi/v1/upscalers`. Default: `Latent`.")
    hr_second_pass_steps: int = Field(
        0, ge=0, le=MAX_STEPS, description="Steps of the second pass; 0: as many as `steps`. Default: 0."
    )
    hr_resize_x: _Number = Field(0, description="With `enable_hr` only 0. Default: 0.")
    hr_resize_y: _Number = Field(0, description="With `enable_hr` only 0. Default: 0.")
    hr_checkpoint_name: Text = Field("", description="With `enable_hr` only as in the first pass. Default: that.")
    hr_sampler_name: Text = Field("", description="With `enable_hr` only as in the first pass. Default: that.")
    hr_scheduler: Text = Field("", description="With `enable_hr` only as in the first pass. Default: that.")
    hr_prompt: Annotated[str, Field(max_length=10_000)] = Field(
        "", description="With `enable_hr` only as in the first pass. Default: that."
    )
    hr_negative_prompt: Annotated[str, Field(max_length=10_000)] = Field(
        "", description="With `enable_hr` only as in the first pass. Default: that."
    )

    @property
    def sampler(self) -> str:
        """The sampler that is asked for; empty: the model's own."""
        return self.sampler_name or self.sampler_index


class A1111Txt2ImgRequest(A1111Request):
    """An image from a prompt."""


class A1111Img2ImgRequest(A1111Request):
    """An image from a prompt and an image; with a mask only what is white in it changes."""

    init_images: Annotated[tuple[str, ...], Field(min_length=1, max_length=1)] = Field(
        description="The image that the result starts from, in base64 or as a `data:` URL; one."
    )
    mask: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Mask as large as the image: white is regenerated. Default: the whole image is."
    )
    mask_blur: MaskBlur = Field(4, description="Radius in pixels by which the mask's edge is blurred. Default: 4.")
    mask_blur_x: Annotated[Any, Only(4, why="send mask_blur, which blurs both ways")] = Field(
        4, description="Only 4. Default: 4."
    )
    mask_blur_y: Annotated[Any, Only(4, why="send mask_blur, which blurs both ways")] = Field(
        4, description="Only 4. Default: 4."
    )
    mask_round: bool = Field(
        True, description="Only for compatibility: masks keep their soft edge. Default: true."
    )
    inpainting_fill: Annotated[
        Any, Only(0, 1, why="masked parts start from their surroundings (0) or from the image itself (1)")
    ] = Field(
        0, description="What the masked part starts from: its surroundings (0) or the image (1). Default: 0."
    )
    inpaint_full_res: Annotated[Any, Only(True, False, 0, 1, why="it is a switch")] = Field(
        True, description="Generate only the bounding box of the mask, at full resolution. Default: true."
    )
    inpaint_full_res_padding: MaskCrop = Field(
        0, description="Pixels around that box, with `inpaint_full_res` only. Default: 0."
    )
    inpainting_mask_invert: Annotated[Any, Only(True, False, 0, 1, why="it is a switch")] = Field(
        False, description="Whether black is regenerated instead of white. Default: false."
    )
    resize_mode: Annotated[
        Any, Only(0, 1, 2, why="images are stretched (0), cropped (1) or padded (2), and latents are not upscaled")
    ] = Field(
        0, description="How an image of another aspect fills the output: 0 stretch, 1 crop, 2 pad. Default: 0."
    )
    image_cfg_scale: Annotated[Any, Only(1.5, why="only models that edit by instruction read it")] = Field(
        1.5, description="Only 1.5: read by models that edit by instruction. Default: 1.5."
    )
    initial_noise_multiplier: Annotated[Any, Only(1, why=_NO_NOISE)] = Field(1, description="Only 1. Default: 1.")
    latent_mask: Annotated[Any, Only("", why="send mask")] = Field("", description="Only empty. Default: none.")
    include_init_images: Annotated[Any, Off("parameters of the answer have no images")] = Field(
        False, description="Only false: the answer does not repeat images. Default: false."
    )
