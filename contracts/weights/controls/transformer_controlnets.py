"""ControlNets of transformers in one file, as trainings make them: which models one suits. Loads nothing.

Such a ControlNet has copies of a transformer's embedders and of its first blocks, a layer that reads the control
image, and one behind each block. Its file alone is enough where that is all: the rest of its configuration is the
model's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import AdapterRefused
from contracts.weights.denoiser_files import Layers, find_suited_models
from contracts.weights.formats.safetensors import Tensor

#: Class -> the layer that reads the control image, and the one of the transformer that reads latents in its way.
_READERS: Mapping[str, tuple[str, str]] = {
    "SD3ControlNetModel": ("pos_embed_input.proj", "pos_embed.proj"),
    "FluxControlNetModel": ("controlnet_x_embedder", "x_embedder"),
    "QwenImageControlNetModel": ("controlnet_x_embedder", "img_in"),
}
#: Blocks -> the layers behind them.
_BLOCKS = {"transformer_blocks": "controlnet_blocks", "single_transformer_blocks": "controlnet_single_blocks"}
#: Layers of a transformer that a ControlNet lacks.
_ENDS = ("norm_out.", "proj_out.")
#: What a FLUX.1 ControlNet may have or lack, as its model may; its layers are as those of another embedder.
_GUIDANCE, _LIKE_GUIDANCE = "time_text_embed.guidance_embedder.", "time_text_embed.timestep_embedder."


def is_of_transformer(names: Collection[str]) -> bool:
    """Whether a file with tensors of these names is the ControlNet of a transformer of the classes here."""
    return bool(_classes(names))


def find_transformer_models(tensors: Mapping[str, Tensor], catalogue: Catalogue) -> tuple[str, list[str]]:
    """Find the family that a transformer's ControlNet is for, and those of its models that it suits.

    Returns:
        Without any model where none can be compared on this machine.

    Raises:
        AdapterRefused: it suits no model here.
    """
    classes = _classes(tensors)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    families = [family for family in FAMILIES.values() if family.controlnet in classes]
    return find_suited_models(
        families,
        catalogue,
        may_suit=lambda family: family.controlnet in classes,
        misfit=partial(_misfit, shapes),
        no_family="the catalogue has no model of a family that it could be for",
    )


def _classes(names: Collection[str]) -> list[str]:
    """The classes that have both layers by which a ControlNet of theirs is known."""
    return [name for name, readers in _READERS.items() if all(f"{reader}.weight" in names for reader in readers)]


def _misfit(own: Layers, layers: Layers, model: ModelSpec) -> str | None:
    reader, like = _READERS[model.family_spec.controlnet]
    try:
        needed = dict(_needed(own, layers, reader, like))
    except AdapterRefused as error:
        return str(error)
    for name in sorted(own.keys() | needed.keys()):
        has, other = own.get(name), needed.get(name)
        if name == f"{reader}.weight" and has and other and has[:1] == other[:1] and has[1] != other[1]:
            return (
                f"its {name} reads {has[1]} channels, and {model.id} gives it {other[1]}: one that inpaints, or "
                "reads other images, needs its config.json in a row of [[controlnets]]"
            )
        if has != other:
            shown = [f"has {name[:120]} of {list(shape)}" if shape else "lacks it" for shape in (has, other)]
            return f"it {shown[0]}, and {model.id} {shown[1]}" if has else f"it lacks {name[:120]} of {model.id}"
    return None


def _needed(own: Layers, layers: Layers, reader: str, like: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the layers that a ControlNet of this model has, with as many blocks as its file.

    Raises:
        AdapterRefused: the blocks of the file cannot be counted, or are more than the model's.
    """
    guided = any(name.startswith(_GUIDANCE) for name in own)
    for name, shape in layers.items():
        if name.partition(".")[0] in _BLOCKS or name.startswith((*_ENDS, _GUIDANCE)):
            continue
        yield name, shape
        if guided and name.startswith(_LIKE_GUIDANCE):
            yield name.replace(_LIKE_GUIDANCE, _GUIDANCE), shape
    for part in ("weight", "bias"):
        yield f"{reader}.{part}", layers.get(f"{like}.{part}", ())
    inner = layers.get(f"{like}.bias", ())
    for blocks, behind in _BLOCKS.items():
        count = _count(own, blocks)
        if count > _count(layers, blocks):
            raise AdapterRefused(f"it has more {blocks} than the model, whose first ones a ControlNet copies")
        # The model's last one may have fewer layers: it is not copied.
        for number in range(count):
            source = number if number < _count(layers, blocks) - 1 else 0
            for name, shape in layers.items():
                if name.startswith(f"{blocks}.{source}."):
                    yield f"{blocks}.{number}.{name.split('.', 2)[2]}", shape
            yield f"{behind}.{number}.weight", inner * 2
            yield f"{behind}.{number}.bias", inner


def _count(names: Collection[str], blocks: str) -> int:
    numbers = {name.split(".")[1] for name in names if name.startswith(f"{blocks}.")}
    if numbers != {str(number) for number in range(len(numbers))}:
        raise AdapterRefused(f"its {blocks} are not numbered from 0 on")
    return len(numbers)
