"""The memory plans of four published models at seven budgets: `python -m bench.plans > docs/plans.md`.

Pure arithmetic on `contracts/weights/architectures/` and `contracts/memory/activation_tables/`; nothing is built,
loaded or measured.
"""

from __future__ import annotations

from pathlib import Path

from bench.table import print_table
from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.memory.components import ModelComponents, read_components
from contracts.memory.plan import Plan, Policy, Workload, default_workload, gib
from contracts.memory.planner import plan
from contracts.weights.architectures import Architecture, read_architectures

GIB = 2**30
BUDGETS = tuple(size * GIB for size in (6, 8, 12, 16, 24, 48, 80))
#: From small to large.
MODELS = ("sdxl", "sd3-medium", "sd3.5-large", "flux.1-dev")

ABOUT = """# Memory plans

<!-- Printed by `python -m bench.plans`; a test compares this page with what it prints. -->

Before anything is loaded, a worker knows the size of every component, from the headers of the weights, or from
the published configuration (`contracts/weights/architectures/`) of a checkpoint that has not been downloaded
yet; and from the request it knows the activations. The plan is the fastest one whose peak stays within the
budget, where a plan that changes images counts as slower (tiles by 0.15 s, fp8 by 3 s, a skipped T5 by more
than any other plan). Its reason names the next better plan, and what that needs. `darkroom plan --model
flux.1-dev --budget 24GiB --candidates` prints a plan with all alternatives, `POST /v1/plan` the plan of a
request on the live workers.

| placement | where the weights are |
|---|---|
| resident (`device`) | on the device throughout |
| on demand (`on_demand`) | in pinned host memory; on the device during their own stage (encode, denoise, decode) |
| streamed (`streamed`) | in pinned host memory; on the device group by group, the next copied while one works |
| on the CPU (`cpu`) | in host memory; computed on the CPU, the results are sent to the device |
| skipped (`skipped`) | not loaded (T5 of SD3, where the operator sets `DARKROOM_WORKER_ALLOW_DROP_T5`) |

*VAE tiled*: images are decoded one by one, in tiles. *Denoiser in fp8*: its weights are stored in 8 bits
(`DARKROOM_WORKER_ALLOW_FP8`). Both change images, tiles only slightly.

## Where the numbers come from

- **Weights**: exact. `python -m bench.architectures` builds the four models on torch's meta device and
  compares.
- **Activations**: counted tensor by tensor on the meta device, as a function of pixels, prompt tokens and
  images, with and without adapters; `python -m bench.architectures --write` writes them to
  `contracts/memory/activation_tables/`, a file a component class. A configuration that was not counted gets the
  nearest one's, scaled by its width, and the plan says so. The peaks of real runs of the shapes models on the
  CPU, all tasks, one image and two, are between 0.90 and 1.01 of the plan (`python -m bench.peaks`). Scratch
  memory of kernels and what CUDA's allocator wastes are not included; a worker plans with what
  is free on the card, less a margin of 2 % (at least 256 MiB): about 7.2 GiB of a card of 8.
- **ControlNets** that are still on a hub count as published; an unknown one counts as the largest of its
  family, and the plan says that this is assumed, until the first job has downloaded it. A **LoRA** stays on the
  device even when the denoiser is streamed, and what it adds to the widest layers is part of the activations.
- **Seconds**: arithmetic on published figures (20 GB/s from pinned memory; 1.56 times that for streaming, from
  diffusers' benchmarks of FLUX.1; T5 on eight cores of a CPU), for a new prompt. None was measured on this
  machine, which has no GPU.
- **Batch**: images of this size that one call can generate with the same plan.

## 28 plans

One image of the model's default size, bfloat16, default guidance; nothing that changes images visibly is
allowed.
"""
ALLOWED = """
## With permission to change images

The same at the budgets where it makes a difference, with fp8 and a skipped T5 allowed.
"""


def main() -> None:
    """Print the page."""
    print(ABOUT)
    sized = [(_components(name), _workload(name)) for name in MODELS]
    print_table(["model", "budget", "plan", "peak", "extra s", "batch", "reason"], _rows(sized, Policy()))
    print(ALLOWED)
    usual = {(row[0], row[1]): row[2] for row in _rows(sized, Policy())}
    allowed = _rows(sized, Policy(allow_fp8=True, allow_drop_t5=True))
    changed = [row for row in allowed if usual[row[0], row[1]] != row[2]]
    print_table(["model", "budget", "plan", "peak", "extra s", "batch", "reason"], changed)


def _rows(sized: list[tuple[ModelComponents, Workload]], policy: Policy) -> list[list[str]]:
    return [_row(plan(model, workload, budget, policy)) for model, workload in sized for budget in BUDGETS]


def _row(chosen: Plan) -> list[str]:
    name = chosen.name if chosen.fits else "none"
    figures = [gib(chosen.peak_bytes), f"{chosen.extra_seconds:g}", str(chosen.batch_images)]
    return [chosen.model, gib(chosen.budget_bytes), name, *figures, chosen.reason]


def _find(name: str) -> tuple[Architecture, ModelSpec]:
    architecture = next(one for one in read_architectures() if one.id == name)
    return architecture, ModelSpec(id=name, family=architecture.family, source=architecture.sources[0])


def _components(name: str) -> ModelComponents:
    _, model = _find(name)
    catalogue = Catalogue(root=Path("/nowhere"), default_model=name, models=(model,))
    components = read_components(catalogue, model, 2)
    if components is None:
        raise ValueError(f"{name} is not a known architecture")
    return components


def _workload(name: str) -> Workload:
    return default_workload(_find(name)[1])


if __name__ == "__main__":
    main()
