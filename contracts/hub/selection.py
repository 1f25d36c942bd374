"""Which files of a repository a row of the catalogue needs: never a pickle, nothing that is not loaded.

Pure except for `read`, which fetches small files: `model_index.json` lists a checkpoint's components, and an index
lists the shards of a component's weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import PurePosixPath

from contracts.controlnet_classes import class_of_controlnet, modes_remedy
from contracts.hub.errors import HubRefused
from contracts.hub.repository_files import RepositoryFiles, safetensors_of
from contracts.hub.source import SAFETENSORS

#: Beside the weights of a model that reads images, in transformers' layout.
IMAGE_MODEL_CONFIGS = ("config.json", "preprocessor_config.json")
#: Chooses the files that are needed, as paths in the repository. Raises HubRefused where they are not there.
Select = Callable[[RepositoryFiles], list[str]]
#: Configurations, vocabularies and chat templates beside weights.
_DESCRIPTIONS = (".json", ".txt", ".model", ".jinja")
_INDEX = ".safetensors.index"
#: Components whose folders hold no weights end with these. transformers 5 saves as `TokenizersBackend` what was
#: `PreTrainedTokenizerFast`.
_WITHOUT_WEIGHTS = re.compile(
    r"(Scheduler|Tokenizer|TokenizerFast|TokenizersBackend|Processor|ImageProcessorFast|FeatureExtractor)$"
)
#: Components that no job uses: a classifier that blackens images, what prepares images for it, IP-Adapter's, and
#: DeepFloyd IF's visible watermark.
UNUSED_COMPONENTS = frozenset({"safety_checker", "feature_extractor", "image_encoder", "watermarker"})
#: Libraries that a `model_index.json` may name. `kolors` is the part of diffusers with Kolors' language model.
_LIBRARIES = frozenset({"diffusers", "transformers", "kolors"})
#: How many names a refusal lists.
_MAX_LISTED = 12


def one_file(name: str, suffixes: tuple[str, ...] = (SAFETENSORS,)) -> Select:
    """Select one file whose name ends with one of these."""
    kinds = " or ".join(suffixes)

    def select(files: RepositoryFiles) -> list[str]:
        if not name.endswith(suffixes):
            raise HubRefused(f"{name} of {files.repository} is not a {kinds} file")
        if name not in files.names:
            found = _listed(sorted(other for other in files.names if other.endswith(suffixes)))
            raise HubRefused(f"{files.repository} has no file {name}; its {kinds} files: {found}")
        return [name]

    return select


def lora_file(file: str | None = None, variant: str | None = None) -> Select:
    """Select the file of a LoRA: the one that is named, else the only one of the repository, or of the variant."""

    def select(files: RepositoryFiles) -> list[str]:
        if file is not None:
            return one_file(file)(files)
        found = safetensors_of(files.names)
        if variant is not None:
            found = [name for name in found if f".{variant}." in name]
            if not found:
                every = _listed(safetensors_of(files.names))
                raise HubRefused(f"{files.repository} has no weights of the variant {variant}; its files: {every}")
        if len(found) == 1:
            return found
        if not found:
            raise HubRefused(f"{files.repository} has no .safetensors file, so it cannot be used as a LoRA")
        raise HubRefused(
            f"{files.repository} has several .safetensors files; set `file` to one of {_listed(found)}"
        )

    return select


def model_files(pipeline: str | None, variant: str | None = None, without: Collection[str] = ()) -> Select:
    """Select a checkpoint in diffusers layout.

    Args:
        pipeline: class that `model_index.json` must name; None: any.
        variant: weights of this variant are taken for the components that have them, others for the rest.
        without: components of which only the descriptions are needed.
    """

    def select(files: RepositoryFiles) -> list[str]:
        components = _components(files, pipeline)
        chosen = ["model_index.json"]
        has_variant = variant is None
        for component, needs_weights in components.items():
            chosen += component_descriptions(files.names, component)
            if needs_weights and component not in without:
                weights = component_weights(files, component, variant)
                if not weights and variant is not None:
                    weights = component_weights(files, component, None)
                else:
                    has_variant = True
                if not weights:
                    raise HubRefused(
                        f"{files.repository} has no .safetensors weights of {component}{_others(files, component)}"
                    )
                chosen += weights
        if not has_variant:
            raise HubRefused(f"{files.repository} has no weights of the variant {variant}: leave `variant` out")
        return chosen

    return select


def descriptions(pipeline: str | None, weights_of: Sequence[str] = ()) -> Select:
    """Select all of a checkpoint but its weights, and the weights of some components."""

    def select(files: RepositoryFiles) -> list[str]:
        components = _components(files, pipeline)
        chosen = [
            "model_index.json",
            *(name for part in components for name in component_descriptions(files.names, part)),
        ]
        for component in weights_of:
            weights = component_weights(files, component, None)
            if not weights:
                raise HubRefused(
                    f"{files.repository} has no .safetensors weights of {component}{_others(files, component)}"
                )
            chosen += weights
        return chosen

    return select


def controlnet_files(class_name: str | None, variant: str | None = None, file: str | None = None) -> Select:
    """Select a ControlNet's configuration and one set of weights.

    Args:
        class_name: class that its `config.json` must name; None: any.
        variant: of the weights, such as `fp16`.
        file: path of the weights; where no `config.json` is in the same folder, they are taken alone.
    """

    def select(files: RepositoryFiles) -> list[str]:
        folder = "" if file is None else PurePosixPath(file).parent.as_posix().removeprefix(".")
        config = f"{folder}/config.json".lstrip("/")
        if config not in files.names and file is None and safetensors_of(files.names):
            found = _listed(safetensors_of(files.names))
            raise HubRefused(f"{files.repository} has no config.json at its top; set `file` to one of {found}")
        if file is not None and config not in files.names:
            return one_file(file)(files)
        named = class_of_controlnet(files.read_json(config))
        if class_name is not None and named != class_name:
            raise HubRefused(
                f"{files.repository} is a {_class_text(named)}, and the row's family needs a {class_name}"
                f"{modes_remedy(named, class_name)}"
            )
        if file is not None:
            return [config, *one_file(file)(files)]
        weights = component_weights(files, "", variant)
        if not weights:
            others = [name for name in safetensors_of(files.names) if "/" not in name]
            wanted = "without a variant" if variant is None else f"of the variant {variant}"
            remedy = f"; set `variant` or `file`; its weights: {_listed(others)}" if others else _others(files, "")
            raise HubRefused(f"{files.repository} has no .safetensors weights {wanted}{remedy}")
        return [config, *weights]

    return select


def transformers_files() -> Select:
    """Select a model that reads images, in transformers' layout: its configurations and weights."""

    def select(files: RepositoryFiles) -> list[str]:
        missing = [name for name in IMAGE_MODEL_CONFIGS if name not in files.names]
        if missing:
            raise HubRefused(f"{files.repository} has no {_listed(missing)}")
        weights = component_weights(files, "", None)
        if not weights:
            raise HubRefused(f"{files.repository} has no .safetensors weights{_others(files, '')}")
        return [*IMAGE_MODEL_CONFIGS, *weights]

    return select


def _components(files: RepositoryFiles, pipeline: str | None) -> dict[str, bool]:
    """Component -> whether it has weights, of a checkpoint of the right class."""
    index = files.read_json("model_index.json")
    named = index.get("_class_name")
    if pipeline is not None and not _is_form_of(pipeline, named):
        raise HubRefused(f"{files.repository} is a {_class_text(named)}, and the row's family needs a {pipeline}")
    components = {}
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list) or len(entry) != 2 or entry[1] is None:
            continue
        if name in UNUSED_COMPONENTS:
            continue
        library, class_name = entry
        if not isinstance(class_name, str) or library not in _LIBRARIES:
            raise HubRefused(f"{name} of {files.repository} needs custom code, which is never run")
        components[name] = _WITHOUT_WEIGHTS.search(class_name) is None
    return components


def _is_form_of(pipeline: str, named: object) -> bool:
    """Whether a checkpoint's class is the text-to-image pipeline, or the one of another task with its parts."""
    stem = pipeline.removesuffix("Pipeline")
    return named in (pipeline, *(f"{stem}{task}Pipeline" for task in ("Img2Img", "Inpaint")))


def _class_text(named: object) -> str:
    if isinstance(named, list):  # a module in the repository, and its class
        return "pipeline with custom code, which is never run"
    return named[:80] if isinstance(named, str) and named else "checkpoint without a class name"


def component_descriptions(names: Collection[str], component: str) -> list[str]:
    """A component's configurations and vocabularies."""
    return sorted(
        name
        for name in names
        if name.startswith(f"{component}/")
        and "/" not in name[len(component) + 1 :]
        and name.endswith(_DESCRIPTIONS)
        and _INDEX not in name
        and ".index." not in name
    )


def component_weights(files: RepositoryFiles, component: str, variant: str | None) -> list[str]:
    """One set of a component's weights: a whole file, else the shards of an index with the index; or none."""
    prefix = f"{component}/" if component else ""
    tag = f".{variant}" if variant else ""
    for stem in ("diffusion_pytorch_model", "model"):
        whole = f"{prefix}{stem}{tag}.safetensors"
        if whole in files.names:
            return [whole]
        for index in _index_names(f"{prefix}{stem}", variant):
            if index in files.names:
                return [index, *_shards(files, index, prefix)]
    return []


def _index_names(stem: str, variant: str | None) -> Iterator[str]:
    if variant is None:
        yield f"{stem}{_INDEX}.json"
    else:
        yield f"{stem}{_INDEX}.{variant}.json"
        yield f"{stem}.safetensors.{variant}.index.json"  # as diffusers wrote it until 2024


def _shards(files: RepositoryFiles, index: str, prefix: str) -> list[str]:
    places = files.read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise HubRefused(f"{index} of {files.repository} is not an index of weights")
    shards = sorted({f"{prefix}{name}" for name in places.values()})
    missing = [shard for shard in shards if shard not in files.names or not shard.endswith(".safetensors")]
    if missing:
        raise HubRefused(f"{files.repository} lacks {_listed(missing)}, which {index} names")
    return shards


def _others(files: RepositoryFiles, component: str) -> str:
    """What there is instead, as the end of a sentence."""
    prefix = f"{component}/" if component else ""
    pickles = [
        name for name in files.names if name.startswith(prefix) and name.endswith((".bin", ".pt", ".pth", ".ckpt"))
    ]
    return ", only pickles, which can execute code: convert it to .safetensors" if pickles else ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more if names else "none"
