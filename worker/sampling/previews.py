"""Previews of a running batch: small JPEGs of what the model believes the image to be, made from its latents.

A linear map from latents to colours stands in for the VAE. It is fitted to the VAE itself, once a model, on
patches of random colour: so any checkpoint's previews have its own colours. Only that map's few operations are
queued on the painting thread; fetching, JPEG and Redis are another thread's. Changes nothing about the image.
"""

from __future__ import annotations

import base64
import functools
import io
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from contracts.catalogue.schedulers import Kind
from contracts.queue.events import Preview

_log = logging.getLogger(__name__)

#: Longest side of a preview in pixels, and its JPEG quality: 3 to 10 kB each.
MAX_SIDE = 256
_QUALITY = 75
#: The fit looks at so many pictures of this side, each of 4 × 4 patches.
_PICTURES, _SIDE, _PATCHES = 16, 64, 4

#: Called, in a thread of ours, with the index of a job in the batch and one preview of one of its images.
Show = Callable[[int, Preview], None]


@dataclass(frozen=True)
class Projection:
    """Latents (channels, as the denoiser knows them) -> colours 0 to 1: `latents @ matrix + bias`."""

    matrix: torch.Tensor
    bias: torch.Tensor

    def apply(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (n, channels, h, w) as pixels (n, h, w, 3), uint8, on the latents' device."""
        colours = latents.movedim(1, -1).float() @ self.matrix + self.bias
        return (colours.clamp(0, 1) * 255).round().to(torch.uint8)


@torch.inference_mode()
def fit(vae: Any) -> Projection:
    """The map with the least squared error on what the VAE makes of random colours."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(_PICTURES, 3, _PATCHES, _PATCHES, generator=generator)
    pixels = torch.nn.functional.interpolate(patches, size=_SIDE, mode="nearest")
    latents = _encode(vae, pixels * 2 - 1).float()
    colours = torch.nn.functional.interpolate(pixels, size=latents.shape[-2:], mode="area").to(latents.device)
    known = latents.movedim(1, -1).flatten(0, -2)
    known = torch.cat([known, torch.ones_like(known[:, :1])], dim=1)
    # On the CPU in float64: what a fit costs there is less than what a device's solver needs to load.
    wanted = colours.movedim(1, -1).flatten(0, -2)
    solved = torch.linalg.lstsq(known.double().cpu(), wanted.double().cpu()).solution.float().to(latents.device)
    return Projection(matrix=solved[:-1], bias=solved[-1])


def _encode(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Latents as the denoiser knows them, without drawing from any generator."""
    dtype = vae.dtype
    # SDXL's VAE overflows in float16; the pipelines lift it for as long as it runs, and so does this.
    lift = dtype == torch.float16 and vae.config.force_upcast
    if lift:
        vae.to(torch.float32)
    try:
        device = next(vae.parameters()).device
        latents = vae.encode(pixels.to(device, vae.dtype)).latent_dist.mode()
    finally:
        if lift:
            vae.to(dtype)
    known: torch.Tensor = (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    return known


def due_steps(count: int, steps: int) -> frozenset[int]:
    """The steps, counted from 1, after which `count` previews are due: evenly spaced, none after the last."""
    return frozenset(round(index * steps / (count + 1)) for index in range(1, count + 1)) - {0, steps}


class DenoisedEstimate:
    """What the model believes the image to be, from the last thing that it told the scheduler."""

    def __init__(self, scheduler: Any, kind: Kind) -> None:
        """Listens to a scheduler that is this job's own."""
        self._scheduler, self._kind = scheduler, kind
        self._last: tuple[torch.Tensor, Any, torch.Tensor] | None = None
        step = scheduler.step

        @functools.wraps(step)  # pipelines look at its signature
        def listen(model_output: Any, timestep: Any, sample: Any, *more: Any, **named: Any) -> Any:
            self._last = (model_output, timestep, sample)
            return step(model_output, timestep, sample, *more, **named)

        scheduler.step = listen

    def current(self, latents: torch.Tensor) -> torch.Tensor:
        """The denoised latents; the latents themselves where the scheduler was told nothing yet."""
        if self._last is None:
            return latents
        output, timestep, sample = (torch.as_tensor(part).to(latents.device).float() for part in self._last)
        if self._kind == "flow":
            return sample - timestep / float(self._scheduler.config.num_train_timesteps) * output
        table: torch.Tensor = self._scheduler.alphas_cumprod.to(latents.device)
        # Not table[timestep], which would wait for the device.
        kept = table.index_select(0, timestep.round().long().reshape(1)).float()
        signal, noise = kept.sqrt(), (1 - kept).sqrt()
        if self._scheduler.init_noise_sigma > 1:  # its samples are not scaled down to unit variance
            sample = sample * signal
        match self._scheduler.config.prediction_type:
            case "v_prediction":
                return signal * sample - noise * output
            case "sample":
                return output
        return (sample - noise * output) / signal


@dataclass(frozen=True)
class Wanted:
    """Previews of one job: how many, and which images of the batch are its own."""

    count: int
    images: range


class PreviewEmitter:
    """Makes the previews of one batch while its pipeline runs; `look` is called after every step."""

    def __init__(
        self,
        wanted: Sequence[Wanted],
        guesses: DenoisedEstimate,
        projection: Projection,
        unpack: Callable[[torch.Tensor], torch.Tensor],
        size: tuple[int, int],
        show: Show,
    ) -> None:
        """`unpack` gives latents (n, channels, h, w); `size` is the images' width and height."""
        self._wanted, self._guesses, self._projection, self._unpack = wanted, guesses, projection, unpack
        self._size, self._show = _fit_within(size, MAX_SIDE), show
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="previews")

    def look(self, step: int, steps: int, latents: torch.Tensor) -> None:
        """Begin the previews that are due after this step. Never raises: the image is worth more."""
        due = [index for index, job in enumerate(self._wanted) if step in due_steps(job.count, steps)]
        if not due:
            return
        try:
            colours = self._projection.apply(self._unpack(self._guesses.current(latents)))
            self._thread.submit(self._tell, due, step, steps, colours)
        except Exception:  # noqa: BLE001  # as the docstring says; the log has it
            _log.exception("no preview after step %d", step)

    def close(self) -> None:
        """Wait for the previews that were begun, so that none comes after the job's end."""
        self._thread.shutdown()

    def _tell(self, due: Sequence[int], step: int, steps: int, colours: torch.Tensor) -> None:
        try:
            pixels = colours.cpu().numpy()
            for index in due:
                for number, image in enumerate(self._wanted[index].images):
                    url = self._encode(Image.fromarray(pixels[image]))
                    width, height = self._size
                    told = Preview(index=number, step=step, steps=steps, width=width, height=height, url=url)
                    self._show(index, told)
        except Exception:  # noqa: BLE001  # nobody reads what this thread raises
            _log.exception("no preview after step %d", step)

    def _encode(self, picture: Image.Image) -> str:
        file = io.BytesIO()
        picture.resize(self._size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=_QUALITY)
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _fit_within(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(size))
    width, height = (max(1, round(part * scale)) for part in size)
    return width, height
