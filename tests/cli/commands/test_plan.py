"""`darkroom plan` on the command line, without a service, a device or loaded weights."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from cli.commands.plan import parse_bytes
from cli.main import main
from contracts.catalogue.reader import read_catalogue
from contracts.memory.planner import take_capacity
from contracts.memory.policy import Policy
from contracts.requests.defaults import resolve
from contracts.requests.schema import Txt2ImgRequest
from contracts.settings import BUILT_IN_CATALOGUE
from tests.support.hub import serving, use_hub
from tests.support.hub_repositories import checkpoint, loras
from tests.support.trained import TRAINED_FAMILIES


def test_it_prints_each_components_placement_and_how_many_images_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model", "flux.1-dev", "--budget", "24GiB"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line.split() for line in lines if line}
    assert table["transformer"][1:4] == ["22.2", "GiB", "device"]
    assert table["text_encoder_2"][1:4] == ["8.9", "GiB", "streamed"]
    assert "T5 streamed" in " ".join(table["plan:"])
    assert "sizes are those of the published architecture" in " ".join(lines)
    assert table["batch:"][1:4] == ["at", "most", "3"]


def test_text_encoders_are_counted_as_a_row_can_quantize_them(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "plan",
        "--model",
        "flux.1-dev",
        "--budget",
        "24GiB",
        "--text-encoder-quantization",
        "int8_weight_only",
    ]
    assert main(words) == 0
    table = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert table["transformer"][1:3] == ["22.2", "GiB"]
    assert table["text_encoder_2"][1:3] == ["4.6", "GiB"]


def test_it_counts_local_files_and_the_requests_controlnets_and_loras(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["plan", "--model", "shapes-sdxl", "--budget", "64MiB", "--dtype", "float32", "--batch", "2"]
    words += [
        "--task",
        "controlnet",
        "--controlnet",
        "shapes-sdxl-canny",
        "--lora",
        "shapes-sdxl-tint",
        "--candidates",
    ]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "controlnet:shapes-sdxl-canny" in printed
    assert "lora:shapes-sdxl-tint" in printed
    assert "published architecture" not in printed
    assert "fits  all resident" in printed
    assert "denoiser streamed" in printed


def test_a_card_gives_less_than_it_is_sold_with_and_options_that_would_win_time_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", "--model", "flux.1-dev", "--card", "24GB"]) == 0  # as its maker writes 24 GiB
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "a card of 24.0 GiB has 22.5 GiB for plans: less 0.5 GiB for its driver, 0.5 GiB for CUDA"
    )
    (extra,) = (line for line in lines if line.startswith("extra:"))
    assert float(extra.split()[2]) > 30  # the transformer is streamed
    (gain,) = (line for line in lines if line.startswith("with "))
    assert gain.startswith("with --allow-fp8: +0 s (")
    assert main(["plan", "--model", "flux.1-dev", "--card", "80GiB"]) == 0
    assert "with --" not in capsys.readouterr().out


def test_published_architectures_are_listed_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names[0] == "name"
    assert {"flux.1-dev", "flux.1-schnell", "sd1.5", "sd2.1", "sdxl", "pixart-sigma", "chroma1-hd", "z-image"} <= {
        *names
    }
    assert main(["plan", "--model", "flux.1-schnell", "--card", "48GiB"]) == 0
    assert "all resident" in capsys.readouterr().out


@pytest.mark.parametrize("budget_mib", [8, 14, 64])
@pytest.mark.parametrize("family", TRAINED_FAMILIES)
def test_it_prints_the_plan_that_the_api_makes_for_a_worker_with_that_budget(
    family: str, budget_mib: int, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    capacity = take_capacity(catalogue, budget_mib * 2**20, Policy(), lambda _: 4)
    model = catalogue.model(f"shapes-{family}")
    plan = capacity.plan(family, resolve(Txt2ImgRequest(prompt="-"), model, {}))
    assert plan is not None
    words = ["plan", "--model", model.id, "--budget", f"{budget_mib}MiB", "--dtype", "float32", "--device", "cpu"]
    assert main(words) == (0 if plan.fits else 1)
    lines = capsys.readouterr().out.splitlines()
    assert f"plan:     {plan.name}" in " ".join(lines)
    assert any(line.startswith("peak:") and line.endswith(f"({plan.reason})") for line in lines)
    table = {line.split()[0]: line.split() for line in lines if line}
    for part in plan.components:
        size = f"{part.bytes / 2**20:.1f}" if part.bytes else "0"
        assert (table[part.name][1], part.placement in table[part.name]) == (size, True)


def test_an_unknown_controlnet_is_assumed_to_be_as_large_as_its_familys_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = '[[models]]\nid = "m"\nfamily = "sdxl"\nsource = "stabilityai/stable-diffusion-xl-base-1.0"\n'
    net = '[[controlnets]]\nid = "far"\nfamily = "sdxl"\nsource = "somebody/control"\n'
    (tmp_path / "catalogue.toml").write_text(f'default_model = "m"\n{row}{net}')
    monkeypatch.setenv("DARKROOM_CATALOGUE", str(tmp_path / "catalogue.toml"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ["plan", "--model", "m", "--budget", "16GiB", "--task", "controlnet", "--controlnet", "far"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "2.3 GiB, assumed: the family's largest" in printed
    assert "the size of controlnet:far is assumed)" in printed
    assert "the size of far is not known from the hub: HF_HUB_OFFLINE forbids asking" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "flux.1-dev", "--budget", "1GiB"], "no plan fits 1.0 GiB; the smallest, "),
        (["--model", "sdxl", "--budget", "8GiB", "--width", "1001"], "--width: must be a multiple of 8, got 1001"),
        (["--model", "sdxl", "--budget", "8GiB", "--lora", "none"], "--lora: unknown LoRA 'none'"),
        (["--model", "sdxl", "--budget", "8GiB", "--task", "controlnet"], "--controlnet: "),
        (["--model", "none", "--budget", "8GiB"], "model 'none' does not exist"),
        (
            ["--model", "sdxl"],
            "name --model, and --card or --budget; `darkroom plan --list` lists published models",
        ),
    ],
)
def test_a_request_that_cannot_run_prints_one_line_and_exits_with_1(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *options]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith(f"darkroom: {message}")


def test_plans_that_change_images_need_permission(capsys: pytest.CaptureFixture[str]) -> None:
    tight = ["plan", "--model", "sd3-medium", "--budget", "6GiB", "--t5", "off"]
    assert main(tight) == 0
    assert "T5 skipped" in capsys.readouterr().out
    assert main([*tight[:-2], "--allow-fp8", "--candidates"]) == 0
    printed = capsys.readouterr().out
    assert "denoiser in fp8" in printed
    assert "skipped" not in printed


@pytest.mark.parametrize(
    ("text", "size"), [("12GiB", 12 * 2**30), ("500 MB", 500_000_000), ("1.5gib", 3 * 2**29), ("7B", 7)]
)
def test_sizes_with_units_are_parsed(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["12", "GiB", "-1GiB", "0GiB", "12 parsecs", ""])
def test_other_text_is_not_a_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_bytes(text)


def test_a_model_on_a_hub_is_planned_by_the_files_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = '[[models]]\nid = "m"\nfamily = "sdxl"\nsource = "org/sdxl"\n'
    lora = '[[loras]]\nid = "l"\nfamily = "sdxl"\nsource = "org/lora"\n'
    (tmp_path / "catalogue.toml").write_text(f'default_model = "m"\n{row}{lora}')
    monkeypatch.setenv("DARKROOM_CATALOGUE", str(tmp_path / "catalogue.toml"))
    words = ["plan", "--model", "m", "--budget", "16GiB", "--lora", "l"]
    with serving() as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        hub.commit("org/sdxl", checkpoint())
        hub.commit("org/lora", loras("tint"))
        assert main(words) == 0
        printed = capsys.readouterr().out
        assert "sizes are those of the files on the hub" in printed
        assert "MiB, on the hub" in printed
        hub.gates = {"org/sdxl": "token"}
        assert main(words) == 0
    printed = capsys.readouterr().out
    assert "sizes are those of the published architecture" in printed
    assert "the size of m is not known from the hub: org/sdxl is gated: accept its terms" in printed
