"""Options of a command for weights that are quantized otherwise than a model's row says."""

from __future__ import annotations

import argparse

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.quantizations import QUANTIZATIONS, kinds_of
from contracts.catalogue.rows.models import ModelSpec


def add_quantization_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--quantization` and `--text-encoder-quantization`."""
    parser.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        help="quantization of the denoiser, as in a catalogue row; changes images",
    )
    parser.add_argument(
        "--text-encoder-quantization",
        choices=kinds_of("torchao"),
        help="quantization of all text encoders, as in a catalogue row; changes images",
    )


def with_quantization(
    catalogue: Catalogue, model: ModelSpec, arguments: argparse.Namespace
) -> tuple[Catalogue, ModelSpec]:
    """Return the catalogue in which a model's row names what the options do, and that row.

    Raises:
        RuntimeError: the model is quantized already.
    """
    changes: dict[str, object] = {}
    if arguments.quantization is not None:
        if model.is_quantized:
            raise RuntimeError(f"{model.id} is quantized already; leave --quantization out")
        changes["quantization"] = arguments.quantization
    if arguments.text_encoder_quantization is not None:
        if model.text_encoder_quantization:
            raise RuntimeError(
                f"text encoders of {model.id} are quantized already; leave --text-encoder-quantization out"
            )
        names = [encoder.name for encoder in model.family_spec.text_encoders]
        changes["text_encoder_quantization"] = dict.fromkeys(names, arguments.text_encoder_quantization)
    row = model.model_copy(update=changes)
    models = tuple(row if one.id == model.id else one for one in catalogue.models)
    return catalogue.model_copy(update={"models": models}), row
