"""Activations: the values that a pipeline call holds beside the weights, by pixels, prompt tokens and images.

`activation_tables` says how many, component by component. Knows nothing of budgets or placements.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

#: Tokens of one window of CLIP, with its start and end.
_WINDOW_LENGTH = 77


@dataclass(frozen=True)
class WorkloadShape:
    """The sizes of one pipeline call.

    Attributes:
        width, height: pixels of one image.
        images: in the call.
        guided: whether one step denoises each image with and without the prompt at once.
        text_tokens: length of a prompt of T5 or a language model, as the denoiser is given it.
        instruction_tokens: further ones that the text encoder reads before it.
        windows: of CLIP that the longest prompt takes; those beyond the first add 77 tokens each.
        started: whether the images start from an input image.
        masked: whether a mask limits what is generated.
        controls: number of ControlNet images.
        controls_once: whether these come once for each image, not once for each pass.
        reference_pixels: of all reference images together, which the denoiser is given behind each image.
        layers: transparent ones that are decoded of each image, and denoised behind the whole of it; 0: none.
    """

    width: int
    height: int
    images: int = 1
    guided: bool = True
    text_tokens: int = 512
    instruction_tokens: int = 0
    windows: int = 1
    started: bool = False
    masked: bool = False
    controls: int = 0
    controls_once: bool = False
    reference_pixels: int = 0
    layers: int = 0

    @property
    def tokens(self) -> int:
        """Of the sequence that a denoiser is given, beside its first window."""
        return self.text_tokens + _WINDOW_LENGTH * (self.windows - 1)

    @property
    def pixels(self) -> int:
        """Of one image."""
        return self.width * self.height

    @property
    def read_by_encoder(self) -> WorkloadShape:
        """The same, with the tokens of the sequence that a text encoder reads."""
        return replace(self, text_tokens=self.text_tokens + self.instruction_tokens, instruction_tokens=0)

    @property
    def sequence_pixels(self) -> int:
        """Of one image and the references: those whose latents the denoiser is given in each row."""
        return self.frame_pixels + self.reference_pixels

    @property
    def frame_pixels(self) -> int:
        """Of all frames that are denoised of one image."""
        return self.pixels * (1 + self.layers)

    @property
    def decoded(self) -> int:
        """Images that are decoded for each one."""
        return max(1, self.layers)

    @property
    def channels(self) -> int:
        """Values of a pixel of an image or reference."""
        return 4 if self.layers else 3

    @property
    def passes(self) -> int:
        """Rows of an image in the denoiser's batch: 2 with guidance, else 1."""
        return 2 if self.guided else 1

    @property
    def control_rows(self) -> int:
        """Rows of an image's ControlNet images."""
        return 1 if self.controls_once else self.passes

    @property
    def start_values(self) -> int:
        """Values of an image's inputs: the input image, the same without the masked part, and the mask."""
        return self.pixels * (3 * self.started + 4 * self.masked)

    @property
    def control_values(self) -> int:
        """Values of an image's ControlNet images."""
        return 3 * self.pixels * self.controls * self.control_rows


@dataclass(frozen=True)
class ActivationCost:
    """Values alive at one step of a component's run.

    Attributes:
        pixel: for each pixel of each image.
        token: for each T5 token of each image's prompt.
        token_squared: for each pair of tokens, once a call.
        token_pairs: the same, for each image's prompt.
        fixed: for each image.
        layers: values of the weights on the device at this step while they are streamed layer by layer: the layer
            at work and the next one; None: unknown.
        cudnn: whether this is a convolution with the workspace that cuDNN takes for it, which counts on CUDA only.
    """

    pixel: float = 0.0
    token: float = 0.0
    token_squared: float = 0.0
    token_pairs: float = 0.0
    fixed: float = 0.0
    layers: int | None = None
    cudnn: bool = False

    def values(self, shape: WorkloadShape, images: float, pixels: float) -> float:
        """Values for `images` images of `pixels` pixels each, without the weights."""
        each = self.pixel * pixels + self.token * shape.tokens + self.token_pairs * shape.tokens**2 + self.fixed
        return images * each + self.token_squared * shape.tokens**2


@dataclass(frozen=True)
class Retained:
    """Tensors that a call keeps from the first step to the last image.

    Attributes:
        latents: one image's latents, once.
        prompt: one image's prompt embedding, once.
    """

    latents: ActivationCost = ActivationCost()
    prompt: ActivationCost = ActivationCost()

    def values(self, shape: WorkloadShape, images: float) -> float:
        """Values of all copies that the pipelines keep.

        Latents: for each pass the denoiser's input and output, with those of the references, which are also kept
        by themselves; the guided output, the latents before and after the step; those of an input image, its
        noise, its mask. Prompts: for each pass as cached (where the CPU is the device), as passed in, and as
        concatenated.
        """
        latents = 2 * shape.passes + 3 + 2 * (shape.started + shape.masked) + shape.passes * shape.controls
        references = (2 * shape.passes + 1) * shape.reference_pixels
        prompts = self.prompt.values(shape, images * 3 * shape.passes, shape.pixels)
        if not self.prompt.token:
            # A UNet's first window is counted as fixed. Its attention also holds keys and values of the others.
            prompts += self.prompt.fixed * (shape.windows - 1) * images * 5 * shape.passes
        area = latents * shape.frame_pixels + references
        return self.latents.values(shape, images * latents, area / latents) + prompts


@dataclass(frozen=True)
class Activations:
    """Memory of one component beyond its weights; of several costs the largest counts.

    Attributes:
        peaks: while it runs; for a VAE, while it decodes.
        encoding: while a VAE encodes.
        one_adapter, more_adapters: more peaks of a denoiser while one adapter, or several, act on its layers.
        residuals: what a ControlNet returns, which stays until the denoiser has used it.
        retained: what a call keeps beside a denoiser.
        encodes_controls: for a ControlNet, whether the VAE encodes its image first.
        counted: whether this very configuration was counted; else these are another one's, scaled.
    """

    peaks: tuple[ActivationCost, ...] = ()
    encoding: tuple[ActivationCost, ...] = ()
    one_adapter: tuple[ActivationCost, ...] = ()
    more_adapters: tuple[ActivationCost, ...] = ()
    residuals: ActivationCost = ActivationCost()
    retained: Retained = Retained()
    encodes_controls: bool = False
    counted: bool = True


#: Of components whose class is unknown.
UNKNOWN = Activations()


@lru_cache(maxsize=1024)
def without_workspaces(activations: Activations) -> Activations:
    """The same where convolutions do not run in cuDNN."""

    def plain(costs: tuple[ActivationCost, ...]) -> tuple[ActivationCost, ...]:
        return tuple(cost for cost in costs if not cost.cudnn)

    return replace(
        activations,
        peaks=plain(activations.peaks),
        encoding=plain(activations.encoding),
        one_adapter=plain(activations.one_adapter),
        more_adapters=plain(activations.more_adapters),
    )


def peak_values(
    costs: Iterable[ActivationCost], shape: WorkloadShape, images: float, pixels: int | None = None
) -> float:
    """Values at the largest of a component's peaks.

    Args:
        pixels: of one image; None: the shape's.
    """
    area = shape.pixels if pixels is None else pixels
    return max((cost.values(shape, images, area) for cost in costs), default=0.0)
