"""Components of a checkpoint in diffusers layout: each of the class that its family needs, with all its weights.

diffusers and transformers (0.42, 5.23) draw random numbers for weights that a file lacks and drop those it has too
many of, with a line in the log. Here both are refused, by name. Knows no single files.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

import diffusers
import diffusers.pipelines.kolors  # which diffusers shows only where sentencepiece is installed
import torch
import transformers

from contracts.catalogue.families import ALL_FAMILIES
from contracts.errors import CatalogueError
from contracts.hub.repository_files import RepositoryFiles
from contracts.hub.selection import UNUSED_COMPONENTS, component_weights
from contracts.memory.activation_tables import OLD_TRANSFORMER, class_of
from contracts.weights.checkpoint_files import read_tensors
from contracts.weights.configs import read_config
from contracts.weights.formats.header_text import UnreadableWeights
from contracts.weights.quantized import read_quantization
from contracts.weights.quantized_files import QuantizedTensor
from worker.checkpoints.quantized import bitsandbytes_weights
from worker.checkpoints.quantized.bitsandbytes_weights import readable
from worker.checkpoints.quantized.torchao_weights import check_quantization, quantizer
from worker.checkpoints.tracking import some_of
from worker.families import DiffusersFamily
from worker.offload.stored_tensors import WrappedWeights
from worker.runtime import slices

#: Files of which a tokenizer has at least one.
_VOCABULARIES = ("vocab.json", "tokenizer.json", "spiece.model", "tokenizer.model", "vocab.txt")
#: Classes that may stand in for the one that a pipeline names.
_ALIKE = {
    "AutoencoderKL": ("AutoencoderTiny",),
    "CLIPTokenizer": ("CLIPTokenizerFast",),
    "AutoProcessor": ("PixtralProcessor",),
    "Gemma2PreTrainedModel": ("Gemma2Model",),
    "T5EncoderModel": ("MT5EncoderModel",),
}
#: Names of weights that a file may have beside a model's: buffers that are computed.
_COMPUTED = ("position_ids", "logit_scale")
#: Component -> how to quantize it: none is.
NOT_QUANTIZED: Mapping[str, str | None] = MappingProxyType({})


def load_components(
    family: DiffusersFamily,
    folder: Path,
    dtype: torch.dtype,
    variant: str | None,
    skipped: Collection[str] = (),
    quantizations: Mapping[str, str | None] = NOT_QUANTIZED,
) -> dict[str, Any]:
    """Load the models of a checkpoint's folder, but for those that are to be skipped.

    Args:
        quantizations: component -> how to quantize it, as the row names it.

    Raises:
        CatalogueError: the folder is of another class, lacks a component or weights, or holds weights that no
            layer takes.
        Exception: whatever the libraries raise for damaged files.
    """
    index = read_index(family, folder)
    files = RepositoryFiles.in_folder(folder)
    models = [name for name in index if name not in skipped and is_model(index[name])]
    tagged = {name: bool(variant and component_weights(files, name, variant)) for name in models}
    if variant is not None and not any(tagged.values()):
        raise CatalogueError(f"it has no weights of the variant {variant}: leave `variant` out")
    for name in models:  # before the first of them is read
        check_quantization(name, quantizations.get(name), read_quantization(read_config(folder / name), name))
    found = {}
    for name in models:
        own_variant = variant if tagged[name] else None
        found[name] = load_component(folder, name, index[name], dtype, own_variant, quantizations.get(name))
        slices.end()
    return found


def _check_stored(folder: Path, name: str, variant: str | None, quantization: str) -> None:
    """Refuse a component whose files do not hold weights quantized like this; raises CatalogueError."""
    kinds = set()
    weights = component_weights(RepositoryFiles.in_folder(folder), name, variant)
    for file in (folder / weight for weight in weights):
        try:
            tensors = read_tensors(file) if file.suffix == ".safetensors" else {}
        except UnreadableWeights as error:
            raise CatalogueError(f"{file.name} {error}") from None
        kinds |= {tensor.dtype for tensor in tensors.values() if isinstance(tensor, QuantizedTensor)}
    if kinds != {quantization}:
        raise CatalogueError(
            f"the configuration of its {name} says {quantization}, and its weights are not quantized like this"
        )


def read_index(family: DiffusersFamily, folder: Path) -> dict[str, str]:
    """Return the class of each component of a folder.

    Raises:
        CatalogueError: it is not a checkpoint of this family, or lacks a component, or a package is not installed.
    """
    for package in family.packages:
        if importlib.util.find_spec(package) is None:
            raise CatalogueError(
                f"family {family.id} needs the package {package}, which is not installed: pip install {package}"
            )
    index = _read_json(folder / "model_index.json")
    spec = ALL_FAMILIES[family.id]
    named, allowed = index.get("_class_name"), sorted({*family.pipelines.values(), *spec.more_pipelines})
    if named not in allowed:
        raise CatalogueError(
            f"it is a {str(named)[:80]}, and family {family.id} needs a {family.checkpoint_class}"
        )
    classes = {
        name: _loaded_class(folder / name, entry[1])
        for name, entry in index.items()
        if isinstance(entry, list)
        and len(entry) == 2
        and isinstance(entry[1], str)
        and name not in UNUSED_COMPONENTS | spec.unused
    }
    for name, allowed_classes in _classes_needed(family).items():
        if name in classes:
            _check_class(folder, name, classes[name], allowed_classes)
        elif name not in UNUSED_COMPONENTS and not (name == family.t5 and spec.t5_optional):
            raise CatalogueError(f"it has no {name}, which family {family.id} needs")
    return classes


def _loaded_class(part: Path, named: str) -> str:
    """The class that diffusers loads of a component, by the one that is named; older ones name one for several."""
    return class_of(read_config(part)) if named == OLD_TRANSFORMER else named


def _classes_needed(family: DiffusersFamily) -> dict[str, list[str]]:
    """Component -> classes that the family's pipeline takes for it; empty: any."""
    pipeline = getattr(diffusers, family.checkpoint_class)
    hints = get_type_hints(pipeline.__init__)
    needed = {}
    for name, parameter in inspect.signature(pipeline.__init__).parameters.items():
        if (
            name == "self"
            or name in family.absent
            or (parameter.default is not parameter.empty and name not in {*UNUSED_COMPONENTS, family.t5})
        ):
            continue
        hint = hints.get(name)
        options = [option for option in get_args(hint) or (hint,) if isinstance(option, type)]
        names = [option.__name__ for option in options if option is not type(None)]
        is_any = name == "scheduler" or hint is transformers.PreTrainedModel
        needed[name] = [] if is_any else [*names, *(one for own in names for one in _ALIKE.get(own, ()))]
    return needed


def _check_class(folder: Path, name: str, named: str, allowed: list[str]) -> None:
    """Compare what the index and the component's own configuration name with what the family takes."""
    part = folder / name
    if not part.is_dir():
        raise CatalogueError(f"it has no folder {name}, which its model_index.json names")
    if "Tokenizer" in named and not any((part / file).is_file() for file in _VOCABULARIES):
        raise CatalogueError(f"its {name} has no vocabulary; one of {', '.join(_VOCABULARIES)} must be there")
    own = named
    for file in ("config.json", "scheduler_config.json"):
        if (part / file).is_file():
            config = _read_json(part / file)
            own = config.get("_class_name") or (config.get("architectures") or [named])[0]
            own = _loaded_class(part, own)
            read_quantization(config, name)
    if name == "scheduler":
        if own.startswith(("EDM", "FlowMatch")) != named.startswith(("EDM", "FlowMatch")):
            raise CatalogueError(f"its model_index.json names the scheduler {named}, and its configuration {own}")
        return
    if not allowed or "Tokenizer" in named:
        return
    for found in (named, own):
        # A text model with its projection may be stored as the class without, whose weights are the same.
        if found not in allowed and not (found.startswith("CLIP") and found != named):
            raise CatalogueError(f"its {name} is a {found[:80]}, and a {' or '.join(allowed)} is needed")


def find_class(class_name: str) -> Any:
    """Return the class of a component, by its name; None where no library has it."""
    # Kolors' language model is a part of diffusers that it does not show at the top.
    for library in (diffusers, transformers, diffusers.pipelines.kolors):
        found = getattr(library, class_name, None)
        if isinstance(found, type):
            return found
    return None


def is_model(class_name: str) -> bool:
    """Whether a class, by its name, is one of those with weights."""
    found = find_class(class_name)
    return found is not None and issubclass(found, torch.nn.Module)


def load_component(
    folder: Path,
    name: str,
    class_name: str,
    dtype: torch.dtype,
    variant: str | None,
    quantization: str | None = None,
) -> Any:
    """Load one model of a checkpoint's folder, quantized as its row says. Raises as `load_components`."""
    loaded_class = find_class(class_name)
    stored = read_quantization(read_config(folder / name), name)
    check_quantization(name, quantization, stored)
    if stored is None:
        packing = quantizer(quantization, loaded_class, dtype)
        model = load_complete(loaded_class, folder / name, name, dtype, variant, packing)
    else:
        _check_stored(folder, name, variant, stored)
        is_ready = not bitsandbytes_weights.makes(stored)
        with nullcontext(folder / name) if is_ready else readable(folder / name, stored, dtype) as part:
            model = load_complete(loaded_class, part, name, dtype, variant)
        WrappedWeights(model).compute_in(dtype)  # they stand for values of the dtype in which they were saved
    if bitsandbytes_weights.makes(stored or quantization):
        bitsandbytes_weights.keep_scales(model)
    return model


def load_complete(
    loaded_class: Any,
    folder: Path,
    name: str,
    dtype: torch.dtype,
    variant: str | None,
    packing: Any = None,
) -> Any:
    """Load a model from its own folder.

    Args:
        name: what messages call it.
        packing: the configuration with which its library quantizes it; None: it does not.

    Raises:
        CatalogueError: weights are missing, of another shape, or belong to no layer.
    """
    stored = read_quantization(read_config(folder), name.removeprefix("the "))
    options: dict[str, Any] = {"dtype": dtype, "variant": variant, "output_loading_info": True}
    if packing is not None:
        options["quantization_config"] = packing
    if bitsandbytes_weights.makes(stored) or isinstance(packing, diffusers.BitsAndBytesConfig):
        options["device_map"] = bitsandbytes_weights.HOST
    model, found = loaded_class.from_pretrained(folder, use_safetensors=True, local_files_only=True, **options)
    check_loaded(name, found)
    return model


def check_layers(name: str, own: Mapping[str, Sequence[int]], stored: Mapping[str, Sequence[int]]) -> None:
    """Refuse weights that are not exactly those of a model's layers; raises CatalogueError.

    Args:
        name: of the model, for the error.
        own, stored: the shapes of the model's tensors and of those that are stored, by name.
    """
    found = {
        "missing_keys": own.keys() - stored.keys(),
        "unexpected_keys": stored.keys() - own.keys(),
        "mismatched_keys": [key for key in own.keys() & stored.keys() if own[key] != stored[key]],
    }
    check_loaded(name, found)


def check_loaded(name: str, found: Mapping[str, Any]) -> None:
    """Refuse a model by what its library says of loading it; raises CatalogueError."""
    mismatched = [entry[0] if isinstance(entry, tuple | list) else entry for entry in found["mismatched_keys"]]
    unexpected = [key for key in found["unexpected_keys"] if not key.endswith(_COMPUTED)]
    for keys, problem in (
        (found["missing_keys"], "lacks weights"),
        (mismatched, "has weights of another shape"),
        (unexpected, "has weights that no layer of it takes"),
    ):
        if keys:
            raise CatalogueError(f"{name} {problem}: {some_of(sorted(map(str, keys)))}")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CatalogueError(f"{file.parent.name}/{file.name} is missing") from None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise CatalogueError(f"{file.parent.name}/{file.name} is not a JSON object")
    return content
