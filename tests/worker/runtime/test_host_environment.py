"""What the environment says before torch is imported, and what it tells of a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.forked_text import running
from worker.runtime.host_environment import CPU_NICENESS, set_library_options, sign_of_gpu

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def test_a_device_node_is_a_sign_of_a_gpu_unless_the_environment_hides_it(tmp_path: Path) -> None:
    assert sign_of_gpu(tmp_path, {}) is None
    (tmp_path / "nvidia0").touch()
    assert sign_of_gpu(tmp_path, {}) == f"{tmp_path / 'nvidia0'} exists"
    assert sign_of_gpu(tmp_path, {"CUDA_VISIBLE_DEVICES": "-1"}) is None


@pytest.mark.parametrize(
    ("device", "environment", "mode"),
    [
        ("cpu", {}, "AVX2,STRICT"),
        ("auto", NO_GPU, "AVX2,STRICT"),
        ("auto", {"CUDA_VISIBLE_DEVICES": "0"}, "AUTO"),
        ("cuda", {}, "AUTO"),
        ("cuda:1", NO_GPU, "AUTO"),
        ("cpu", {"MKL_CBWR": "COMPATIBLE"}, "COMPATIBLE"),
        ("cuda", {"MKL_CBWR": "AVX2,STRICT"}, "AVX2,STRICT"),
    ],
)
def test_arithmetic_is_the_same_on_all_machines_only_where_the_cpu_generates_images(
    device: str, environment: dict[str, str], mode: str
) -> None:
    found = dict(environment)
    set_library_options(device, found)
    assert found["MKL_CBWR"] == mode


def test_the_allocator_grows_its_segments_unless_the_operator_says_how_it_works() -> None:
    found: dict[str, str] = {}
    set_library_options("cuda", found)
    assert found["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    own = {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}
    set_library_options("cuda", own)
    assert "PYTORCH_ALLOC_CONF" not in own


@pytest.mark.parametrize(("device", "niceness"), [("cpu", CPU_NICENESS), ("cuda", 0)])
def test_a_worker_goes_behind_the_api_only_where_it_generates_on_the_processor(device: str, niceness: int) -> None:
    script = (
        "import os; from worker.runtime.host_environment import let_others_go_first as go; "
        f"before = os.nice(0); go({device!r}); go({device!r}); print(before, os.nice(0))"
    )
    with running(script) as (process, shown):
        before, after = map(int, shown.read().split())
        assert process.wait(60) == 0
    assert after == max(before, niceness)


def test_options_can_be_set_before_torch_is_imported() -> None:
    script = "import sys, worker.main; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
