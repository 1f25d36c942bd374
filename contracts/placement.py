"""The memory plan: where each component of a model lives while one request runs within a budget of bytes.

A pure function of component sizes, the request, the operator's policy and the budget, without torch: the API
refuses by it, `darkroom plan` prints it, a worker takes it. It opens no file and moves nothing.

Every way to place the components costs seconds and needs bytes. `rungs` is the ladder of those ways of which
none both costs more and needs more than another: its first rung is the fastest, and each step down is slower
and smaller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType

from contracts.activations import Canvas, estimate
from contracts.inventory import Component, Inventory, Role
from contracts.plans import Home, Load, Placed, Plan, Policy, gib

#: Pinned host memory to the device, bytes a second: others measured 20–25 GB/s over PCIe 4 × 16.
_TRANSFER_BYTES_A_SECOND = 20e9
#: Moving groups back and forth takes longer than one copy: FLUX.1 streamed by leaves took 1.86 s a step, where
#: its 23.8 GB would cross in 1.19 s (diffusers' own benchmarks).
_STREAMING_FACTOR = 1.86 / 1.19
#: What fetching a component costs beside its bytes, so that none is moved for nothing.
_MOVE_SECONDS = 0.02
#: T5-XXL (9.5 GB in two bytes a value) read 512 tokens in 60 core-seconds; eight cores share them.
_CPU_SECONDS_A_BYTE = 60 / 8 / 9.5e9
#: Seconds that a rung must save to be worth a changed image: tiles change it slightly, 8 bits visibly, and
#: without T5 it is another image, which is the last resort.
_TILED_SECONDS, _FP8_SECONDS, _ABSENT_SECONDS = 0.15, 3.0, 1e6
#: Side of a tile in pixels, where the VAE was not trained on smaller pictures.
_TILE_SIDE = 512
#: No batch is larger, whatever fits.
_MAX_IMAGES = 1024
#: Bytes of a weight in 8 bits, its share of norms and embeddings that stay as they are included.
_FP8_BYTES, _FP8_KEPT = 1, 0.02

_STAGES: Mapping[Role, str] = MappingProxyType(
    {
        Role.TEXT_ENCODER: "encode",
        Role.T5: "encode",
        Role.DENOISER: "denoise",
        Role.CONTROLNET: "denoise",
        Role.ADAPTER: "denoise",
        Role.VAE: "decode",
    }
)


def plan(inventory: Inventory, load: Load, budget_bytes: int, policy: Policy | None = None) -> Plan:
    """The best plan that fits; where none does, the smallest, with `fits` false and every rung in its reason."""
    ladder = rungs(inventory, load, budget_bytes, policy)
    chosen = next((rung for rung in ladder if rung.fits), None)
    if chosen is None:
        needs = "; ".join(f"{rung.rung}: {gib(rung.peak_bytes)}" for rung in ladder)
        reason = f"no plan fits {gib(budget_bytes)}; {needs}"
        return ladder[-1].model_copy(update={"reason": reason})
    above = ladder.index(chosen) - 1
    if above < 0:
        return chosen
    return chosen.model_copy(
        update={"reason": f"{chosen.reason}; {ladder[above].rung} would need {gib(ladder[above].peak_bytes)}"}
    )


def step_down(ladder: Sequence[Plan], failed: Plan) -> Plan | None:
    """The next plan down after one that ran out of memory; its peak is strictly lower. None at the end."""
    return next((rung for rung in ladder if rung.peak_bytes < failed.peak_bytes), None)


def rungs(inventory: Inventory, load: Load, budget_bytes: int, policy: Policy | None = None) -> list[Plan]:
    """All plans worth taking, from the fastest to the smallest; never empty."""
    policy = Policy() if policy is None else policy
    every = [_weigh(way, inventory, load, budget_bytes) for way in _ways(inventory, policy)]
    if policy.host_bytes is not None:
        bound = max(policy.host_bytes, min(candidate.plan.host_bytes for candidate in every))
        every = [candidate for candidate in every if candidate.plan.host_bytes <= bound]
    ladder: list[Plan] = []
    for candidate in sorted(every, key=lambda one: (one.cost_seconds, one.plan.peak_bytes)):
        if not ladder or candidate.plan.peak_bytes < ladder[-1].peak_bytes:
            ladder.append(candidate.plan)
    return ladder


@dataclass(frozen=True)
class _Way:
    """A home for each role, and how the VAE and the denoiser work."""

    text_encoder: Home
    t5: Home
    denoiser: Home
    vae: Home
    tiled: bool
    fp8: bool

    def home(self, role: Role) -> Home:
        """Where components of this role live; adapters and ControlNets go with the denoiser."""
        homes = {Role.TEXT_ENCODER: self.text_encoder, Role.T5: self.t5, Role.VAE: self.vae}
        return homes.get(role, self.denoiser)


def _ways(inventory: Inventory, policy: Policy) -> Iterator[_Way]:
    """All combinations that the policy allows; without a T5 its homes count once."""
    has_t5 = any(component.role is Role.T5 for component in inventory.components)
    stay_or_visit = (Home.DEVICE, Home.VISIT)
    for text_encoder, t5, denoiser, vae, tiled, fp8 in product(
        stay_or_visit,
        _t5_homes(inventory, policy) if has_t5 else (Home.ABSENT,),
        (*stay_or_visit, Home.STREAMED),
        stay_or_visit,
        (False, True),
        (False, True) if policy.allow_fp8 else (False,),
    ):
        yield _Way(text_encoder, t5, denoiser, vae, tiled, fp8)


def _t5_homes(inventory: Inventory, policy: Policy) -> tuple[Home, ...]:
    if policy.t5 == "off" and inventory.t5_optional:
        return (Home.ABSENT,)
    last = (Home.ABSENT,) if policy.allow_drop_t5 and inventory.t5_optional else ()
    every = (Home.DEVICE, Home.VISIT, Home.STREAMED, Home.CPU)
    allowed = {"gpu": (Home.DEVICE,), "visit": (Home.VISIT, Home.STREAMED), "cpu": (Home.CPU,)}
    return (*allowed.get(policy.t5, every), *last)


@dataclass(frozen=True)
class _Candidate:
    """A plan and what it is ordered by."""

    plan: Plan
    cost_seconds: float


def _weigh(way: _Way, inventory: Inventory, load: Load, budget_bytes: int) -> _Candidate:
    """The plan of one way, its bytes and its cost."""
    tile_side = tile_of(inventory) if way.tiled else None
    parts = tuple(_place(component, way, inventory) for component in (*inventory.components, *load.extras))
    weights, work = _weights_by_stage(parts), _work_by_stage(inventory, load.canvas, tile_side)
    stage_bytes = {stage: weights[stage] + work[stage] for stage in weights}
    peak_bytes = max(stage_bytes.values())
    fits = peak_bytes <= budget_bytes
    room = _room(inventory, load.canvas, tile_side, {stage: budget_bytes - weights[stage] for stage in weights})
    seconds = _extra_seconds(parts, load)
    plan = Plan(
        model=inventory.model,
        rung=_name(way, parts),
        parts=parts,
        tile_side=tile_side,
        fp8=way.fp8,
        stage_bytes=stage_bytes,
        activation_bytes=max(work.values()),
        peak_bytes=peak_bytes,
        host_bytes=sum(part.bytes for part in parts if part.home in _IN_HOST_MEMORY),
        budget_bytes=budget_bytes,
        fits=fits,
        images=load.canvas.images,
        batch_images=max(int(room), load.canvas.images) if fits else min(int(room), load.canvas.images - 1),
        batch_pixels=int(room * load.canvas.width * load.canvas.height),
        extra_seconds=round(seconds, 2),
        reason=f"needs {gib(peak_bytes)} of {gib(budget_bytes)}",
    )
    return _Candidate(plan, seconds + _change_seconds(way, parts))


def _place(component: Component, way: _Way, inventory: Inventory) -> Placed:
    home = way.home(component.role)
    share = 1.0
    if way.fp8 and component.role is Role.DENOISER:
        share = min(1.0, _FP8_BYTES / inventory.value_bytes + _FP8_KEPT)
    whole, group = int(component.bytes * share), int(component.group_bytes * share)
    on_device = {Home.DEVICE: whole, Home.VISIT: whole, Home.STREAMED: group}.get(home, 0)
    groups = component.groups if home is Home.STREAMED else None
    held = 0 if home is Home.ABSENT else whole
    return Placed(
        component=component.name,
        role=component.role,
        home=home,
        bytes=held,
        device_bytes=on_device,
        groups=groups,
    )


def _weights_by_stage(parts: Sequence[Placed]) -> dict[str, int]:
    """Bytes of weights on the device in each stage."""
    stays = sum(part.device_bytes for part in parts if part.home is Home.DEVICE)
    stages = dict.fromkeys(("encode", "denoise", "decode"), 0)
    for part in parts:
        if part.home in (Home.VISIT, Home.STREAMED):
            stage = _STAGES[part.role]
            # Text encoders come one after the other; what denoises works together.
            in_turn = stage == "encode"
            stages[stage] = max(stages[stage], part.device_bytes) if in_turn else stages[stage] + part.device_bytes
    return {stage: stays + comes for stage, comes in stages.items()}


def _work_by_stage(inventory: Inventory, canvas: Canvas, tile_side: int | None) -> dict[str, int]:
    stages = estimate(canvas, inventory.configs, inventory.value_bytes, tile_side)
    return {"encode": stages.encode_bytes, "denoise": stages.denoise_bytes, "decode": stages.decode_bytes}


def _room(inventory: Inventory, canvas: Canvas, tile_side: int | None, free: Mapping[str, int]) -> float:
    """Images of this size that fit, a fraction included; every stage grows linearly with them."""
    one, two = (_work_by_stage(inventory, replace(canvas, images=images), tile_side) for images in (1, 2))
    room = float(_MAX_IMAGES)
    for stage, bytes_free in free.items():
        growth = two[stage] - one[stage]
        if growth > 0:
            room = min(room, 1 + (bytes_free - one[stage]) / growth)
        elif bytes_free < one[stage]:
            room = 0.0
    return max(0.0, room)


def tile_of(inventory: Inventory) -> int:
    """Side in pixels of the tiles that the VAE works in when it is tiled."""
    trained = inventory.configs.get("vae", {}).get("sample_size")
    return min(trained, _TILE_SIDE) if isinstance(trained, int) else _TILE_SIDE


def _extra_seconds(parts: Sequence[Placed], load: Load) -> float:
    """What the homes cost a request whose prompt is new; work hides some of it."""
    seconds = 0.0
    for part in parts:
        transfer = _MOVE_SECONDS + part.bytes / _TRANSFER_BYTES_A_SECOND
        if part.home is Home.VISIT:
            seconds += transfer
        elif part.home is Home.STREAMED:
            times = load.steps if _STAGES[part.role] == "denoise" else 1
            seconds += transfer * _STREAMING_FACTOR * times
        elif part.home is Home.CPU:
            seconds += _CPU_SECONDS_A_BYTE * part.bytes
    return seconds


def _change_seconds(way: _Way, parts: Sequence[Placed]) -> float:
    """The cost of an image that differs."""
    dropped = any(part.home is Home.ABSENT for part in parts)
    return way.tiled * _TILED_SECONDS + way.fp8 * _FP8_SECONDS + dropped * _ABSENT_SECONDS


def _name(way: _Way, parts: Sequence[Placed]) -> str:
    """What differs from everything resident, in the order of the work."""
    named = []
    for role, words in _WORDS.items():
        homes = {part.home for part in parts if part.role is role}
        named += [f"{words} {_DOES[home]}" for home in homes if home is not Home.DEVICE]
    named += ["VAE tiled"] * way.tiled + ["denoiser in fp8"] * way.fp8
    return ", ".join(named) or "all resident"


_IN_HOST_MEMORY = (Home.VISIT, Home.STREAMED, Home.CPU)
_WORDS = {Role.TEXT_ENCODER: "text encoders", Role.T5: "T5", Role.DENOISER: "denoiser", Role.VAE: "VAE"}
_DOES = {Home.VISIT: "on visit", Home.CPU: "on the CPU", Home.STREAMED: "streamed", Home.ABSENT: "left out"}
