"""Units of the web UI's ControlNet extension, and the alwayson scripts that hold them. Translates nothing.

Source: `ControlNetUnit` in `internal_controlnet/external_code.py` of https://github.com/Mikubill/sd-webui-controlnet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from app.dialects.a1111.neutral import Off, Only, Text
from app.dialects.a1111.options import without_hash
from app.dialects.a1111.preprocessors import options_of, preprocess_of
from app.dialects.a1111.union_types import UNKNOWN
from contracts.requests.images.fit import Fit
from contracts.requests.strict_model import StrictModel

CONTROLNET = "controlnet"
MAX_UNITS = 10
#: Resize modes of units, as numbers and as words in lower case.
_FITS: Mapping[object, Fit] = {
    0: "stretch", "just resize": "stretch", "resize": "stretch",
    1: "cover", "crop and resize": "cover",
    "inner fit (scale to fit)": "cover", "scale to fit (inner fit)": "cover",
    2: "pad", "resize and fill": "pad", "outer fit (shrink to fit)": "pad", "envelope (outer fit)": "pad",
}  # fmt: skip
_Preprocessing = Annotated[float, Field(ge=-(2**16), le=2**16)]


class A1111UnitImage(StrictModel):
    """An image in the form of the web UI's canvas."""

    image: str = Field(description="The image, in base64.")
    mask: Annotated[Any, Only("", why="a ControlNet acts on the whole image")] | None = Field(
        None, description="Only for compatibility: units have no mask here. Default: none."
    )


class A1111ControlNetUnit(StrictModel):
    """A unit of the ControlNet extension."""

    enabled: bool = Field(True, description="Whether the unit acts. Default: true.")
    model: Text = Field("None", description="Id from `/controlnet/model_list`. Default: none, an error.")
    module: Text = Field(
        "none",
        description="Preprocessor from `/controlnet/module_list`. Default: `none`, `image` is the control image.",
    )
    weight: float = Field(1.0, ge=0, le=2, description="Weight of the ControlNet. Default: 1.")
    image: str | A1111UnitImage | None = Field(
        None,
        description="Control image in base64, or as a `data:` URL. Default: in img2img, its input image.",
    )
    input_image: str | A1111UnitImage | None = Field(None, description="Another name for `image`. Default: none.")
    mask: Annotated[Any, Only("", why="a ControlNet acts on the whole image")] | None = Field(
        None, description="Only for compatibility: units have no mask here. Default: none."
    )
    mask_image: Annotated[Any, Only("", why="a ControlNet acts on the whole image")] | None = Field(
        None, description="Another name for `mask`. Default: none."
    )
    resize_mode: int | Text = Field(
        1,
        description="`Just Resize` (0), `Crop and Resize` (1) or `Resize and Fill` (2): how an image of another "
        "aspect fills the output. Default: 1.",
    )
    guidance_start: float = Field(
        0.0, ge=0, le=1, description="Fraction of the steps after which it starts to act. Default: 0."
    )
    guidance_end: float = Field(
        1.0, ge=0, le=1, description="Fraction of the steps after which it stops acting. Default: 1."
    )
    control_mode: Annotated[
        Any, Only("Balanced", 0, why="a ControlNet and the prompt always have equal influence")
    ] = Field("Balanced", description="Only `Balanced` (0). Default: `Balanced`.")
    guessmode: Annotated[Any, Off("the control mode is always Balanced here")] = Field(
        False, description="Only false: the former name of another control mode. Default: false."
    )
    processor_res: _Preprocessing | None = Field(
        None,
        description="Shorter side of the control image that a preprocessor makes. Default: that of the output.",
    )
    threshold_a: _Preprocessing | None = Field(
        None, description="First slider of the preprocessor. Default, and outside its range: its own."
    )
    threshold_b: _Preprocessing | None = Field(
        None, description="Second slider of the preprocessor. Default, and outside its range: its own."
    )
    pixel_perfect: bool = Field(
        False, description="Whether to use the output's resolution instead of `processor_res`. Default: false."
    )
    low_vram: bool = Field(False, description="Only for compatibility: workers plan their memory. Default: false.")
    lowvram: bool = Field(False, description="Another name for `low_vram`. Default: false.")
    union_control_type: Text = Field(
        UNKNOWN,
        description="Kind of control, for a union: `OpenPose`, `Depth`, `Soft Edge`, `Hard Edge`, `Normal Map`, "
        "`Segmentation`, `Tile`, `Inpaint`, or a name in its `modes`. Default: `Unknown`, an error with a union.",
    )
    hr_option: Text = Field("Both", description="Read with `enable_hr` only. Default: `Both`.")
    save_detected_map: Annotated[Any, Off("control images are not returned")] = Field(
        False, description="Only false: control images are not returned. Default: false."
    )

    @field_validator("resize_mode")
    @classmethod
    def _resize_mode_is_known(cls, mode: int | str) -> int | str:
        if _fold(mode) not in _FITS:
            raise ValueError(f"must be 'Just Resize', 'Crop and Resize' or 'Resize and Fill', got {mode!r}")
        return mode

    @property
    def controlnet(self) -> str:
        """Id of its ControlNet."""
        return without_hash(self.model)

    @property
    def fit(self) -> Fit:
        """How its image fills the output."""
        return _FITS[_fold(self.resize_mode)]

    @property
    def source(self) -> str:
        """Its control image; empty where it has none of its own."""
        image = self.image or self.input_image or ""
        return image.image if isinstance(image, A1111UnitImage) else image

    @property
    def preprocess(self) -> str | None:
        """Our name of its preprocessor; None where the image is the control image itself."""
        return preprocess_of(self.module)

    @property
    def preprocess_options(self) -> dict[str, float] | None:
        """Our options of its preprocessor."""
        resolution = None if self.pixel_perfect else self.processor_res
        return options_of(self.module, resolution, (self.threshold_a, self.threshold_b)) or None


def _fold(mode: int | str) -> object:
    return mode.strip().lower() if isinstance(mode, str) else mode


class A1111ControlNet(StrictModel):
    """Arguments of the ControlNet extension."""

    args: Annotated[list[A1111ControlNetUnit], Field(max_length=MAX_UNITS)] = Field(
        default_factory=list, description="The units; those that are not `enabled` are left out. Default: none."
    )


class A1111AlwaysonScripts(StrictModel):
    """Scripts that are always on; only ControlNet is supported."""

    controlnet: A1111ControlNet = Field(
        default_factory=A1111ControlNet,
        description="Units of ControlNet; the name may be in any case. Default: none.",
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_scripts_that_are_off(cls, scripts: Any) -> Any:
        """Give ControlNet its one name, and leave out scripts with no arguments, or that are switched off."""
        if not isinstance(scripts, dict):
            return scripts
        named: dict[Any, Any] = {}
        for name, script in scripts.items():
            if isinstance(name, str) and name.lower() == CONTROLNET:
                if CONTROLNET in named:
                    raise ValueError("has ControlNet more than once; send it once")
                named[CONTROLNET] = script
            elif not _is_off(script):
                named[name] = script
        return named

    @property
    def units(self) -> tuple[tuple[int, A1111ControlNetUnit], ...]:
        """The units that act, with their numbers in the request."""
        return tuple((number, unit) for number, unit in enumerate(self.controlnet.args) if unit.enabled)


def _is_off(script: Any) -> bool:
    """Whether a script has no arguments, or false as its first: `enabled` of most of them."""
    args = script.get("args", []) if isinstance(script, dict) and script.keys() <= {"args"} else None
    return isinstance(args, list) and (not args or args[0] is False)


class A1111DetectRequest(StrictModel):
    """Images from which a preprocessor makes control images."""

    controlnet_module: Text = Field(
        "none",
        description="Preprocessor from `/controlnet/module_list`. Default: `none`, which changes nothing.",
    )
    controlnet_images: Annotated[list[str], Field(min_length=1, max_length=4)] = Field(
        description="The images, in base64 or as `data:` URLs."
    )
    controlnet_processor_res: _Preprocessing = Field(
        512, description="Shorter side of the control images in pixels. Default: 512."
    )
    controlnet_threshold_a: _Preprocessing | None = Field(
        None, description="First slider of the preprocessor. Default, and outside its range: its own."
    )
    controlnet_threshold_b: _Preprocessing | None = Field(
        None, description="Second slider of the preprocessor. Default, and outside its range: its own."
    )
    controlnet_masks: Annotated[Any, Only([], why="a ControlNet acts on the whole image")] = Field(
        [], description="Only empty. Default: empty."
    )
    low_vram: bool = Field(False, description="Only for compatibility: workers plan their memory. Default: false.")

    @property
    def options(self) -> dict[str, float]:
        """Our options of its preprocessor."""
        thresholds = (self.controlnet_threshold_a, self.controlnet_threshold_b)
        return options_of(self.controlnet_module, self.controlnet_processor_res, thresholds)
