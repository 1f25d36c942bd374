"""The memory plans of four published models at seven budgets: `python -m bench.plans > docs/plans.md`.

Pure arithmetic on the sizes in `contracts/architectures/`; nothing is built, loaded or measured.
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

<!-- Printed by `python -m bench.plans`; a test holds this page against it. -->

Before anything is loaded, a worker knows what every component takes, from the headers of the weights, or from the
published configuration (`contracts/architectures/`) of a checkpoint that is not on the machine yet; and from the
request what the work takes beside it. The plan is the best way to place the components whose peak stays within the
budget: the fastest, where one that changes images counts as slower (tiles by 0.15 s, fp8 by 3 s, a missing T5 by
more than any other way). Its reason names the next better one, and what that needs.
`darkroom plan --model flux.1-dev --budget 24GiB --candidates` prints it with all alternatives,
`POST /v1/plan` for a request and the workers that are alive.

| a component is | where its weights are |
|---|---|
| resident | on the device throughout |
| on demand | in pinned host memory; on the device while its own stage (encode, denoise, decode) runs |
| streamed | in pinned host memory; on the device group by group, the next one coming while one works |
| on the CPU | in host memory; its results are sent over |
| skipped | not loaded (T5, by families that can, where the operator allows it: `DARKROOM_WORKER_ALLOW_DROP_T5`) |

*VAE tiled*: images are decoded one by one, in tiles. *Denoiser in fp8*: its weights are stored in 8 bits
(`DARKROOM_WORKER_ALLOW_FP8`). Both change images, tiles slightly.

## How the numbers come about

- **Weights**: exact. `python -m bench.architectures` builds the four models on torch's meta device and compares.
- **Work**: coefficients for pixels and prompt tokens, counted tensor by tensor on the meta device: for these
  models and a ControlNet of each, for one image of 1024 × 1024 and for two, from 2 % less than is held to 8 % more
  (CLIP aside, which is small). The peaks of the shapes models' real runs on the CPU, all tasks, one image and two,
  lie between 0.90 and 1.01 of the plan (`python -m bench.peaks`).
  Scratch memory of kernels and what CUDA's allocator wastes are not in it; a worker plans with nine tenths of the
  card, so a card of 8 GiB is a budget of 7.2.
- **ControlNets** that are still on a hub weigh what was published of them; one that nobody here knows weighs as
  much as the largest of its family. The plan says that this is assumed, until the first job has fetched it. A
  **LoRA** stays on the device whatever is streamed, and what it adds to the widest layers is in the work.
- **Seconds**: arithmetic on published figures (20 GB/s from pinned memory; 1.56 times that for streaming, as
  diffusers' benchmarks of FLUX.1 have it; T5 on eight cores of a CPU), for a new prompt. None was measured here:
  no machine with a GPU was at hand.
- **Batch**: images of this size in one call that the same plan still holds.

## 28 plans

One image of the model's own size, bfloat16, guidance as the model has it by default; nothing that changes images
visibly is allowed.
"""
ALLOWED = """
## With leave to change images

The same at the budgets where it makes a difference, with fp8 and without T5 allowed.
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
        raise ValueError(f"{name} is no architecture that is known")
    return components


def _workload(name: str) -> Workload:
    return default_workload(_find(name)[1])


if __name__ == "__main__":
    main()
