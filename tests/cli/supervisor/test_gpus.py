"""A worker for each GPU, with devices that the environment invents."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import main
from cli.supervisor.gpus import choose_gpus, read_list, worker_environments

FAKE = {"CUDA_VISIBLE_DEVICES": "3, GPU-8a, MIG-1b"}
LISTED = """GPU 0: NVIDIA A100 80GB PCIe (UUID: GPU-5d5ba0d6)
  MIG 3g.40gb     Device  0: (UUID: MIG-7c21b3d2)
  MIG 3g.40gb     Device  1: (UUID: MIG-9a0f4e11)
GPU 1: NVIDIA RTX A4000 (UUID: GPU-0e2a)
"""


def test_cards_are_those_that_cuda_would_see_in_its_order() -> None:
    assert choose_gpus("all", FAKE) == ["3", "GPU-8a", "MIG-1b"]
    assert choose_gpus("2, 0", FAKE) == ["MIG-1b", "3"]
    assert read_list(LISTED) == ["MIG-7c21b3d2", "MIG-9a0f4e11", "1"]


@pytest.mark.parametrize(
    ("wanted", "environ", "message"),
    [
        ("3", FAKE, "must be `all`, or numbers from 0 to 2, got '3'"),
        ("0,", FAKE, "must be `all`, or numbers from 0 to 2, got '0,'"),
        ("-1", FAKE, "must be `all`, or numbers from 0 to 2, got '-1'"),
        ("every", FAKE, "must be `all`, or numbers from 0 to 2"),
        ("1,1", FAKE, "names a card twice: give each worker its share of it with DARKROOM_WORKER_BUDGET_BYTES"),
        ("all", {"CUDA_VISIBLE_DEVICES": ""}, "no card was found"),
        ("all", {"CUDA_VISIBLE_DEVICES": "-1"}, "no card was found"),
        ("all", FAKE | {"DARKROOM_WORKER_DEVICE": "cpu"}, "DARKROOM_WORKER_DEVICE=cpu exclude each other"),
    ],
)
def test_what_names_no_card_is_refused_with_what_is_allowed(
    wanted: str, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(RuntimeError) as refused:
        choose_gpus(wanted, environ)
    assert message in str(refused.value)


def test_workers_share_a_card_only_where_each_has_its_part() -> None:
    assert choose_gpus("0,0", FAKE | {"DARKROOM_WORKER_BUDGET_BYTES": "10GiB"}) == ["3", "3"]


def test_each_worker_sees_one_card_and_has_a_name_of_its_own() -> None:
    environment = {"DARKROOM_WORKER_NAME": "a", "PATH": "/bin", **FAKE}
    first, second = worker_environments(environment, 1, ["3", "MIG-1b"])
    assert first == environment | {
        "CUDA_VISIBLE_DEVICES": "3", "DARKROOM_WORKER_DEVICE": "cuda", "DARKROOM_WORKER_NAME": "a-1",
    }  # fmt: skip
    assert (second["CUDA_VISIBLE_DEVICES"], second["DARKROOM_WORKER_NAME"]) == ("MIG-1b", "a-2")
    assert worker_environments(environment, 1, []) == [environment]
    assert [own["DARKROOM_WORKER_NAME"] for own in worker_environments(environment, 2, [])] == ["a-1", "a-2"]


def test_a_start_on_a_card_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert main(["up", "--gpus", "2", "--data", str(tmp_path / "data")]) == 1
    assert capsys.readouterr().err == "darkroom: --gpus must be `all`, or numbers from 0 to 1, got '2'\n"
    assert not (tmp_path / "data").exists()
    with pytest.raises(SystemExit):
        main(["up", "--gpus", "all", "--workers", "2"])
    assert "not allowed with argument --gpus" in capsys.readouterr().err
