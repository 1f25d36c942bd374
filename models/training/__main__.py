"""`python -m models.training STAGE`: trains, exports or judges one artefact. `--help` lists the stages."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FAMILIES = ("sdxl", "sd3", "flux")


def main(arguments: Sequence[str]) -> int:
    """Runs the stage here, or in several processes when --ranks asks for them."""
    options = _parser().parse_args(arguments)
    if options.ranks > 1 and "RANK" not in os.environ:
        return _launch(options.ranks, arguments)
    _run(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.training", description=__doc__)
    parser.add_argument("--ranks", type=int, default=1, help="processes that train together, one thread each")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in runs/")
    stages = parser.add_subparsers(dest="stage", required=True)
    vae = stages.add_parser("vae", help="the autoencoder")
    vae.add_argument("channels", type=int, choices=(4, 16))
    text = stages.add_parser("text", help="text encoders")
    text.add_argument("which", choices=("clip", "blind-clip", "t5"))
    network = stages.add_parser("denoiser", help="UNet or transformer")
    network.add_argument("family", choices=FAMILIES)
    control = stages.add_parser("controlnet", help="a ControlNet for a trained denoiser")
    control.add_argument("family", choices=FAMILIES)
    control.add_argument("kind", choices=("silhouette", "canny"))
    export = stages.add_parser("export", help="writes a trained checkpoint to models/")
    export.add_argument("family", choices=FAMILIES)
    export.add_argument("--control", choices=("silhouette", "canny"), help="this ControlNet instead")
    blank = stages.add_parser("untrained", help="writes a checkpoint and its ControlNets with random weights")
    blank.add_argument("family", choices=FAMILIES)
    judge = stages.add_parser("judge", help="draws 200 fixed test captions and counts what is right")
    judge.add_argument("family", choices=FAMILIES)
    judge.add_argument("--sheet", type=Path, help="save a contact sheet here")
    judge.add_argument("--json", type=Path, help="save the figures here")
    ceiling = stages.add_parser("judge-vae", help="counts what is still right after an autoencoder")
    ceiling.add_argument("channels", type=int, choices=(4, 16))
    return parser


def _run(options: argparse.Namespace) -> None:
    # Each stage is imported when it is asked for: the judge needs no torch, and a stage not the others.
    if options.stage == "vae":
        from models.training import autoencoder

        autoencoder.train(options.channels, options.resume)
    elif options.stage == "text":
        from models.training import text

        text.train(options.which, options.resume)
    elif options.stage == "denoiser":
        from models.training import denoiser

        denoiser.train(options.family, options.resume)
    elif options.stage == "controlnet":
        from models.training import controlnet

        controlnet.train(options.family, options.kind, options.resume)
    elif options.stage == "export" and options.control:
        from models.training import controlnet, export

        trained = controlnet.load(options.family, options.control)
        export.write(trained, export.control_folder(options.family, options.control))
    elif options.stage == "export":
        from models.training import denoiser, export

        words = export.make_tokenizers()
        parts = denoiser.load_parts(options.family, words)
        export.write(export.assemble(options.family, parts, words), export.checkpoint_folder(options.family))
    elif options.stage == "untrained":
        from models.training import export

        export.write_untrained(options.family)
    elif options.stage == "judge":
        from models.training import figures

        figures.report(options.family, options.sheet, options.json)
    elif options.stage == "judge-vae":
        from models.training import figures

        figures.report_autoencoder(options.channels)


def _launch(ranks: int, arguments: Sequence[str]) -> int:
    """Starts the same command once per rank, on this machine."""
    shared = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    shared["MASTER_PORT"] = os.environ.get("MASTER_PORT", "29577")
    command = [sys.executable, "-m", "models.training", *arguments]
    children = [
        subprocess.Popen(command, env={**shared, "RANK": str(index)})  # noqa: S603  our own command
        for index in range(ranks)
    ]
    return max(child.wait() for child in children)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
