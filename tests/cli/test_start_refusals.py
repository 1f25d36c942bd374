"""All that `darkroom up` and `darkroom check` refuse, each in one line that says where it is and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.main import main
from contracts.catalogue.families import FAMILIES
from tests.support.hub import Hub, serving, use_hub
from tests.support.hub_repositories import MODELS, checkpoint, sketch, with_class

ROWS = """default_model = "here"

[[models]]
id = "here"
family = "sdxl"
source = "here"

[[models]]
id = "far"
family = "sdxl"
source = "org/model"

[[controlnets]]
id = "edges"
family = "sdxl"
source = "edges"

[[loras]]
id = "tint"
family = "sdxl"
source = "tint.safetensors"
"""

Break = Callable[[Path, Hub, pytest.MonkeyPatch], object]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        hub.commit("org/model", sketch(checkpoint()))
        yield hub


@pytest.fixture
def folder(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a catalogue in which nothing is wrong."""
    shutil.copytree(MODELS / "shapes-sdxl", tmp_path / "here")
    shutil.copytree(MODELS / "controlnets" / "shapes-sdxl-silhouette", tmp_path / "edges")
    shutil.copy(MODELS / "loras" / "shapes-sdxl-tint.safetensors", tmp_path / "tint.safetensors")
    (tmp_path / "catalogue.toml").write_text(ROWS, encoding="utf-8")
    monkeypatch.setenv("DARKROOM_CATALOGUE", str(tmp_path / "catalogue.toml"))
    use_hub(monkeypatch, hub, tmp_path / "home")
    return tmp_path


def rewrite(old: str, new: str) -> Break:
    """One text of the catalogue replaced by another."""
    assert old in ROWS
    return lambda folder, hub, _: (folder / "catalogue.toml").write_text(
        ROWS.replace(old, new, 1), encoding="utf-8"
    )


def put_another_family(folder: Path, _hub: Hub, _patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder / "here")
    shutil.copytree(MODELS / "shapes-flux", folder / "here")


def cut_a_file(folder: Path, _hub: Hub, _patch: pytest.MonkeyPatch) -> None:
    file = next((folder / "here" / "unet").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])


REFUSALS: dict[str, tuple[Break, str]] = {
    "a typo in TOML": (rewrite('family = "sdxl"', 'family = sdxl"'), "catalogue.toml:5: Invalid value"),
    "a misspelt key": (
        rewrite("source = ", "sorce = "),
        "catalogue.toml:6: models.0.sorce: unknown key; did you mean source?",
    ),
    "a misspelt table": (
        rewrite("[[loras]]", "[[lora]]"),
        "catalogue.toml: lora: unknown key; did you mean loras?",
    ),
    "an unknown family": (
        rewrite('family = "sdxl"', 'family = "sdx"'),
        f"catalogue.toml:5: models.0: unknown family 'sdx'; known: {', '.join(FAMILIES)}; did you mean sdxl?",
    ),
    "a default out of range": (
        rewrite('source = "here"', 'source = "here"\ndefaults = { width = 65 }'),
        "catalogue.toml:7: models.0 (here): defaults.width must be a multiple of 8",
    ),
    "a missing folder": (
        lambda folder, hub, _: shutil.rmtree(folder / "here"),
        "catalogue.toml:6: here: here was not found on this machine and names nothing on a hub; use a path",
    ),
    "an empty folder": (
        lambda folder, hub, _: (folder / "here" / "model_index.json").unlink(),
        "catalogue.toml:6: here: here: the folder has no model_index.json",
    ),
    "a folder of another family": (
        put_another_family,
        "catalogue.toml:6: here: here: it is a FluxPipeline, and family sdxl needs a StableDiffusionXLPipeline: "
        'set family = "flux", or another source',
    ),
    "weights that are cut off": (cut_a_file, "is truncated: 100 bytes are missing"),
    "weights that are missing": (
        lambda folder, hub, _: shutil.rmtree(folder / "here" / "vae"),
        "catalogue.toml:6: here: here: here has no .safetensors weights of vae",
    ),
    "a ControlNet of another family": (
        lambda folder, hub, _: (folder / "edges" / "config.json").write_text(
            '{"_class_name": "FluxControlNetModel"}'
        ),
        "catalogue.toml:16: edges: edges: it is a FluxControlNetModel, and family sdxl needs a ControlNetModel",
    ),
    "a LoRA that is none": (
        lambda folder, hub, _: (folder / "tint.safetensors").write_bytes(b"not weights"),
        "catalogue.toml:21: tint: tint.safetensors: tint.safetensors is not a safetensors file",
    ),
    "a repository that is missing": (rewrite("org/model", "org/nothing"), ":11: far: org/nothing does not exist"),
    "a repository that is gated": (
        lambda folder, hub, _: hub.gates.update({"org/model": "hf_other"}),
        ":11: far: org/model is gated: accept its terms on the hub and set HF_TOKEN for the worker",
    ),
    "a repository of another family": (
        lambda folder, hub, _: hub.commit("org/model", with_class(sketch(checkpoint()), "FluxPipeline")),
        ":11: far: org/model is a FluxPipeline",
    ),
    "a misspelt variable": (
        lambda folder, hub, patch: patch.setenv("DARKROOM_WORKER_DEVIC", "cpu"),
        "DARKROOM_WORKER_DEVIC is not a setting and has no effect: did you mean DARKROOM_WORKER_DEVICE?",
    ),
    "a value that is wrong": (
        lambda folder, hub, patch: patch.setenv("DARKROOM_RESULT_TTL_SECONDS", "soon"),
        "DARKROOM_RESULT_TTL_SECONDS: Input should be a valid integer",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_wrong_is_said_in_one_line_before_anything_starts(
    name: str, folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_it, expected = REFUSALS[name]
    break_it(folder, hub, monkeypatch)

    for words in (["up", "--port", "0", "--data", str(folder / "data")], ["check"]):
        assert main(words) == 1
        printed = capsys.readouterr()
        assert expected in printed.err
        assert printed.err.startswith("darkroom: ")
        assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert not (folder / "data").exists()


def test_a_setting_that_a_part_refuses_ends_the_check_and_a_hub_that_is_away_does_not(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.stop()
    monkeypatch.setenv("DARKROOM_WORKER_MAX_MODELS", "0")
    monkeypatch.delenv("DARKROOM_REDIS_URL", raising=False)

    with pytest.raises(SystemExit) as ended:
        main(["check"])

    assert ended.value.code == 1
    printed = capfd.readouterr()
    assert "catalogue.toml, 2 models, 1 LoRA, 1 ControlNet" in printed.out
    assert printed.err.startswith("darkroom: DARKROOM_WORKER_MAX_MODELS: ")
    assert printed.err.count("\n") == 1
