"""How many values are held beside the weights while a call works: linear in pixels and prompt tokens.

`moments.py` says how many, class by class. Knows nothing of budgets or placements.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class WorkloadShape:
    """What is painted in one pipeline call.

    Attributes:
        width, height: pixels of one image.
        images: in the call.
        guided: whether one step denoises every image with and without the prompt at once.
        text_tokens: length of a T5 prompt.
        started: whether the images begin with a picture.
        masked: whether a mask says what of it is painted anew.
        controls: pictures for ControlNets.
    """

    width: int
    height: int
    images: int = 1
    guided: bool = True
    text_tokens: int = 512
    started: bool = False
    masked: bool = False
    controls: int = 0

    @property
    def pixels(self) -> int:
        """Of one image."""
        return self.width * self.height

    @property
    def passes(self) -> int:
        """Times that one image goes through the denoiser at once."""
        return 2 if self.guided else 1

    @property
    def start_values(self) -> int:
        """What an image starts from, kept throughout: a picture, the same without the masked part, the mask."""
        return self.pixels * (3 * self.started + 4 * self.masked)

    @property
    def control_values(self) -> int:
        """The pictures for ControlNets, once for each pass."""
        return 3 * self.pixels * self.controls * self.passes


@dataclass(frozen=True)
class ActivationCost:
    """Values that one image takes at one moment of a component's work.

    Attributes:
        pixel: for each of its pixels.
        token: for each T5 token of its prompt.
        token_squared: for each pair of them; once a call, not once an image.
        fixed: whatever its size.
        layers: of the weights that are there at that moment where they come layer by layer: of the layer at work
            and the next one; None: as many as at any.
    """

    pixel: float = 0.0
    token: float = 0.0
    token_squared: float = 0.0
    fixed: float = 0.0
    layers: int | None = None

    def values(self, shape: WorkloadShape, images: float, pixels: int) -> float:
        """Of so many images of so many pixels, without the weights."""
        each = self.pixel * pixels + self.token * shape.text_tokens + self.fixed
        return images * each + self.token_squared * shape.text_tokens**2


@dataclass(frozen=True)
class Retained:
    """What a call keeps of its prompts and its latents from the first step to the last image.

    Attributes:
        latents: one image's, once.
        prompt: its embedding, once.
    """

    latents: ActivationCost = ActivationCost()
    prompt: ActivationCost = ActivationCost()

    def values(self, shape: WorkloadShape, images: float) -> float:
        """Latents: for each pass those that go in and what comes out; the sum of it, those before and after.

        Those of a picture to start from, its noise, its mask. Prompts: for each pass as they are remembered (where
        the CPU is the device), as they are given, and as the passes have them together.
        """
        latents = 2 * shape.passes + 3 + 2 * (shape.started + shape.masked) + shape.passes * shape.controls
        kept = self.latents.values(shape, images * latents, shape.pixels)
        return kept + self.prompt.values(shape, images * 3 * shape.passes, shape.pixels)


#: For components that have neither.
NO_WORK, NOTHING_HELD = ActivationCost(), Retained()


def peak_values(
    moments: Iterable[ActivationCost], shape: WorkloadShape, images: float, pixels: int | None = None
) -> float:
    """Values at the worst of a component's moments; `pixels` of one image, unless they are the shape'."""
    area = shape.pixels if pixels is None else pixels
    return max((moment.values(shape, images, area) for moment in moments), default=0.0)
