"""How placements, tiles, fp8, ControlNets and adapters change the bytes of each stage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contracts.memory.activations import ActivationCost, Activations, Retained, WorkloadShape
from contracts.memory.estimate import Estimate
from contracts.memory.plan import Placement, Strategy
from contracts.memory.sizes.component import Component, ModelComponents, Role
from contracts.memory.workload import Workload

MIB = 2**20


def peaks(*pixel: float) -> Activations:
    return Activations(tuple(ActivationCost(pixel=one) for one in pixel))


TEXT_ENCODER = Component("clip", Role.TEXT_ENCODER, 10 * MIB, 1 * MIB)
T5 = Component("t5", Role.T5, 100 * MIB, 5 * MIB, activations=Activations((ActivationCost(token=1000.0),)))
DENOISER = Component("net", Role.DENOISER, 200 * MIB, 20 * MIB, "block", activations=peaks(10.0))
VAE_ACTIVATIONS = replace(peaks(60.0), encoding=(ActivationCost(pixel=50.0),))
VAE = Component("vae", Role.VAE, 20 * MIB, 2 * MIB, activations=VAE_ACTIVATIONS, tile_side=64)
ALL = 330 * MIB
CONTROLNET = Component("controlnet:a", Role.CONTROLNET, 30 * MIB, activations=peaks(1.0))
ENCODED_CONTROLNET = replace(CONTROLNET, activations=replace(peaks(1.0), encodes_controls=True))
ADAPTER = Component("lora:a", Role.ADAPTER, 7 * MIB, 1 * MIB)
RESIDENT = Strategy(Placement.DEVICE, Placement.DEVICE, Placement.DEVICE, Placement.DEVICE, tiled=False, fp8=False)
WORKLOAD = Workload(WorkloadShape(256, 256, guided=False, text_tokens=100))
PIXELS = 256 * 256


def estimate(workload: Workload = WORKLOAD, net: Component = DENOISER, **changes: Any) -> Estimate:
    """All resident but for the changed placements."""
    model = ModelComponents("m", (TEXT_ENCODER, T5, net, VAE), value_bytes=2, t5_optional=True)
    return Estimate.of(replace(RESIDENT, **changes), model, workload)


def stages(workload: Workload = WORKLOAD, net: Component = DENOISER, **changes: Any) -> dict[str, int]:
    return estimate(workload, net, **changes).stage_bytes


def size(values: float) -> int:
    """Bytes of values in the model's dtype."""
    return int(2 * values)


def test_resident_weights_count_in_every_stage_and_activations_in_their_own() -> None:
    assert stages() == {
        "encode": ALL + size(100 * 1000),
        "denoise": ALL + size(10 * PIXELS),
        "decode": ALL + size(60 * PIXELS),
    }


def test_the_tokens_of_an_instruction_count_where_the_prompt_is_encoded_and_nowhere_else() -> None:
    """The denoiser is not given them."""
    reads = replace(DENOISER, activations=Activations((ActivationCost(token=2000.0),)))
    longer = Workload(replace(WORKLOAD.shape, instruction_tokens=40))
    plain, instructed = stages(net=reads), stages(longer, reads)
    assert instructed["encode"] == ALL + size(140 * 1000) > plain["encode"]
    assert instructed["denoise"] == plain["denoise"] == ALL + size(100 * 2000)


def test_control_images_that_come_once_are_encoded_in_one_row_of_an_image() -> None:
    shape = replace(WORKLOAD.shape, guided=True, controls=1)
    twice, once = (Workload(replace(shape, controls_once=one), (ENCODED_CONTROLNET,)) for one in (False, True))
    assert shape.passes == 2
    assert stages(twice)["decode"] - stages(once)["decode"] == size(2 * (50 + 3) * PIXELS - 60 * PIXELS)


def test_a_component_on_demand_counts_in_its_own_stage_only() -> None:
    resident, on_demand = stages(), stages(denoiser=Placement.ON_DEMAND)
    assert on_demand["denoise"] == resident["denoise"]
    assert on_demand["encode"] == resident["encode"] - 200 * MIB
    assert on_demand["decode"] == resident["decode"] - 200 * MIB


def test_text_encoders_on_demand_come_one_after_the_other() -> None:
    on_demand = stages(text_encoder=Placement.ON_DEMAND, t5=Placement.ON_DEMAND)
    assert on_demand["encode"] == stages()["encode"] - 10 * MIB
    assert on_demand["denoise"] == stages()["denoise"] - 110 * MIB


def test_a_streamed_component_takes_its_groups_in_its_own_stage() -> None:
    streamed = stages(denoiser=Placement.STREAMED)
    assert streamed["denoise"] == stages()["denoise"] - 180 * MIB
    assert streamed["decode"] == stages()["decode"] - 200 * MIB


@pytest.mark.parametrize("placement", [Placement.CPU, Placement.SKIPPED])
def test_a_component_that_is_not_on_the_device_needs_no_activations_there(placement: Placement) -> None:
    without = stages(t5=placement)
    assert without["encode"] == ALL - 100 * MIB
    assert without["denoise"] == stages()["denoise"] - 100 * MIB


def test_fp8_halves_the_denoisers_weights() -> None:
    assert stages()["denoise"] - stages(fp8=True)["denoise"] == pytest.approx(0.48 * 200 * MIB, rel=0.001)


def test_tiled_decoding_needs_the_activations_of_one_tile_of_one_image() -> None:
    eight = Workload(replace(WORKLOAD.shape, images=8))
    tiled, whole = stages(eight, tiled=True)["decode"] - ALL, stages(eight)["decode"] - ALL
    assert tiled < whole / 4
    assert tiled > size(60 * 64 * 64)
    assert stages(eight, tiled=True)["denoise"] == stages(eight)["denoise"]


def test_guidance_doubles_only_the_denoisers_activations() -> None:
    guided = stages(Workload(replace(WORKLOAD.shape, guided=True)))
    assert guided["denoise"] - ALL == 2 * (stages()["denoise"] - ALL)
    assert (guided["encode"], guided["decode"]) == (stages()["encode"], stages()["decode"])


def test_the_vae_encodes_a_controlnets_image_once_a_pass() -> None:
    guided = replace(WORKLOAD.shape, guided=True)
    plain, encoded = (stages(Workload(guided, (net,))) for net in (CONTROLNET, ENCODED_CONTROLNET))
    assert plain["decode"] == stages()["decode"] + 30 * MIB
    assert encoded["decode"] - plain["decode"] == size((2 * 50 - 60) * PIXELS)
    assert encoded["denoise"] == plain["denoise"]


@pytest.mark.parametrize(
    ("inputs", "values"),
    [({"started": True}, 3), ({"started": True, "masked": True}, 7), ({"controls": 2}, 6), ({}, 0)],
)
def test_input_images_count_in_every_stage(inputs: dict[str, Any], values: int) -> None:
    with_inputs = stages(Workload(replace(WORKLOAD.shape, **inputs)))
    for stage, without in stages().items():
        assert with_inputs[stage] - without == size(values * PIXELS)


def test_control_images_are_kept_once_a_pass_unless_the_vae_encodes_them() -> None:
    guided = replace(WORKLOAD.shape, guided=True, controls=1)
    plain = stages(Workload(replace(guided, controls=0), (CONTROLNET,)))
    kept, encoded = (stages(Workload(guided, (net,))) for net in (CONTROLNET, ENCODED_CONTROLNET))
    for stage, without in plain.items():
        assert kept[stage] - without == size(2 * 3 * PIXELS)
    assert encoded["denoise"] == plain["denoise"]
    assert encoded["decode"] - plain["decode"] == size((2 * 50 + 2 * 3 - 60) * PIXELS)


def test_embeddings_and_latents_are_kept_while_denoising_and_decoding() -> None:
    retained = Retained(latents=ActivationCost(pixel=0.25), prompt=ActivationCost(token=10.0))
    denoiser = replace(DENOISER, activations=replace(DENOISER.activations, retained=retained))
    with_retained = stages(net=denoiser)
    for stage, without in stages().items():
        assert with_retained[stage] - without == (
            0 if stage == "encode" else size(5 * 0.25 * PIXELS + 3 * 10 * 100)
        )
    started = Workload(replace(WORKLOAD.shape, started=True, guided=True))
    more = stages(started, denoiser)["decode"] - stages(started)["decode"]
    assert more == size(9 * 0.25 * PIXELS + 6 * 10 * 100)


def test_without_a_vae_input_images_are_not_kept_as_latents_besides() -> None:
    retained = Retained(latents=ActivationCost(pixel=3.0))
    denoiser = replace(DENOISER, activations=replace(DENOISER.activations, retained=retained))
    model = ModelComponents("m", (TEXT_ENCODER, denoiser), value_bytes=2)
    masked = Workload(replace(WORKLOAD.shape, started=True, masked=True))
    plain, inpaint = (Estimate.of(RESIDENT, model, workload).stage_bytes for workload in (WORKLOAD, masked))
    assert inpaint["denoise"] - plain["denoise"] == size(7 * PIXELS), "an image, a mask and what that leaves"


def test_residuals_are_kept_beside_the_denoiser_and_controlnets_work_in_turn() -> None:
    def net(pixel: float, name: str = "controlnet:a") -> Component:
        activations = replace(peaks(pixel), residuals=ActivationCost(pixel=3.0))
        return replace(CONTROLNET, name=name, activations=activations)

    small, large = (stages(Workload(WORKLOAD.shape, (net(pixel),))) for pixel in (7.0, 20.0))
    assert small["denoise"] == ALL + 30 * MIB + size((10 + 3) * PIXELS)
    assert small["decode"] == ALL + 30 * MIB + size((60 + 3) * PIXELS)
    assert large["denoise"] == ALL + 30 * MIB + size((20 + 3) * PIXELS)
    two = Workload(replace(WORKLOAD.shape, controls=2), (net(20.0), net(20.0, "controlnet:b")))
    images = 2 * 3
    assert stages(two)["denoise"] == ALL + 60 * MIB + size((20 + 2 * 3 + images) * PIXELS)


def test_adapters_stay_on_the_device_while_the_denoiser_is_offloaded() -> None:
    adapted = Workload(WORKLOAD.shape, (ADAPTER,))
    for placement in (Placement.DEVICE, Placement.ON_DEMAND, Placement.STREAMED):
        with_adapter, without = stages(adapted, denoiser=placement), stages(denoiser=placement)
        assert {with_adapter[stage] - without[stage] for stage in without} == {7 * MIB}


def test_adapters_raise_the_denoisers_activations() -> None:
    activations = replace(
        DENOISER.activations,
        one_adapter=(ActivationCost(pixel=14.0),),
        more_adapters=(ActivationCost(pixel=17.0),),
    )
    denoiser = replace(DENOISER, activations=activations)
    adapter = Workload(WORKLOAD.shape, (ADAPTER,))
    adapters = Workload(WORKLOAD.shape, (ADAPTER, replace(ADAPTER, name="lora:b")))
    plain, adapted = stages(net=denoiser), stages(adapter, denoiser)
    assert plain == stages()
    assert adapted["denoise"] == ALL + 7 * MIB + size(14 * PIXELS)
    assert adapted["decode"] == plain["decode"] + 7 * MIB
    assert stages(adapters, denoiser)["denoise"] == ALL + 14 * MIB + size(17 * PIXELS)


def test_of_a_streamed_component_only_the_layers_at_work_count() -> None:
    """The step with the most activations is not the one with the largest layers."""
    costs = (
        ActivationCost(pixel=10.0, layers=MIB),
        ActivationCost(pixel=1.0, layers=9 * MIB),
        ActivationCost(pixel=2.0),
    )
    by_leaf = replace(DENOISER, groups="leaf", value_bytes=2, activations=Activations(costs))
    others = ALL - 200 * MIB
    shapes = [WorkloadShape(side, side, guided=False, text_tokens=100) for side in (256, 2048)]
    small, large = (stages(Workload(shape), by_leaf, denoiser=Placement.STREAMED) for shape in shapes)
    assert small["denoise"] == others + size(2 * PIXELS) + 20 * MIB
    assert large["denoise"] == others + size(10 * 64 * PIXELS + MIB)
    by_block = replace(by_leaf, groups="block")
    whole = stages(WORKLOAD, by_block, denoiser=Placement.STREAMED)
    assert whole["denoise"] == others + size(10 * PIXELS) + 20 * MIB


def test_offloaded_weights_count_as_host_memory() -> None:
    offloaded = estimate(t5=Placement.CPU, denoiser=Placement.STREAMED, vae=Placement.ON_DEMAND)
    in_float32 = 2 * 100
    assert offloaded.host_bytes == (in_float32 + 200 + 20) * MIB
    assert estimate(t5=Placement.SKIPPED).host_bytes == 0


def test_an_estimate_is_named_by_what_is_not_resident() -> None:
    assert estimate().name == "all resident"
    offloaded: dict[str, Any] = {
        "text_encoder": Placement.ON_DEMAND,
        "t5": Placement.CPU,
        "denoiser": Placement.STREAMED,
    }
    assert estimate(**offloaded, vae=Placement.ON_DEMAND, tiled=True, fp8=True).name == (
        "text encoders on demand, T5 on the CPU, denoiser streamed, VAE on demand, VAE tiled, denoiser in fp8"
    )
