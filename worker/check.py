"""`python -m worker.check`: whether a worker could start here; with `--deep`, whether each model makes an image.

Prints one line for each thing that is right, and exits with status 1 and one line where something is not. Needs no
Redis and serves nothing.
"""

from __future__ import annotations

import argparse

from contracts.processes.start_errors import start_errors_in_one_line
from contracts.provenance.opening import check_credentials, check_receipt_key
from contracts.requests.model_defaults import read_checked_catalogue
from contracts.settings import SharedSettings
from contracts.tracing.opening import open_tracing
from worker.runtime.host_environment import set_library_options
from worker.settings import WorkerSettings


def main(words: list[str] | None = None) -> None:
    """Check; raises SystemExit where something is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--deep", action="store_true", help="try all models whose files are on this machine")
    parser.add_argument("--model", help="try this model")
    arguments = parser.parse_args(words)
    with start_errors_in_one_line("darkroom"):
        settings = WorkerSettings()
        set_library_options(settings.device)
        _check(SharedSettings(), settings, is_deep=arguments.deep, model=arguments.model)


def _check(shared: SharedSettings, settings: WorkerSettings, *, is_deep: bool, model: str | None) -> None:
    # Imported here: torch takes seconds, and settings that are wrong are told before that.
    from worker.runtime.device import describe_device, pick_device

    device = pick_device(settings.device)
    print(f"device     {describe_device(device)}", flush=True)  # noqa: T201
    check_credentials(shared)
    check_receipt_key(shared)
    open_tracing(shared, "darkroom-check").close()
    if is_deep or model is not None:
        _rehearse(shared, settings, model)


def _rehearse(shared: SharedSettings, settings: WorkerSettings, only: str | None) -> None:
    """Load a model, or each one whose files are here, as a worker would, and generate a small image."""
    from worker.generation.trial import try_model
    from worker.pool.pool import Pool
    from worker.runtime.warnings import silence_known_warnings

    silence_known_warnings()
    pool = Pool(
        read_checked_catalogue(shared.catalogue),
        device=settings.device,
        budget_bytes=settings.budget_bytes,
        policy=settings.policy,
    )
    for model in pool.catalogue.models if only is None else [pool.catalogue.model(only)]:
        if not pool.fetcher.is_here(model.id):
            print(f"model      {model.id}: to be downloaded first, not tried", flush=True)  # noqa: T201
            continue
        pool.prepare(model.id)
        try_model(pool, model.id)
        print(f"model      {model.id}: loaded, and made an image", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
