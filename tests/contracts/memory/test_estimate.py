"""What each home, the tiles and fp8 do to the bytes of each stage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contracts.memory.activations import ActivationCost, Retained, WorkloadShape
from contracts.memory.components import Component, ModelComponents, Role
from contracts.memory.estimate import Estimate
from contracts.memory.plan import Placement, Strategy, Workload

MIB = 2**20
PARTS = {
    "clip": Component("clip", Role.TEXT_ENCODER, 10 * MIB, 1 * MIB),
    "t5": Component("t5", Role.T5, 100 * MIB, 5 * MIB, work=(ActivationCost(token=1000.0),)),
    "net": Component("net", Role.DENOISER, 200 * MIB, 20 * MIB, "block", work=(ActivationCost(pixel=10.0),)),
    "vae": Component(
        "vae",
        Role.VAE,
        20 * MIB,
        2 * MIB,
        work=(ActivationCost(pixel=60.0),),
        encoding=(ActivationCost(pixel=50.0),),
        tile_side=64,
    ),
}
MODEL = ModelComponents("m", tuple(PARTS.values()), value_bytes=2, t5_optional=True)
RESIDENT = Strategy(Placement.DEVICE, Placement.DEVICE, Placement.DEVICE, Placement.DEVICE, tiled=False, fp8=False)
LOAD = Workload(WorkloadShape(256, 256, guided=False, text_tokens=100))
ALL = 330 * MIB
NET = Component("controlnet:a", Role.CONTROLNET, 30 * MIB, work=(ActivationCost(pixel=1.0),))


def stages(workload: Workload = LOAD, **changes: Any) -> dict[str, int]:
    return Estimate.of(replace(RESIDENT, **changes), MODEL, workload).stage_bytes()


def work(values: float) -> int:
    return int(2 * values)


def test_resident_components_are_there_throughout_and_their_work_in_its_stage() -> None:
    pixels = 256 * 256
    assert stages() == {
        "encode": ALL + work(100 * 1000),
        "denoise": ALL + work(10 * pixels),
        "decode": ALL + work(60 * pixels),
    }


def test_who_visits_is_there_in_its_own_stage_alone() -> None:
    here = stages()
    away = stages(denoiser=Placement.ON_DEMAND)
    assert away["denoise"] == here["denoise"]
    assert away["encode"] == here["encode"] - 200 * MIB
    assert away["decode"] == here["decode"] - 200 * MIB


def test_text_encoders_that_visit_come_one_after_the_other() -> None:
    away = stages(text_encoder=Placement.ON_DEMAND, t5=Placement.ON_DEMAND)
    assert away["encode"] == stages()["encode"] - 10 * MIB
    assert away["denoise"] == stages()["denoise"] - 110 * MIB


def test_who_is_streamed_takes_its_groups_in_its_own_stage() -> None:
    away = stages(denoiser=Placement.STREAMED)
    assert away["denoise"] == stages()["denoise"] - 180 * MIB
    assert away["decode"] == stages()["decode"] - 200 * MIB


@pytest.mark.parametrize("home", [Placement.CPU, Placement.SKIPPED])
def test_who_is_not_on_the_device_takes_nothing_of_it_not_even_for_work(home: Placement) -> None:
    away = stages(t5=home)
    assert away["encode"] == ALL - 100 * MIB
    assert away["denoise"] == stages()["denoise"] - 100 * MIB


def test_in_8_bits_the_denoiser_is_half_as_large() -> None:
    assert stages()["denoise"] - stages(fp8=True)["denoise"] == pytest.approx(0.48 * 200 * MIB, rel=0.001)


def test_tiles_make_decoding_a_matter_of_one_tile_of_one_image() -> None:
    batch = Workload(replace(LOAD.shape, images=8))
    tiled, whole = stages(batch, tiled=True)["decode"] - ALL, stages(batch)["decode"] - ALL
    assert tiled < whole / 4
    assert tiled > work(60 * 64 * 64)
    assert stages(batch, tiled=True)["denoise"] == stages(batch)["denoise"]


def test_guidance_doubles_the_denoisers_work_and_nothing_else() -> None:
    guided = stages(Workload(replace(LOAD.shape, guided=True)))
    assert guided["denoise"] - ALL == 2 * (stages()["denoise"] - ALL)
    assert (guided["encode"], guided["decode"]) == (stages()["encode"], stages()["decode"])


def test_a_controlnet_whose_picture_is_encoded_for_both_passes_makes_the_vae_work_harder() -> None:
    guided = replace(LOAD.shape, guided=True)
    plain = stages(Workload(guided, (NET,)))
    encoding = stages(Workload(guided, (replace(NET, encodes_controls=True),)))
    assert plain["decode"] == stages()["decode"] + 30 * MIB
    assert encoding["decode"] - plain["decode"] == work((2 * 50 - 60) * 256 * 256)
    assert encoding["denoise"] == plain["denoise"]


@pytest.mark.parametrize(
    ("brought", "values"),
    [({"started": True}, 3), ({"started": True, "masked": True}, 7), ({"controls": 2}, 6), ({}, 0)],
)
def test_the_pictures_of_a_request_stay_throughout(brought: dict[str, Any], values: int) -> None:
    with_pictures = stages(Workload(replace(LOAD.shape, **brought)))
    for stage, size in stages().items():
        assert with_pictures[stage] - size == work(values * 256 * 256)


def test_pictures_for_controlnets_are_there_once_a_pass_and_those_that_are_encoded_leave() -> None:
    guided = replace(LOAD.shape, guided=True, controls=1)
    plain = stages(Workload(replace(guided, controls=0), (NET,)))
    kept, encoded = (
        stages(Workload(guided, (NET,))),
        stages(Workload(guided, (replace(NET, encodes_controls=True),))),
    )
    for stage, size in plain.items():
        assert kept[stage] - size == work(2 * 3 * 256 * 256)
    assert encoded["denoise"] == plain["denoise"]
    assert encoded["decode"] - plain["decode"] == work((2 * 50 + 2 * 3 - 60) * 256 * 256)


def test_prompts_and_latents_stay_from_the_first_step_to_the_last_image() -> None:
    held = Retained(latents=ActivationCost(pixel=0.25), prompt=ActivationCost(token=10.0))
    parts = {**PARTS, "net": replace(PARTS["net"], held=held)}
    model = replace(MODEL, components=tuple(parts.values()))
    found = Estimate.of(RESIDENT, model, LOAD).stage_bytes()
    for stage, size in stages().items():
        assert found[stage] - size == (0 if stage == "encode" else work(5 * 0.25 * 256 * 256 + 3 * 10 * 100))
    started = Workload(replace(LOAD.shape, started=True, guided=True))
    more = Estimate.of(RESIDENT, model, started).stage_bytes()["decode"] - stages(started)["decode"]
    assert more == work(9 * 0.25 * 256 * 256 + 6 * 10 * 100)


def test_what_a_controlnet_hands_over_stands_beside_the_denoisers_work_and_its_own_does_not() -> None:
    busy = replace(NET, work=(ActivationCost(pixel=7.0),), handed=ActivationCost(pixel=3.0))
    assert stages(Workload(LOAD.shape, (busy,)))["denoise"] == ALL + 30 * MIB + work((10 + 2 * 3) * 256 * 256)
    assert stages(Workload(LOAD.shape, (busy,)))["decode"] == ALL + 30 * MIB + work((60 + 3) * 256 * 256)
    busier = replace(busy, work=(ActivationCost(pixel=20.0),))
    assert stages(Workload(LOAD.shape, (busier,)))["denoise"] == ALL + 30 * MIB + work((20 + 3) * 256 * 256)
    both = Workload(replace(LOAD.shape, controls=2), (busier, replace(busier, name="controlnet:b")))
    pictures = 2 * 3
    assert stages(both)["denoise"] == ALL + 60 * MIB + work((20 + 2 * 3 + pictures) * 256 * 256)


def test_adapters_stay_on_the_device_whatever_is_streamed() -> None:
    load = Workload(LOAD.shape, (Component("lora:a", Role.ADAPTER, 7 * MIB, 1 * MIB),))
    for home in (Placement.DEVICE, Placement.ON_DEMAND, Placement.STREAMED):
        with_adapter, without = stages(load, denoiser=home), stages(denoiser=home)
        assert {with_adapter[stage] - without[stage] for stage in without} == {7 * MIB}


def test_where_adapters_act_the_denoiser_holds_more() -> None:
    net = replace(PARTS["net"], adapted=((ActivationCost(pixel=14.0),), (ActivationCost(pixel=17.0),)))
    model = replace(MODEL, components=(*(part for part in MODEL.components if part.name != "net"), net))
    load = Workload(LOAD.shape, (Component("lora:a", Role.ADAPTER, 7 * MIB),))
    plain, adapted = (Estimate.of(RESIDENT, model, one).stage_bytes() for one in (LOAD, load))
    assert plain == stages()
    assert adapted["denoise"] == ALL + 7 * MIB + work(14 * 256 * 256)
    assert adapted["decode"] == plain["decode"] + 7 * MIB
    several = replace(load, extras=(*load.extras, replace(load.extras[0], name="lora:b")))
    assert Estimate.of(RESIDENT, model, several).stage_bytes()["denoise"] == ALL + 14 * MIB + work(17 * 256 * 256)


def test_at_each_moment_only_the_layers_at_work_are_there() -> None:
    """The work that needs most values is not where the largest layers are."""
    moments = (
        ActivationCost(pixel=10.0, layers=MIB),
        ActivationCost(pixel=1.0, layers=9 * MIB),
        ActivationCost(pixel=2.0),
    )
    by_layer = replace(PARTS["net"], groups="leaf", value_bytes=2, work=moments)
    model = replace(MODEL, components=(*(part for part in MODEL.components if part.name != "net"), by_layer))
    streamed = replace(RESIDENT, denoiser=Placement.STREAMED)
    least, pixels = ALL - 200 * MIB, 256 * 256
    small, large = (
        Estimate.of(streamed, model, Workload(WorkloadShape(s, s, guided=False, text_tokens=100)))
        for s in (256, 2048)
    )
    assert small.stage_bytes()["denoise"] == least + work(2 * pixels) + 20 * MIB
    assert large.stage_bytes()["denoise"] == least + work(10 * 64 * pixels + MIB)
    by_block = replace(by_layer, groups="block")
    model = replace(model, components=(*model.components[:-1], by_block))
    assert Estimate.of(streamed, model, LOAD).stage_bytes()["denoise"] == least + work(10 * pixels) + 20 * MIB


def test_the_host_holds_what_is_not_on_the_device_to_stay() -> None:
    estimate = Estimate.of(
        replace(RESIDENT, t5=Placement.CPU, denoiser=Placement.STREAMED, vae=Placement.ON_DEMAND), MODEL, LOAD
    )
    assert estimate.host_bytes == 320 * MIB
    assert Estimate.of(replace(RESIDENT, t5=Placement.SKIPPED), MODEL, LOAD).host_bytes == 0


def test_a_rung_is_named_by_what_differs() -> None:
    assert Estimate.of(RESIDENT, MODEL, LOAD).name == "all resident"
    way = Strategy(
        Placement.ON_DEMAND, Placement.CPU, Placement.STREAMED, Placement.ON_DEMAND, tiled=True, fp8=True
    )
    assert Estimate.of(way, MODEL, LOAD).name == (
        "text encoders on demand, T5 on the CPU, denoiser streamed, VAE on demand, VAE tiled, denoiser in fp8"
    )
