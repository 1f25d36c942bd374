"""Trains the two autoencoders: 4 channels for SDXL, then 16 for SD3 and FLUX, grown from the first.

Knows images, never captions. After training the latents have mean 0 and deviation 1 in every channel, with
the family's usual scaling factor.
"""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from models.training.data.gallery import draw_images, tile, to_images, to_signal
from models.training.loop import RUNS, Loop, Plan, join_ranks, pick_device, step_numbers
from models.training.networks.architectures import build_autoencoder

#: First channels that carry the image through unchanged when training starts: ±red, ±green, ±blue, ±one.
_CARRIED = 8
_IMAGES = 12_000
_KL_WEIGHT = 3e-4
_EDGE_WEIGHT = 0.5
PLANS = {
    4: Plan(6000, 8, 2e-3, warmup_steps=100, flat_share=0.3, floor_share=0.02, ema_decay=0.997,
            weight_decay=1e-4, bfloat16_share=0.8),
    16: Plan(2000, 8, 1.5e-3, warmup_steps=100, flat_share=0.3, floor_share=0.02, ema_decay=0.997,
             weight_decay=1e-4, bfloat16_share=0.8),
}  # fmt: skip


def train(latent_channels: int, resume: bool) -> None:
    """Trains one autoencoder and writes it, normalised, into its run folder."""
    rank, device, plan = join_ranks(), pick_device(), PLANS[latent_channels]
    torch.manual_seed(0)
    name = f"vae{latent_channels}"
    vae = build_autoencoder(latent_channels)
    if latent_channels == 4:
        carry_through(vae)
    else:
        grow(vae, load(4))
    vae.to(device, memory_format=torch.channels_last)
    images = draw_images(_IMAGES, seed=f"train/{name}/{rank.index}")
    loop = Loop(name, {"vae": vae}, plan, rank, resume)
    for step in loop:
        rng, generator = step_numbers(name, rank, step)
        chosen = torch.tensor([rng.randrange(_IMAGES) for _ in range(plan.batch)])
        signal = to_signal(images[chosen].flip(-1) if rng.random() < 0.5 else images[chosen]).to(device)
        with loop.autocast(device):
            posterior = vae.encode(signal).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        loop.learn(loss_of(decoded.float(), signal, posterior))
    if rank.index == 0:
        vae.eval().to("cpu", memory_format=torch.contiguous_format)
        normalise(vae, to_signal(draw_images(512, seed=f"normalise/{name}")))
        vae.save_pretrained(folder(latent_channels))
        report(vae, name)


def loss_of(decoded: Tensor, signal: Tensor, posterior: Any) -> Tensor:
    """Pixels, edges, and a light pull towards a unit Gaussian."""
    off = decoded - signal
    edges = (off[..., 1:, :] - off[..., :-1, :]).abs().mean() + (off[..., 1:] - off[..., :-1]).abs().mean()
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    loss: Tensor = off.abs().mean() + off.square().mean() + _EDGE_WEIGHT * edges + _KL_WEIGHT * kl
    return loss


def folder(latent_channels: int) -> Path:
    """Where a finished autoencoder lies."""
    return RUNS / f"vae{latent_channels}" / "model"


def load(latent_channels: int) -> Any:
    """A finished autoencoder, frozen, in float32."""
    vae = build_autoencoder(latent_channels)
    vae = type(vae).from_pretrained(folder(latent_channels))
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def carry_through(vae: Any) -> None:
    """Starts as 8× average pooling of the RGB. Both x and −x are carried, as silu(x) − silu(−x) = x."""
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            _quieten(module.conv2)
            if module.conv_shortcut is not None:
                _pass(module.conv_shortcut, centre=(slice(0, 1), slice(0, 1)), weight=1.0)
    for block in vae.encoder.down_blocks:
        for sampler in block.downsamplers or []:
            _pass(sampler.conv, centre=(slice(0, 2), slice(0, 2)), weight=0.25)
    for block in vae.decoder.up_blocks:
        for sampler in block.upsamplers or []:
            _pass(sampler.conv, centre=(slice(1, 2), slice(1, 2)), weight=1.0)
    for half in (vae.encoder, vae.decoder):
        for attention in half.mid_block.attentions:
            _quieten(attention.to_out[0])
        _split_signs(half.conv_in)
        _join_signs(half.conv_out)
    _identity(vae.quant_conv)
    _identity(vae.post_quant_conv)
    vae.quant_conv.bias[vae.config.latent_channels :] = -4.5


def _quieten(layer: Any) -> None:
    layer.weight.mul_(0.2)
    layer.bias.zero_()


def _pass(layer: nn.Conv2d, centre: tuple[slice, slice], weight: float) -> None:
    count = min(_CARRIED, layer.in_channels, layer.out_channels)
    layer.weight[:count] = 0
    for channel in range(count):
        layer.weight[channel, channel, centre[0], centre[1]] = weight
    if layer.bias is not None:
        layer.bias[:_CARRIED] = 0


def _split_signs(layer: nn.Conv2d) -> None:
    layer.weight[:_CARRIED] = 0
    for channel in range(3):
        layer.weight[channel, channel, 1, 1] = 1
        layer.weight[3 + channel, channel, 1, 1] = -1
    if layer.bias is not None:
        layer.bias[6], layer.bias[7] = 1, -1


def _join_signs(layer: nn.Conv2d) -> None:
    layer.weight[:3] *= 0.2
    if layer.bias is not None:
        layer.bias.zero_()
    for channel in range(3):
        layer.weight[channel, channel, 1, 1] += 0.6
        layer.weight[channel, 3 + channel, 1, 1] -= 0.6


def _identity(layer: nn.Conv2d) -> None:
    count = min(layer.in_channels, layer.out_channels, 4)
    layer.weight.zero_()
    layer.weight[range(count), range(count)] = 1
    if layer.bias is not None:
        layer.bias.zero_()


@torch.no_grad()
def grow(wide: Any, narrow: Any) -> None:
    """The 16-channel autoencoder starts as the 4-channel one; twelve channels are new and nearly silent."""
    own = wide.state_dict()
    for name, weight in narrow.state_dict().items():
        if name in own and own[name].shape == weight.shape:
            own[name].copy_(weight)
    channels, old, scale = wide.config.latent_channels, 4, narrow.config.scaling_factor
    last, quant = wide.encoder.conv_out, narrow.quant_conv
    mixed = torch.einsum("oi,ihwk->ohwk", quant.weight[:, :, 0, 0], narrow.encoder.conv_out.weight)
    offset = quant.weight[:, :, 0, 0] @ narrow.encoder.conv_out.bias + quant.bias
    last.weight[:old], last.bias[:old] = mixed[:old] * scale, offset[:old] * scale
    last.weight[channels:] *= 0.1
    last.bias[channels:] = -4.5
    first, post = wide.decoder.conv_in, narrow.post_quant_conv
    first.weight[:, :old] = torch.einsum("oihw,ic->ochw", narrow.decoder.conv_in.weight, post.weight[:, :, 0, 0])
    first.weight[:, :old] /= scale
    first.weight[:, old:] *= 0.3
    first.bias.copy_(narrow.decoder.conv_in.bias + narrow.decoder.conv_in.weight.sum((2, 3)) @ post.bias)


@torch.no_grad()
def normalise(vae: Any, signal: Tensor) -> None:
    """Bakes mean 0 and deviation 1 into the convolutions next to the latent.

    With quant convolutions this is exact. Without them a 3×3 kernel reads the latent with zero padding, so
    only the deviation goes in, and the mean over all channels becomes the shift factor.
    """
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in torch.split(signal, 64)])
    channels, scale = vae.config.latent_channels, vae.config.scaling_factor
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    factor = deviation * scale
    if vae.quant_conv is not None:
        into, out_of = vae.quant_conv, vae.post_quant_conv
        into.bias[:channels] -= mean
        out_of.bias += out_of.weight[:, :, 0, 0] @ mean
    else:
        into, out_of = vae.encoder.conv_out, vae.decoder.conv_in
        vae.register_to_config(shift_factor=round(float((mean / factor).mean()), 4))
    into.weight[:channels] /= factor[:, None, None, None]
    into.bias[:channels] /= factor
    into.bias[channels:] -= 2 * torch.log(factor)
    out_of.weight *= factor[None, :, None, None]


@torch.no_grad()
def weigh_channels(vae: Any) -> Tensor:
    """How much each channel's error should count for a denoiser: mean 1, by what the decoder makes of an error.

    Of sixteen channels, three carry nearly all of a drawing; counted alike, the others drown them. The
    four-channel latents are counted alike, as `shapes-sdxl` was trained.
    """
    channels = vae.config.latent_channels
    if channels == 4:
        return torch.ones(channels)
    latents = vae.encode(to_signal(draw_images(32, seed="weigh"))).latent_dist.mode()
    noise = torch.randn(latents[:, 0].shape, generator=torch.Generator().manual_seed(0))
    whole, effects = vae.decode(latents).sample, []
    for channel in range(channels):
        shaken = latents.clone()
        shaken[:, channel] += 0.3 * latents.std() * noise
        effects.append((vae.decode(shaken).sample - whole).square().mean())
    weights = torch.stack(effects).sqrt()
    return weights / weights.mean()


def report(vae: Any, name: str) -> None:
    """Draws a contact sheet, originals above decoded, and prints the signal-to-noise ratio."""
    signal = to_signal(draw_images(64, seed=f"report/{name}"))
    with torch.no_grad():
        latents = vae.encode(signal).latent_dist.mode()
        decoded = vae.decode(latents).sample.clamp(-1, 1)
    shift = vae.config.shift_factor or 0.0
    scaled = (latents - shift) * vae.config.scaling_factor
    decibels = 10 * math.log10(4 / float(functional.mse_loss(decoded, signal)))
    print(f"{name}: {decibels:.2f} dB, latents {scaled.mean():.3f} ± {scaled.std():.3f}")
    tile([*to_images(signal), *to_images(decoded)], columns=16).save(RUNS / name / "sheet.png")
