"""`darkroom convert`: a hypernetwork's pickle becomes safetensors in another process; its code never runs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cli.main import main
from contracts.errors import AdapterRefused
from contracts.weights.adapters.lora_files import read_lora
from contracts.weights.formats.safetensors import read_header
from tests.support.hypernetworks import make_networks, write_hypernetwork, write_pickle
from worker.convert import convert
from worker.convert import main as convert_as_a_program


@pytest.mark.parametrize("norms", [False, True])
def test_tensors_and_settings_are_those_of_the_pickle(tmp_path: Path, norms: bool) -> None:
    networks = make_networks([64, 128], norms=norms)
    source = write_pickle(tmp_path / "net.pt", networks, activation_func="relu", activate_output=False)
    expected = write_hypernetwork(tmp_path / "expected.safetensors", networks)
    convert(source, tmp_path / "net.safetensors")
    made = load_file(tmp_path / "net.safetensors")
    own = load_file(expected)
    assert made.keys() == own.keys()
    assert all(torch.equal(made[name], own[name]) for name in own)
    assert read_header(tmp_path / "net.safetensors").metadata == read_header(expected).metadata


def test_files_from_before_the_web_ui_had_settings_are_read_with_its_defaults(tmp_path: Path) -> None:
    first, last = torch.ones(16, 8), torch.ones(8, 16)
    network = {
        "linear1.weight": first,
        "linear1.bias": first[:, 0],
        "linear2.weight": last,
        "linear2.bias": last[:, 0],
    }
    torch.save({8: (network, network), "step": 1}, tmp_path / "old.pt")
    convert(tmp_path / "old.pt", tmp_path / "old.safetensors")
    read = read_lora(tmp_path / "old.safetensors").hypernetwork
    assert read is not None
    assert (read.depths, read.activation, read.activate_output) == ({8: {"k": 2, "v": 2}}, "linear", True)


class Harmful:
    """A pickle that would run a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        ({"state_dict": {}}, "it has no pairs of networks"),
        ({8: ({},)}, "has no pair of networks for width 8"),
        ({8: ({"linear.0.weight": torch.ones(8, 8)}, {})}, "networks of width 8 lack v"),
        ({8: ({"attn.0.weight": torch.ones(8, 8)}, {})}, "which is not a layer of a hypernetwork"),
        ({8: ({"linear.0.weight": torch.ones(4, 8)}, {"linear.0.weight": torch.ones(8, 8)})}, "and must give 8"),
        ({8: ({}, {})}, "contains no networks"),
        ({8: [{"linear.0.weight": torch.ones(8, 8)}] * 2, "activation_func": "exec"}, "'exec' is not one of"),
    ],
)
def test_what_is_not_a_hypernetwork_is_refused_and_nothing_is_written(
    tmp_path: Path, stored: dict[Any, Any], text: str
) -> None:
    torch.save(stored, tmp_path / "net.pt")
    with pytest.raises(AdapterRefused, match=text):
        convert(tmp_path / "net.pt", tmp_path / "net.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["net.pt"]


def test_the_command_converts_in_another_process_and_says_in_one_line_what_it_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_pickle(tmp_path / "net.pt", make_networks([64]), activation_func="relu")
    assert main(["convert", str(source)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "net.safetensors")
    assert read_lora(tmp_path / "net.safetensors").hypernetwork is not None
    assert main(["convert", str(source)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "missing.pt")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("darkroom: ")
    assert "missing.pt" in line


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    harmful = tmp_path / "harmful.pt"
    harmful.write_bytes(pickle.dumps({8: Harmful(tmp_path / "run")}, protocol=2))
    with pytest.raises(SystemExit, match="its code is not run"):
        convert_as_a_program([str(harmful), str(tmp_path / "harmful.safetensors")])
    assert [file.name for file in tmp_path.iterdir()] == ["harmful.pt"]
