"""What adapters and models cost to load and to switch to, in denoising steps: `python -m bench.swap`.

The UNet has SDXL's own layers, 722 of which an adapter changes, but is narrow and random: what is measured is the
work for each layer, which does not grow with its width. Ours stands beside diffusers' own three ways: load and
unload, switching between what is loaded, and fusing into the weights and out again. The unit is one step of the
same UNet without an adapter, at 64 × 64 with guidance.

Then the pool's models (`--only models`): a switch between two that are ready, to one that was parked in host
memory, and to one that must be read from its files. The unit is a step of the model that comes.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

from bench.nobody import Nobody
from bench.random_lora import write_lora
from bench.report import keep_arithmetic, options, report
from bench.table import print_table, spread
from contracts.catalogue.catalogue import Catalogue, LoraSpec, read_catalogue
from contracts.requests.parameters import LoraParameters
from contracts.requests.resolution import resolve
from contracts.requests.schema import Txt2ImgRequest
from contracts.requests.validation import check
from contracts.settings import BUILT_IN_CATALOGUE
from worker.adapters.cache import LoraCache
from worker.adapters.files import LoraFiles
from worker.families import get_family
from worker.generation.generate import Job, generate
from worker.pool.pool import Pool
from worker.runtime.warnings import silence_known_warnings

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

    def activate(adapters: LoraCache) -> None:
        with adapters.active([adapters.load(wanted)]):
            pass

    def fresh() -> LoraCache:
        return LoraCache(base, get_family("sdxl"), LoraFiles(catalogue))

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
        write_lora(base.unet, "unet", folder / f"{name}.safetensors", rank, seed)
    step = stepper(base)
    step()
    unit = sorted(measure(step, 3 * runs))[3 * runs // 2]
    own, other = ours(base, catalogue, count, runs), theirs(base, folder, count, runs)
    figures = (own["load"], other["load"], own["switch"], other["switch"], other["fuse"])
    return [rank, count, f"{unit * 1000:.0f}", *(spread([one / unit for one in figure], 2) for figure in figures)]


def switches(catalogue: Catalogue, runs: int) -> list[Sequence[object]]:
    """One line a model: it comes while another one runs."""
    ids = [model.id for model in catalogue.models]
    kinds = {
        "ready": Pool(catalogue, device="cpu", max_models=len(ids)),
        "parked": Pool(catalogue, device="cpu", max_models=1, host_bytes=2**40),
        "from files": Pool(catalogue, device="cpu", max_models=1),
    }
    rows: list[Sequence[object]] = []
    for id, other in zip(ids, [*ids[1:], ids[0]], strict=True):
        unit = step_seconds(kinds["ready"], id)
        row: list[object] = [id, f"{kinds['ready'].model(id).placement.bytes / 1e6:.0f}", f"{unit * 1000:.1f}"]
        for pool in kinds.values():
            pool.model(id)
            seconds = measure(partial(pool.model, id), runs, prepare=partial(pool.model, other))
            row.append(spread([one / unit for one in seconds], 2))
        rows.append(row)
    return rows


def step_seconds(pool: Pool, id: str) -> float:
    """CPU seconds of one denoising step: of a long job, less those of a short one."""
    few, many = 2, 22

    def work(steps: int) -> float:
        request = Txt2ImgRequest(model=id, prompt="a red circle", seed=0, num_inference_steps=steps)
        job = Job("bench", 0, resolve(request, check(request, pool.catalogue), {}), 0.0)
        return measure(lambda: generate([job], pool, _NO_STORAGE, Nobody()), 1)[0]

    work(few)
    return (work(many) - work(few)) / (many - few)


#: A txt2img job reads nothing.
_NO_STORAGE: Any = None


def main() -> None:
    """Measure and print the tables."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 4], help="adapters at once, up to 4")
    parser.add_argument("--only", choices=["adapters", "models"], help="one of the two tables")
    arguments = parser.parse_args()
    gc.freeze()  # as a worker does
    keep_arithmetic()
    silence_known_warnings()
    torch.set_num_threads(1)
    built_in = read_catalogue(BUILT_IN_CATALOGUE)
    with report("swap"):
        if arguments.only != "models":
            kinds = [(arguments.ranks[0], count) for count in arguments.counts]
            print_adapters(built_in, [*kinds, *((rank, 1) for rank in arguments.ranks[1:])], arguments.runs)
        if arguments.only != "adapters":
            columns = ["model", "MB", "ms of a step", "switch, ready", "switch, parked", "load from files"]
            print_table(columns, switches(built_in, arguments.runs))
        print(f"\nin steps; median (range) of {arguments.runs} runs, CPU time of one thread")


def print_adapters(built_in: Catalogue, kinds: Sequence[tuple[int, int]], runs: int) -> None:
    """The first table; `kinds` are (rank, adapters)."""
    with tempfile.TemporaryDirectory() as name:
        base, folder = build(built_in), Path(name)
        rows = [LoraSpec(id=id, family="sdxl", source=str(folder / f"{id}.safetensors")) for id in _NAMES]
        catalogue = built_in.model_copy(update={"loras": tuple(rows)})
        table = [row(base, catalogue, folder, rank, count, runs) for rank, count in kinds]
        print_table(
            ["rank", "adapters", "ms of a step", "first load, ours", "load and unload, diffusers",
             "switch, ours", "switch, diffusers", "fuse and unfuse, diffusers"], table,
        )  # fmt: skip
        changed = write_lora(base.unet, "unet", folder / "one.safetensors", 4, 0)
        print(f"\nin steps; {changed} layers changed\n")


if __name__ == "__main__":
    main()
