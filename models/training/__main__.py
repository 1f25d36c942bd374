"""`python -m models.training STAGE`: trains, exports or judges one artefact. `--help` lists the stages."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from models.training.data import effects
from models.training.judging import edits as judged_edits
from models.training.judging import figures, trials
from models.training.networks import export
from models.training.stages import (
    autoencoder,
    classifier,
    controlnet,
    denoiser,
    edits,
    effect,
    eraser,
    guidance,
    image_encoder,
    inversion,
    ip_adapter,
    lora,
    mismatches,
    t2i_adapter,
    text,
    unpack,
    upscaler,
)


def main(arguments: Sequence[str]) -> int:
    """Runs the stage here, or in several processes when --ranks asks for them."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.ranks > 1 and not _is_shared(options):
        parser.error(f"--ranks: {options.stage} runs in one process; leave it out")
    if options.ranks > 1 and "RANK" not in os.environ:
        return _launch(options.ranks, arguments)
    options.run(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.training", description=__doc__)
    parser.add_argument("--ranks", type=int, default=1, help="processes that train together, one thread each")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in runs/")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    _add_training(stages)
    _add_writing(stages)
    _add_judging(stages)
    return parser


def _is_shared(options: argparse.Namespace) -> bool:
    """Whether several processes can run the stage together."""
    return options.stage in ("vae", "text", "denoiser", "guidance")


def _add_training(stages: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    stage = stages.add_parser("vae", help="the autoencoder: 4 channels first, 16 grow from it")
    stage.add_argument("channels", type=int, choices=(4, 16))
    stage.set_defaults(run=lambda o: autoencoder.train(o.channels, o.resume))
    stage = stages.add_parser("text", help="text encoders")
    stage.add_argument("which", choices=("clip", "blind-clip", "t5"))
    stage.set_defaults(run=lambda o: text.train(o.which, o.resume))
    stage = stages.add_parser("denoiser", help="UNet or transformer")
    stage.add_argument("family", choices=export.CHECKPOINTS)
    stage.set_defaults(run=_train_denoiser)
    stage = stages.add_parser("guidance", help="teaches a trained denoiser its guidance embedding")
    stage.add_argument("family", choices=("flux",))
    stage.set_defaults(run=lambda o: guidance.train(o.family, o.resume))
    stage = stages.add_parser("controlnet", help="a ControlNet for a trained denoiser")
    stage.add_argument("family", choices=export.FAMILIES)
    stage.add_argument("kind", choices=export.CONTROLS)
    stage.set_defaults(run=lambda o: controlnet.train(o.family, o.kind, o.resume))
    stage = stages.add_parser("lora", help="an adapter, written to models/loras/")
    stage.add_argument("family", choices=export.FAMILIES)
    stage.add_argument("effect", choices=tuple(effects.EFFECTS))
    stage.set_defaults(run=lambda o: lora.train(o.family, o.effect, o.resume))
    _add_other_adapters(stages)
    stage = stages.add_parser("classifier", help="the classifier of shapes, written to models/safety/no-stars/")
    stage.set_defaults(run=lambda _: classifier.train())

    stage = stages.add_parser("upscaler", help="the upscaler, written to models/upscalers/")
    stage.set_defaults(run=lambda _: upscaler.train())
    stage = stages.add_parser("eraser", help="the eraser, written to models/erasers/")
    stage.set_defaults(run=lambda _: eraser.train())


def _add_other_adapters(stages: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    stage = stages.add_parser("image-encoder", help="what sees the references of IP-Adapters")
    stage.add_argument("which", choices=("clip", "siglip"))
    stage.set_defaults(run=lambda o: image_encoder.train(o.which, o.resume))
    stage = stages.add_parser("ip-adapter", help="an IP-Adapter, for FLUX Redux, written to models/ip_adapters/")
    stage.add_argument("family", choices=tuple(ip_adapter.NAMES))
    stage.set_defaults(run=lambda o: ip_adapter.train(o.family, o.resume))
    stage = stages.add_parser("effect", help="an adapter of another kind than LoRA, written to models/loras/")
    stage.add_argument("kind", choices=tuple(effect.KINDS))
    stage.set_defaults(run=lambda o: effect.train(o.kind, o.resume))
    stage = stages.add_parser("inversion", help="a textual inversion, written to models/textual_inversions/")
    stage.set_defaults(run=lambda _: inversion.write())
    stage = stages.add_parser("t2i-adapter", help="a T2I-Adapter that reads silhouettes")
    stage.set_defaults(run=lambda o: t2i_adapter.train(o.resume))


def _add_writing(stages: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    stage = stages.add_parser("export", help="writes a trained checkpoint, or one ControlNet, to models/")
    stage.add_argument("family", choices=export.CHECKPOINTS)
    stage.add_argument("--control", choices=export.CONTROLS, help="this ControlNet instead")
    stage.set_defaults(run=_export)
    stage = stages.add_parser(
        "unpack", help="takes autoencoders and text encoders from models/ instead of training"
    )
    stage.set_defaults(run=lambda _: unpack.write_all())
    stage = stages.add_parser("untrained", help="writes a checkpoint and its ControlNets with random weights")
    stage.add_argument("family", choices=export.FAMILIES)
    stage.add_argument("--control", choices=export.CONTROLS, help="only this one, for the trained checkpoint")
    stage.set_defaults(run=_write_untrained)
    stage = stages.add_parser("mismatches", aliases=["misfits"], help="writes adapters that must be refused")
    stage.set_defaults(run=lambda _: mismatches.write_all())


def _add_judging(stages: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    stage = stages.add_parser("judge", help="draws 200 fixed test captions, or makes edits; counts what is right")
    stage.add_argument("family", choices=export.CHECKPOINTS)
    stage.add_argument("--sheet", type=Path, help="save a contact sheet here")
    stage.add_argument("--json", type=Path, help="save the figures here")
    stage.add_argument("--without-t5", action="store_true", help="leave SD3's T5 out")
    stage.add_argument("--steps", type=int, default=figures.STEPS, help="draw in fewer or more steps")
    stage.set_defaults(run=_judge)
    stage = stages.add_parser("judge-vae", help="counts what is still right after an autoencoder")
    stage.add_argument("channels", type=int, choices=(4, 16))
    stage.set_defaults(run=lambda o: figures.report_autoencoder(o.channels))
    stage = stages.add_parser("trial", help="measures what adapters or ControlNets change")
    stage.add_argument("what", choices=("adapters", "controls"))
    stage.add_argument("family", choices=export.FAMILIES)
    stage.set_defaults(run=_try)


def _train_denoiser(options: argparse.Namespace) -> None:
    if options.family == export.EDITING:
        edits.train(options.resume)
    else:
        denoiser.train(options.family, options.resume)


def _judge(options: argparse.Namespace) -> None:
    if options.family == export.EDITING:
        judged_edits.report(options.sheet, options.json, options.steps)
    else:
        figures.report(options.family, options.sheet, options.json, options.without_t5, options.steps)


def _export(options: argparse.Namespace) -> None:
    if options.family == export.EDITING:
        export.write(edits.assemble(), export.checkpoint_folder(options.family))
        return
    if options.control:
        trained = controlnet.load(options.family, options.control)
        export.write(trained, export.control_folder(options.family, options.control))
        return
    words = export.make_tokenizers()
    parts = denoiser.load_parts(options.family, words)
    export.write(export.assemble(options.family, parts, words), export.checkpoint_folder(options.family))


def _write_untrained(options: argparse.Namespace) -> None:
    if options.control:
        fresh = export.build_control(options.family, denoiser.load(options.family))
        export.write(fresh, export.control_folder(options.family, options.control))
    else:
        export.write_untrained(options.family)


def _try(options: argparse.Namespace) -> None:
    report = trials.report_adapters if options.what == "adapters" else trials.report_controls
    report(options.family)


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
