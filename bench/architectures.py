"""What the planner knows of published architectures, held against the models: `python -m bench.architectures`.

Builds every component of `contracts/architectures/` from its configuration on torch's meta device, where tensors
have shapes and no memory. First table: bytes in bfloat16 beside those that were published. Second table: how many
values a component holds beyond its weights while it runs one image of 1024 × 1024, counted tensor by tensor,
beside the planner's formula. Exits non-zero where the counts in the files are not those of the models.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import diffusers
import torch
import transformers
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from bench.report import options, report
from bench.table import print_table
from contracts.activations import Canvas, most_values, work_of
from contracts.architectures import Architecture, read_architectures
from contracts.weights import Count

#: Bytes in bfloat16, without buffers.
PUBLISHED_BYTES = {
    "sdxl": (246_120_960, 1_389_319_680, 5_134_927_368, 167_307_726),
    "sd3-medium": (247_300_608, 1_389_319_680, 9_524_621_312, 4_056_656_000, 167_639_366),
    "sd3.5-large": (247_300_608, 1_389_319_680, 9_524_621_312, 16_113_255_040, 167_639_366),
    "flux.1-dev": (246_120_960, 9_524_621_312, 23_802_816_640, 167_639_366),
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
                return getattr(diffusers, config["_class_name"])(**options)
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


class _Fused(TorchFunctionMode):
    """Attention without a matrix of scores, as the fused kernels compute it; the meta device has none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **named)
        query: Any
        value: Any
        query, value = (named.get(name, args[at] if len(args) > at else None) for name, at in _OPERANDS)
        return query.new_empty(*query.shape[:-1], value.shape[-1])


_OPERANDS = (("query", 0), ("value", 2))


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every storage that an operation makes until nothing refers to it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def know(self, tensor: torch.Tensor) -> None:
        """Weights were there before."""
        self._known.add(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_iter(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def forget() -> None:
            self._known.discard(key)
            self.now -= size

        self._known.add(key)
        weakref.finalize(storage, forget)
        self.now += size
        self.peak = max(self.peak, self.now)


def count_live(module: Any, run: Callable[[], object]) -> int:
    """Bytes beyond the weights that were alive at once while it ran."""
    live = _Live()
    for tensor in (*module.parameters(), *module.buffers()):
        live.know(tensor.data)
    with torch.no_grad(), live, _Fused():
        run()
    return live.peak


def calls(module: Any, config: Mapping[str, Any], canvas: Canvas, dtype: torch.dtype) -> Callable[[], object]:
    """One call of a component as a pipeline makes it."""

    def fresh(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta", dtype=dtype)

    images, rows, columns = canvas.images * canvas.passes, canvas.height // 8, canvas.width // 8

    def decode() -> object:
        return module.decode(fresh(canvas.images, config["latent_channels"], rows, columns), return_dict=False)

    def denoise_latents() -> object:
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        added = {"text_embeds": fresh(images, pooled), "time_ids": fresh(images, 6)}
        prompt = fresh(images, CLIP_TOKENS, config["cross_attention_dim"])
        return module(fresh(images, 4, rows, columns), fresh(images), prompt, added_cond_kwargs=added)

    def denoise_two_streams() -> object:
        prompt = fresh(images, CLIP_TOKENS + canvas.text_tokens, config["joint_attention_dim"])
        return module(
            fresh(images, 16, rows, columns), prompt, fresh(images, config["pooled_projection_dim"]), fresh(images)
        )

    def denoise_one_stream() -> object:
        tokens = rows * columns // 4
        return module(
            hidden_states=fresh(images, tokens, config["in_channels"]),
            encoder_hidden_states=fresh(images, canvas.text_tokens, config["joint_attention_dim"]),
            pooled_projections=fresh(images, config["pooled_projection_dim"]),
            timestep=fresh(images),
            guidance=fresh(images),
            img_ids=fresh(tokens, 3),
            txt_ids=fresh(canvas.text_tokens, 3),
        )

    def encode() -> object:
        length = canvas.text_tokens if config["model_type"] == "t5" else CLIP_TOKENS
        return module(torch.empty(canvas.images, length, device="meta", dtype=torch.long))

    by_class = {
        "AutoencoderKL": decode,
        "UNet2DConditionModel": denoise_latents,
        "SD3Transformer2DModel": denoise_two_streams,
        "FluxTransformer2DModel": denoise_one_stream,
    }
    return by_class.get(config.get("_class_name", ""), encode)


def compare_work(config: Mapping[str, Any], canvas: Canvas, dtype: torch.dtype) -> tuple[float, float]:
    """Values beyond the weights: counted on the meta device, and by the planner's formula."""
    module = build(config, dtype)
    counted = count_live(module, calls(module, config, canvas, dtype)) / dtype.itemsize
    denoises = config.get("_class_name", "AutoencoderKL") != "AutoencoderKL"
    return counted, most_values(work_of(config), canvas, canvas.images * (canvas.passes if denoises else 1))


def weigh(architecture: Architecture) -> tuple[list[list[object]], bool]:
    """A row of bytes for every component, and whether model, publication and file agree."""
    agrees = True
    rows: list[list[object]] = []
    published = PUBLISHED_BYTES[architecture.id]
    for (name, config), expected in zip(architecture.configs.items(), published, strict=True):
        module = build(config)
        built = 2 * sum(parameter.numel() for parameter in module.parameters())
        count = Count.of(stored(module))
        agrees &= built == expected and count == architecture.counts[name]
        rows.append([architecture.id, name, f"{built:,}", f"{expected:,}", f"{2 * count.values:,}"])
    return rows, agrees


def work(architecture: Architecture) -> list[list[object]]:
    """A row of values held while it runs for every component."""
    canvas = Canvas(SIDE, SIDE, guided=architecture.family != "flux", text_tokens=T5_TOKENS)
    rows: list[list[object]] = []
    for name, config in architecture.configs.items():
        counted, formula = compare_work(config, canvas, torch.bfloat16)
        cells = (f"{counted / 1e6:.1f}", f"{formula / 1e6:.1f}", f"{formula / counted:.2f}")
        rows.append([architecture.id, name, *cells])
    return rows


def main() -> int:
    """Print both tables; returns the exit status."""
    options(__doc__).parse_args()
    with report("architectures"):
        weighed = [weigh(architecture) for architecture in read_architectures()]
        print("Bytes in bfloat16\n")
        print_table(
            ["model", "component", "built", "published", "in a file"], [row for rows, _ in weighed for row in rows]
        )
        print(f"\nMillion values beyond the weights, one image of {SIDE} × {SIDE}\n")
        worked = [row for architecture in read_architectures() for row in work(architecture)]
        print_table(["model", "component", "counted", "formula", "formula / counted"], worked)
    return 0 if all(agrees for _, agrees in weighed) else 1


if __name__ == "__main__":
    sys.exit(main())
