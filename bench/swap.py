"""What an adapter costs to load and to switch to, in denoising steps: `python -m bench.swap`.

The UNet has SDXL's own layers, 722 of which an adapter changes, but is narrow and random: what is measured is the
work for each layer, which does not grow with its width. Ours stands beside diffusers' own three ways: load and
unload, switching between what is loaded, and fusing into the weights and out again. The unit is one step of the
same UNet without an adapter, at 64 × 64 with guidance.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file

from bench.table import print_table, spread
from contracts.catalogue import Catalogue, LoraSpec, read_catalogue
from contracts.parameters import LoraParameters
from contracts.settings import BUILT_IN_CATALOGUE
from worker.families import load_family
from worker.lora_stock import LoraStock
from worker.loras import Adapters
from worker.warnings import silence_known_warnings

_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
_NAMES = ("one", "two", "three", "four")


def build(catalogue: Catalogue) -> Any:
    """An SDXL pipeline whose UNet has the published number of layers, an eighth as wide."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 128), layers_per_block=2, transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=[2, 4, 8], cross_attention_dim=64, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=32, projection_class_embeddings_input_dim=224,
    ).eval()  # fmt: skip
    base = StableDiffusionXLPipeline.from_pretrained(catalogue.root / "shapes-sdxl", dtype=torch.float32)
    base.register_modules(unet=unet)
    base.set_progress_bar_config(disable=True)
    return base


def write(unet: torch.nn.Module, path: Path, rank: int, seed: int) -> int:
    """A random adapter in PEFT's layout; returns how many layers it changes."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, layer in unet.named_modules():
        if isinstance(layer, torch.nn.Linear) and name.endswith(_TARGETS):
            tensors[f"unet.{name}.lora_A.weight"] = (
                torch.randn(rank, layer.in_features, generator=generator) * 0.05
            )
            tensors[f"unet.{name}.lora_B.weight"] = (
                torch.randn(layer.out_features, rank, generator=generator) * 0.05
            )
    save_file(tensors, path)
    return len(tensors) // 2


def measure(work: Callable[[], object], runs: int, prepare: Callable[[], object] = lambda: None) -> list[float]:
    """CPU seconds of each run: other work on the machine does not count."""
    seconds = []
    for _ in range(runs):
        prepare()
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return seconds


def stepper(base: Any) -> Callable[[], object]:
    """One step: two rows, as guidance has them."""
    sample, text = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 64)
    added = {"text_embeds": torch.randn(2, 32), "time_ids": torch.zeros(2, 6)}

    @torch.inference_mode()
    def step() -> object:
        return base.unet(sample, 10, text, added_cond_kwargs=added).sample

    return step


def ours(base: Any, catalogue: Catalogue, count: int, runs: int) -> dict[str, list[float]]:
    """The first load, and a switch from none to `count` adapters that are loaded, and back."""
    wanted = [LoraParameters(name=name, scale=0.5) for name in _NAMES[:count]]

    def activate(adapters: Adapters) -> None:
        (chosen,) = adapters.choose([wanted])
        if isinstance(chosen, Exception):
            raise chosen
        with adapters.active([chosen]):
            pass

    def fresh() -> Adapters:
        return Adapters(base, load_family("sdxl"), LoraStock(catalogue))

    warm = fresh()
    activate(warm)
    first = measure(lambda: activate(fresh()), runs)
    return {"load": first, "switch": measure(lambda: activate(warm), runs)}


def theirs(base: Any, folder: Path, count: int, runs: int) -> dict[str, list[float]]:
    """Diffusers' own three ways, with the same files."""
    names = list(_NAMES[:count])

    def load() -> None:
        for name in names:
            base.load_lora_weights(str(folder), weight_name=f"{name}.safetensors", adapter_name=name)
        base.set_adapters(names, [0.5] * count)

    def fuse() -> None:
        base.fuse_lora(components=["unet"], adapter_names=names)
        base.unfuse_lora(components=["unet"])

    def switch() -> None:
        base.set_adapters(names, [0.5] * count)
        base.disable_lora()
        base.enable_lora()

    unload = base.unload_lora_weights
    loads = measure(lambda: (load(), unload()), runs)
    load()
    found = {"load": loads, "switch": measure(switch, runs), "fuse": measure(fuse, runs)}
    unload()
    return found


def row(base: Any, catalogue: Catalogue, folder: Path, rank: int, count: int, runs: int) -> Sequence[object]:
    """One line: everything in steps that were measured beside it."""
    for seed, name in enumerate(_NAMES):
        write(base.unet, folder / f"{name}.safetensors", rank, seed)
    step = stepper(base)
    step()
    unit = sorted(measure(step, 3 * runs))[3 * runs // 2]
    own, other = ours(base, catalogue, count, runs), theirs(base, folder, count, runs)
    figures = (own["load"], other["load"], own["switch"], other["switch"], other["fuse"])
    return [rank, count, f"{unit * 1000:.0f}", *(spread([one / unit for one in figure], 2) for figure in figures)]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=3, help="of each figure (%(default)s)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4], help="adapters at once, up to 4")
    arguments = parser.parse_args()
    silence_known_warnings()
    torch.set_num_threads(1)
    built_in = read_catalogue(BUILT_IN_CATALOGUE)
    base = build(built_in)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [LoraSpec(id=id, family="sdxl", source=str(folder / f"{id}.safetensors")) for id in _NAMES]
        catalogue = built_in.model_copy(update={"loras": tuple(rows)})
        table = [
            row(base, catalogue, folder, arguments.ranks[0], count, arguments.runs) for count in arguments.counts
        ]
        table += [row(base, catalogue, folder, rank, 1, arguments.runs) for rank in arguments.ranks[1:]]
        layers = write(base.unet, folder / "one.safetensors", 4, 0)
    print_table(
        ["rank", "adapters", "ms of a step", "first load, ours", "load and unload, diffusers",
         "switch, ours", "switch, diffusers", "fuse and unfuse, diffusers"], table,
    )  # fmt: skip
    print(f"\nin steps; median (range) of {arguments.runs} runs, {layers} layers changed, CPU time of one thread")


if __name__ == "__main__":
    main()
