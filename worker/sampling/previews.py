"""Previews of running jobs: small JPEGs of the image that the model predicts, made from its latents.

A tiny VAE decodes them where the model's row names one. Else a linear map from latents to colours replaces the
VAE; it is fitted to the VAE once per model, on images of random colours, so it has each checkpoint's own colours.
Only that runs in the job thread; copying from the device, JPEG and Redis run in another. Changes nothing about the
image.
"""

from __future__ import annotations

import base64
import functools
import io
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image

from contracts.catalogue.schedulers import Kind
from contracts.jobs.events import Preview
from contracts.processes.background import BackgroundThread
from worker.sampling.host_timesteps import on_host

_log = logging.getLogger(__name__)

#: Longest side of a preview in pixels, and its JPEG quality: 3 to 10 kB each.
MAX_SIDE = 256
_QUALITY = 75
#: The fit uses this many images, with this many positions of latents a side, and this many colour patches.
_FIT_IMAGES, _FIT_POSITIONS, _FIT_PATCHES = 16, 8, 4
#: Pixels of a position of the latents, along each side, of VAEs that do not say it.
_STRIDE = 8


@dataclass(frozen=True)
class Projection:
    """Linear map from latents, scaled as the denoiser has them, to colours from 0 to 1.

    Attributes:
        matrix: (channels, 3).
        bias: (3,).
    """

    matrix: torch.Tensor
    bias: torch.Tensor

    def apply(self, latents: torch.Tensor) -> torch.Tensor:
        """Return latents (n, channels, h, w) as pixels (n, h, w, 3), uint8, on the latents' device."""
        colours = latents.movedim(1, -1).float() @ self.matrix + self.bias
        return (colours.clamp(0, 1) * 255).round().to(torch.uint8)


#: Makes pixels (n, height, width, 3), uint8, from latents (n, channels, h, w) in the denoiser's scale.
PreviewDecoder = Callable[[torch.Tensor], torch.Tensor]


def decode_tiny(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Decode latents with a tiny VAE (TAESD), which reads them as the denoiser has them; see `PreviewDecoder`."""
    images: torch.Tensor = vae.decode(latents.to(vae.dtype)).sample
    return (images.movedim(1, -1).float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)


def projection_of_pixels(device: torch.device) -> Projection:
    """Return the map for models of pixels, whose latents are colours from -1 to 1."""
    return Projection(matrix=torch.eye(3, device=device) / 2, bias=torch.full((3,), 0.5, device=device))


@torch.inference_mode()
def fit_projection(vae: Any) -> Projection:
    """Return the map with the least squared error on the VAE's latents of random colours."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(_FIT_IMAGES, 3, _FIT_PATCHES, _FIT_PATCHES, generator=generator)
    side = _FIT_POSITIONS * getattr(vae, "spatial_compression_ratio", _STRIDE)
    pixels = torch.nn.functional.interpolate(patches, size=side, mode="nearest")
    latents = encode_distribution(vae, pixels * 2 - 1)[0].float()
    colours = torch.nn.functional.interpolate(pixels, size=latents.shape[-2:], mode="area").to(latents.device)
    inputs = latents.movedim(1, -1).flatten(0, -2)
    inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
    targets = colours.movedim(1, -1).flatten(0, -2)
    # On the CPU in float64: the fit takes less time there than a device's solver takes to load.
    solution = torch.linalg.lstsq(inputs.double().cpu(), targets.double().cpu()).solution
    solution = solution.float().to(latents.device)
    return Projection(matrix=solution[:-1], bias=solution[-1])


def encode_distribution(vae: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of the latents of an image, scaled as the denoiser has them.

    Draws from no generator. A VAE of videos encodes one frame.
    """
    if "latents_mean" in vae.config and "z_dim" in vae.config:
        return _encode_frame(vae, pixels)
    dtype = vae.dtype
    # SDXL's VAE overflows in float16; diffusers' pipelines convert it for the time that it runs, too.
    upcast = dtype == torch.float16 and vae.config.get("force_upcast", False)
    if upcast:
        vae.to(torch.float32)
    try:
        device = next(vae.parameters()).device
        encoded = vae.encode(pixels.to(device, vae.dtype))
        given = encoded.get("latents", encoded.get("latent"))
        if given is not None:  # a tiny VAE (TAESD) and Sana's give the latents themselves
            mean, spread = given, torch.zeros_like(given)
        else:
            mean, spread = encoded.latent_dist.mode(), encoded.latent_dist.std
        # FLUX.2's has neither: its pipelines take mean and deviation of its batch norm, and give them back here.
        shift, scale = vae.config.get("shift_factor") or 0.0, vae.config.get("scaling_factor", 1.0)
        return (mean - shift) * scale, spread * scale
    finally:
        if upcast:
            vae.to(dtype)


def _encode_frame(vae: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same with a VAE of videos, whose channels are scaled one by one."""
    weight = next(vae.parameters())
    if vae.config.get("input_channels") == 4:  # the fourth says how opaque a pixel is
        pixels = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)
    found = vae.encode(pixels.to(weight.device, weight.dtype).unsqueeze(2)).latent_dist
    latents, spread = found.mode()[:, :, 0], found.std[:, :, 0]
    mean, deviation = (
        torch.tensor(vae.config[name]).to(latents).view(1, -1, 1, 1) for name in ("latents_mean", "latents_std")
    )
    return (latents - mean) / deviation, spread / deviation


def due_steps(count: int, steps: int) -> frozenset[int]:
    """Return the steps, counted from 1, after which `count` previews are due: evenly spaced, not the last."""
    return frozenset(round(index * steps / (count + 1)) for index in range(1, count + 1)) - {0, steps}


class DenoisedEstimate:
    """The denoised latents that the model predicts at the current step, from its last output.

    Pipelines of diffusers 0.42 give their callback the noisy latents only. So this replaces the `step` method of
    the job's own scheduler object by one that records its arguments. The replacement keeps the signature, because
    pipelines pass `eta` and `generator` only to schedulers whose `step` takes them
    (`test_the_pipeline_passes_a_scheduler_the_same_arguments_with_previews`).
    """

    def __init__(self, scheduler: Any, kind: Kind) -> None:
        """Record the arguments of each `scheduler.step` from now on."""
        self._scheduler, self._kind = scheduler, kind
        self._last: tuple[torch.Tensor, float | torch.Tensor, torch.Tensor] | None = None
        step = scheduler.step

        @functools.wraps(step)
        def record(model_output: Any, timestep: Any, sample: Any, *more: Any, **named: Any) -> Any:
            self._last = (model_output, on_host(timestep), sample)
            return step(model_output, timestep, sample, *more, **named)

        scheduler.step = record

    def current(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the denoised latents; the given ones before the first step."""
        if self._last is None:
            return latents
        output, sample = self._last[0].float(), self._last[2].float()
        if self._kind == "learned_variance":
            output = output[:, : sample.shape[1]]
        if self._kind == "trigflow":
            return self._on_the_circle(output, sample)
        if self._kind == "flow":  # whose timesteps may be others than its sigmas
            twin = self._scheduler.host_twin()
            return sample - float(twin.sigmas[twin.step_index - 1]) * output
        timestep = float(self._last[1])
        if hasattr(
            self._scheduler, "precondition_outputs"
        ):  # EDM: the timestep is a quarter of the logarithm of sigma
            denoised: torch.Tensor = self._scheduler.precondition_outputs(sample, output, math.exp(4 * timestep))
            return denoised
        # Looked up on the host: the device would be waited for.
        alpha = float(self._scheduler.host_twin().alphas_cumprod[round(timestep)])
        signal, noise = math.sqrt(alpha), math.sqrt(1 - alpha)
        if self._scheduler.init_noise_sigma > 1:  # this scheduler's samples are not scaled to unit variance
            sample = sample * signal
        match self._scheduler.config.prediction_type:
            case "v_prediction":
                return signal * sample - noise * output
            case "sample":
                return output
        return (sample - noise * output) / signal

    def _on_the_circle(self, output: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """The step's time is found in the schedule: pipelines pass a tensor with a row for each image."""
        angle = float(self._scheduler.timesteps[self._scheduler.step_index - 1])
        denoised = math.cos(angle) * sample - math.sin(angle) * output
        return denoised / float(self._scheduler.config.sigma_data)


@dataclass(frozen=True)
class PreviewRequest:
    """The previews that a job asks for.

    Attributes:
        count: previews of each of its images.
        images: how many images it has.
    """

    count: int
    images: int


class PreviewEmitter:
    """Emitter of the previews of one job; `end_step` is called after every step."""

    def __init__(
        self,
        request: PreviewRequest,
        estimate: DenoisedEstimate,
        decode: PreviewDecoder,
        unpack: Callable[[torch.Tensor], torch.Tensor],
        size: tuple[int, int],
        emit: Callable[[Preview], None],
        may_show: Callable[[Image.Image], bool] | None = None,
    ) -> None:
        """Make an emitter.

        Args:
            unpack: returns latents as (n, channels, h, w).
            size: width and height of the images in pixels.
            emit: called in another thread with a preview of one of the images.
            may_show: asked before, in that thread; None: all may be shown.
        """
        self._request, self._estimate, self._decode, self._unpack = request, estimate, decode, unpack
        self._size, self._emit, self._may_show = _fit_within(size, MAX_SIDE), emit, may_show
        self._thread = BackgroundThread("previews")

    def end_step(self, step: int, steps: int, latents: torch.Tensor) -> None:
        """Start the previews that are due after this step. Errors are logged: the image matters more."""
        if step not in due_steps(self._request.count, steps):
            return
        try:
            pixels = self._decode(self._unpack(self._estimate.current(latents)))
            self._thread.submit(partial(self._emit_all, step, steps, pixels))
        except Exception:  # noqa: BLE001  # see the docstring
            _log.exception("no preview after step %d", step)

    def close(self) -> None:
        """Wait for the previews that were started, so that none comes after the job's end."""
        self._thread.close()

    def _emit_all(self, step: int, steps: int, pixels: torch.Tensor) -> None:
        try:
            arrays = pixels.cpu().numpy()
            width, height = self._size
            for index in range(self._request.images):
                image = Image.fromarray(arrays[index]).resize(self._size, Image.Resampling.BICUBIC)
                if self._may_show is not None and not self._may_show(image):
                    continue
                url = _data_url(image)
                self._emit(Preview(index=index, step=step, steps=steps, width=width, height=height, url=url))
        except Exception:  # noqa: BLE001  # nothing reads what this thread raises
            _log.exception("no preview after step %d", step)


def preview_of(image: Image.Image, index: int, step: int, steps: int) -> Preview:
    """Return the preview that shows a finished image."""
    width, height = size = _fit_within(image.size, MAX_SIDE)
    url = _data_url(image.resize(size, Image.Resampling.BICUBIC))
    return Preview(index=index, step=step, steps=steps, width=width, height=height, url=url)


def _data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _fit_within(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Scale a size down until its longer side is at most `side`."""
    scale = min(1.0, side / max(size))
    width, height = (max(1, round(length * scale)) for length in size)
    return width, height
