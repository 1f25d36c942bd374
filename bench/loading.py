"""What a cold model costs whom: `python -m bench.loading [--full-size sdxl]`.

First the part that a thread does beside the jobs: reading the files through for their hash, with the system's
cache of them emptied before; and the same for a model that was dropped, whose files the system still holds. Then
what is left for the thread that paints: building the model, and one copy of all weights, which is what a device
takes from it. `--full-size` writes a checkpoint of a published architecture with random weights first, below
`--folder`, and takes it away again.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from bench.full_size import write_catalogue, write_checkpoint
from bench.report import keep_arithmetic, options, report
from bench.table import print_table
from contracts.catalogue.catalogue import Catalogue, read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.architectures import read_architectures
from worker.checkpoints.files import weight_files
from worker.pool.pool import Pool
from worker.runtime.warnings import silence_known_warnings


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--full-size", metavar="ARCHITECTURE", help="sdxl, for one, of 6.9 GB")
    parser.add_argument("--folder", type=Path, help="where its files lie meanwhile")
    arguments = parser.parse_args()
    keep_arithmetic()
    silence_known_warnings()
    torch.set_num_threads(1)
    gc.freeze()  # as a worker does
    with report("loading"):
        rows = full_size_rows(arguments) if arguments.full_size else []
        built_in = read_catalogue(BUILT_IN_CATALOGUE)
        rows += [row(built_in, model.id, torch.float32, arguments.runs) for model in built_in.models]
        columns = ["model", "MB", "prepare, new", "prepare, dropped", "load", "copy", "load ÷ prepare, new"]
        print_table(columns, rows)
        print(f"\nCPU seconds of one thread, median of {arguments.runs} runs; load and copy hold up other jobs")


def full_size_rows(arguments: argparse.Namespace) -> list[Sequence[object]]:
    """One row, for an architecture as large as the real one."""
    (architecture,) = [one for one in read_architectures() if one.id == arguments.full_size]
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        write_checkpoint(architecture, folder / architecture.id, "cpu", torch.bfloat16)
        catalogue = read_catalogue(write_catalogue({architecture.id: architecture}, folder))
        return [row(catalogue, architecture.id, torch.bfloat16, arguments.runs)]
    finally:
        shutil.rmtree(folder)


def row(catalogue: Catalogue, id: str, dtype: torch.dtype, runs: int) -> Sequence[object]:
    """One line: what the thread beside the jobs does, and what is left."""
    rows = [model.model_copy(update={"dtype": str(dtype).partition(".")[2]}) for model in catalogue.models]
    catalogue = catalogue.model_copy(update={"models": tuple(rows)})
    folder = Path(catalogue.locate(catalogue.model(id).source))
    found: list[list[float]] = []
    for _ in range(runs):
        for file in weight_files(folder):
            release(file)
        pool = Pool(catalogue, device="cpu")
        works: tuple[Callable[[str], object], ...] = (pool.prepare, pool.prepare, pool.model, partial(copy, pool))
        found.append([seconds(partial(work, id)) for work in works])
    new, dropped, load, copied = (statistics.median(values) for values in zip(*found, strict=True))
    figures = [f"{value:.3f}" for value in (new, dropped, load, copied)]
    return [id, f"{pool.model(id).placement.bytes / 1e6:.0f}", *figures, f"{load / new:.2f}"]


def copy(pool: Pool, id: str) -> None:
    """Copy every weight once; a file's bytes are mapped, and come into memory only now."""
    for part in pool.model(id).base.components.values():
        for tensor in part.state_dict().values() if isinstance(part, torch.nn.Module) else ():
            tensor.clone()


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds: other work on the machine does not count, nor does waiting for the disk."""
    started = time.process_time()
    work()
    return time.process_time() - started


def release(file: Path) -> None:
    """Have the system forget a file that lies safely on the disk."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
