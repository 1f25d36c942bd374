"""What the planner knows of published architectures, held against the models: `python -m bench.architectures`.

Builds every component of `contracts/architectures/` from its configuration on torch's meta device, where tensors
have shapes and no memory. First table: bytes in bfloat16 beside those that were published. Second table: how many
values a component holds beyond its weights while it runs one image of 1024 × 1024, counted tensor by tensor,
beside the planner's formula; then how far the formula is off for two images, for one of half the side, and where
the weights come layer by layer and count, too. Exits non-zero where the counts in the files are not those of the
models.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import diffusers
import torch
import transformers

from bench.live import count_live
from bench.report import options, report
from bench.table import print_table
from contracts.memory.activation_formulas import work_of
from contracts.memory.activations import WorkloadShape, peak_values
from contracts.weights.architectures import Architecture, read_architectures
from contracts.weights.parameter_counts import ParameterCount

#: Bytes in bfloat16, without buffers. Those of ControlNets, which come last, are not published to the byte: they
#: were built from the published configurations, and stand here so that a change shows.
PUBLISHED_BYTES = {
    "sdxl": (246_120_960, 1_389_319_680, 5_134_927_368, 167_307_726, 2_502_028_320),
    "sd3-medium": (247_300_608, 1_389_319_680, 9_524_621_312, 4_056_656_000, 167_639_366, 1_077_611_520),
    "sd3.5-large": (247_300_608, 1_389_319_680, 9_524_621_312, 16_113_255_040, 167_639_366, 4_307_037_952),
    "flux.1-dev": (246_120_960, 9_524_621_312, 23_802_816_640, 167_639_366, 4_281_753_600),
}
SIDE, T5_TOKENS, CLIP_TOKENS = 1024, 512, 77


def build(config: Mapping[str, Any], dtype: torch.dtype = torch.bfloat16) -> Any:
    """The component with this configuration, on the meta device."""
    options = {key: value for key, value in config.items() if key not in _NOT_OPTIONS}
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            if "_class_name" in config:
                module = getattr(diffusers, config["_class_name"])(**options)
                return torch.nn.Module.to(module, dtype)  # buffers, too
            make_config = transformers.T5Config if config["model_type"] == "t5" else transformers.CLIPTextConfig
            return getattr(transformers, config["architectures"][0])(make_config(**options))
    finally:
        torch.set_default_dtype(before)


#: Entries of a configuration file that say which class, or who wrote it.
_NOT_OPTIONS = {
    "_class_name",
    "_diffusers_version",
    "architectures",
    "model_type",
    "dtype",
    "transformers_version",
}


def stored(module: Any) -> Iterator[tuple[str, int]]:
    """Key and number of values of what a file of this component holds; shared tensors once."""
    seen = set()
    for key, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield key, tensor.numel()


def call_of(
    module: Any, config: Mapping[str, Any], shape: WorkloadShape, dtype: torch.dtype
) -> Callable[[], object]:
    """One call of a component as a pipeline makes it; what it is given lies ready."""
    given, name = _Given(config, shape, dtype), config.get("_class_name", "")
    denoising = given.by_class()
    if name in denoising:
        return partial(module, **denoising[name]())
    return partial(module.decode, given.latents()) if name == "AutoencoderKL" else partial(module, given.wording())


@dataclass(frozen=True)
class _Given:
    """What components are given in a call on this shape; those that denoise by name."""

    config: Mapping[str, Any]
    shape: WorkloadShape
    dtype: torch.dtype

    def by_class(self) -> Mapping[str, Callable[[], dict[str, Any]]]:
        """Class of a denoiser or a ControlNet -> its arguments."""
        return {
            "UNet2DConditionModel": self.unet,
            "SD3Transformer2DModel": self.two_streams,
            "FluxTransformer2DModel": self.one_stream,
            "ControlNetModel": lambda: {**self.unet(), "controlnet_cond": self.picture()},
            "SD3ControlNetModel": lambda: {**self.two_streams(), "controlnet_cond": self.image(16)},
            "FluxControlNetModel": lambda: {**self.one_stream(), "controlnet_cond": self.tokens("in_channels")},
        }

    def wording(self) -> torch.Tensor:
        length = self.shape.text_tokens if self.config["model_type"] == "t5" else CLIP_TOKENS
        return torch.empty(self.shape.images, length, device="meta", dtype=torch.long)

    def latents(self) -> torch.Tensor:
        channels = self.config["latent_channels"]
        return self._fresh(self.shape.height // 8, self.shape.width // 8, rows=(self.shape.images, channels))

    def picture(self) -> torch.Tensor:
        return self._fresh(3, self.shape.height, self.shape.width)

    def image(self, channels: int) -> torch.Tensor:
        return self._fresh(channels, self.shape.height // 8, self.shape.width // 8)

    def tokens(self, width: str | int) -> torch.Tensor:
        return self._fresh(self.shape.pixels // 256, self.config[width] if isinstance(width, str) else width)

    def unet(self) -> dict[str, Any]:
        pooled = self.config["projection_class_embeddings_input_dim"] - 6 * self.config["addition_time_embed_dim"]
        return {
            "sample": self.image(4),
            "timestep": self._fresh(),
            "encoder_hidden_states": self._fresh(CLIP_TOKENS, self.config["cross_attention_dim"]),
            "added_cond_kwargs": {"text_embeds": self._fresh(pooled), "time_ids": self._fresh(6)},
        }

    def two_streams(self) -> dict[str, Any]:
        width, alone = self.config["joint_attention_dim"], self.config.get("use_pos_embed", True)
        inner = self.config["num_attention_heads"] * self.config["attention_head_dim"]
        return {
            # One without a table of places is given the transformer's tokens.
            "hidden_states": self.image(16) if alone else self.tokens(inner),
            "encoder_hidden_states": width and self._fresh(CLIP_TOKENS + self.shape.text_tokens, width),
            "pooled_projections": self._fresh(self.config["pooled_projection_dim"]),
            "timestep": self._fresh(),
        }

    def one_stream(self) -> dict[str, Any]:
        return {
            "hidden_states": self.tokens("in_channels"),
            "encoder_hidden_states": self._fresh(self.shape.text_tokens, self.config["joint_attention_dim"]),
            "pooled_projections": self._fresh(self.config["pooled_projection_dim"]),
            "timestep": self._fresh(),
            "guidance": self._fresh() if self.config["guidance_embeds"] else None,
            "img_ids": self._fresh(3, rows=(self.shape.pixels // 256,)),
            "txt_ids": self._fresh(3, rows=(self.shape.text_tokens,)),
        }

    def _fresh(self, *shape: int, rows: tuple[int, ...] = ()) -> torch.Tensor:
        """One row for each image in each pass, unless `rows` says other sizes to begin with."""
        first = rows or (self.shape.images * self.shape.passes,)
        return torch.empty(*first, *shape, device="meta", dtype=self.dtype)


def compare_work(
    config: Mapping[str, Any], shape: WorkloadShape, dtype: torch.dtype, *, streamed: bool = False
) -> tuple[float, float]:
    """Values beyond the weights: counted on the meta device, and by the planner's formula.

    Args:
        streamed: with the weights that are there at that moment where they come layer by layer.
    """
    module = build(config, dtype)
    counted = count_live(module, call_of(module, config, shape, dtype), streamed=streamed) / dtype.itemsize
    denoises = "_class_name" in config and config["_class_name"] != "AutoencoderKL"
    images = shape.images * (shape.passes if denoises else 1)
    layers = [(moment.layers or 0) * streamed for moment in work_of(config)]
    moments = zip(work_of(config), layers, strict=True)
    return counted, max(peak_values([moment], shape, images) + extra for moment, extra in moments)


def weigh(architecture: Architecture) -> tuple[list[list[object]], bool]:
    """A row of bytes for every component, and whether model, publication and file agree."""
    agrees = True
    rows: list[list[object]] = []
    counts = {name: count for name, (count, _) in parts(architecture).items()}
    configs = {name: config for name, (_, config) in parts(architecture).items()}
    published = PUBLISHED_BYTES[architecture.id]
    for (name, config), expected in zip(configs.items(), published, strict=True):
        module = build(config)
        built = 2 * sum(parameter.numel() for parameter in module.parameters())
        count = ParameterCount.of(stored(module))
        agrees &= built == expected and count == counts[name]
        rows.append([architecture.id, name, f"{built:,}", f"{expected:,}", f"{2 * count.values:,}"])
    return rows, agrees


def parts(architecture: Architecture) -> dict[str, tuple[ParameterCount, Mapping[str, Any]]]:
    """Name -> count and configuration: of its components, and of the ControlNet that is used with it."""
    found = {name: (count, architecture.configs[name]) for name, count in architecture.counts.items()}
    net = architecture.controlnet
    return found if net is None else {**found, "controlnet": (net.count, net.config)}


def work(architecture: Architecture) -> list[list[object]]:
    """A row of values held while it runs for every component."""
    rows: list[list[object]] = []
    for name, (_, config) in parts(architecture).items():
        counted, formula = _compare(architecture, config, SIDE, 1)
        others = [_compare(architecture, config, SIDE, 2), _compare(architecture, config, SIDE // 2, 1)]
        if work_of(config)[0].layers is not None:
            others.append(_compare(architecture, config, SIDE, 1, streamed=True))
        ratios = [f"{ours / real:.2f}" for real, ours in [(counted, formula), *others]]
        cells = [*ratios, *[""] * (4 - len(ratios))]
        rows.append([architecture.id, name, f"{counted / 1e6:.1f}", f"{formula / 1e6:.1f}", *cells])
    return rows


def _compare(
    architecture: Architecture, config: Mapping[str, Any], side: int, images: int, *, streamed: bool = False
) -> tuple[float, float]:
    shape = WorkloadShape(side, side, images, guided=architecture.family != "flux", text_tokens=T5_TOKENS)
    return compare_work(config, shape, torch.bfloat16, streamed=streamed)


def main() -> int:
    """Print both tables; returns the exit status."""
    options(__doc__).parse_args()
    with report("architectures"):
        weighed = [weigh(architecture) for architecture in read_architectures()]
        print("Bytes in bfloat16\n")
        print_table(
            ["model", "component", "built", "published", "in a file"], [row for rows, _ in weighed for row in rows]
        )
        print(f"\nMillion values beyond the weights, one image of {SIDE} × {SIDE}; formula ÷ counted\n")
        worked = [row for architecture in read_architectures() for row in work(architecture)]
        head = ["model", "component", "counted", "formula", "÷", "÷, two images", f"÷, {SIDE // 2} × {SIDE // 2}"]
        print_table([*head, "÷, by layers"], worked)
    return 0 if all(agrees for _, agrees in weighed) else 1


if __name__ == "__main__":
    sys.exit(main())
