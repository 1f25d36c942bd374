"""The plan of a job with several stages."""

from __future__ import annotations

from contracts.memory.plan import PlacedComponent, Placement, Plan
from contracts.memory.sizes.component import Role
from contracts.memory.stages import join_stages


def _plan(name: str, weights: int, peak: int, *, budget: int = 100, extra: float = 0.0) -> Plan:
    part = PlacedComponent(
        name="unet", role=Role.DENOISER, placement=Placement.DEVICE, bytes=weights, device_bytes=weights
    )
    return Plan(
        model=name, name=f"plan of {name}", components=(part,), tile_side=None, fp8=False,
        stage_bytes={"denoise": peak}, activation_bytes=peak - weights, peak_bytes=peak, host_bytes=0,
        budget_bytes=budget, fits=peak <= budget, images=1, batch_images=weights, batch_pixels=64 * weights,
        extra_seconds=extra, reason=f"{name} needs {peak}",
    )  # fmt: skip


def test_one_plan_covers_both_stages_whose_peaks_do_not_add_up() -> None:
    plan = join_stages([_plan("base", 50, 70), _plan("refiner", 40, 60, extra=1.5)])

    assert (plan.model, plan.peak_bytes, plan.fits, plan.batch_images) == ("base", 70, True, 40)
    assert plan.placements == {"unet": Placement.DEVICE, "refiner:unet": Placement.DEVICE}
    assert plan.stage_bytes == {"denoise": 70, "refiner:denoise": 60}
    assert plan.name == "plan of base; refiner: plan of refiner"
    assert plan.extra_seconds >= 1.5


def test_a_stage_that_does_not_fit_is_the_reason_why_the_job_does_not() -> None:
    plan = join_stages([_plan("base", 50, 70), _plan("refiner", 140, 160)])

    assert (plan.fits, plan.reason) == (False, "refiner needs 160")


def test_a_job_of_one_stage_has_its_plan() -> None:
    plan = _plan("base", 50, 70)

    assert join_stages([plan]) is plan
