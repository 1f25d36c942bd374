"""Numbers of parameters in a checkpoint, from the headers of its files; loads nothing.

Counts values (parameters and stored buffers), not bytes: the dtype in the file may differ from that on the device.
Packed weights are the exception: they stay on the device as they are in the file.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from contracts.errors import CatalogueError
from contracts.hub.errors import HubRefused
from contracts.hub.folders import folder_files
from contracts.hub.repository_files import RepositoryFiles
from contracts.weights.checkpoint_files import CHECKPOINT_PREFIX, AnyTensor, read_tensors
from contracts.weights.configs import file_state
from contracts.weights.formats.gguf import PackedTensor
from contracts.weights.formats.header_text import UnreadableWeights
from contracts.weights.quantized_files import QuantizedTensor

#: A member of a module list that is the model's direct child: the unit of diffusers' block-level group offloading.
_BLOCK = re.compile(r"[^.]+\.\d+(?=\.)")
#: Weights with two axes that stay as they are: tables of tokens and positions, and what the quantizers of
#: transformers (5.23) leave, the heads of language models and the projection of CLIP.
_UNQUANTIZED = re.compile(
    r"(^|\.)(shared|embed_tokens|\w+_embeddings?|relative_attention_bias|lm_head|output_layer|text_projection|"
    r"embedding_table)\.weight$"
)


class Sums(NamedTuple):
    """Of a component: of all tensors, of its largest block, of those outside of blocks, of its largest layer."""

    total: int = 0
    block: int = 0
    loose: int = 0
    leaf: int = 0

    def with_more(self, added: int) -> Sums:
        """Return the sums where a layer outside of blocks has so many more, which are half of its own then."""
        return Sums(self.total + added, self.block, self.loose + added, max(self.leaf, 2 * added))


_NONE = Sums()


class AnyPacked(Protocol):
    """A packed weight, in a file or in memory."""

    @property
    def values(self) -> int:
        """Number of values."""

    @property
    def stored_bytes(self) -> int:
        """Bytes as it is stored."""

    @property
    def unpacking_bytes(self) -> int:
        """Bytes that its layer takes for a moment to unpack it, beside its values in the model's dtype."""

    @property
    def copy_bytes(self) -> int:
        """Bytes of each value in another dtype than the model's, when it is unpacked."""

    @property
    def copies_output(self) -> bool:
        """Whether its layer has its result in memory twice for a moment."""


@dataclass(frozen=True)
class PackedBytes:
    """Bytes of a component's packed weights, whatever dtype it computes in; as those of `ParameterCount`.

    Attributes:
        layer_values: values of the largest packed layer, which is unpacked while it computes.
        unpacking_bytes: the most that a layer takes for that, with its values in 16 bits.
        copy_bytes: of each value of that layer, beside it in the model's dtype, once it is unpacked.
        copies_output: whether layers have their results in memory twice for a moment.
    """

    bytes: int = 0
    block_bytes: int = 0
    loose_bytes: int = 0
    leaf_bytes: int = 0
    layer_values: int = 0
    unpacking_bytes: int = 0
    copy_bytes: int = 0
    copies_output: bool = False


@dataclass(frozen=True)
class LinearWeights:
    """The weights of linear layers that can be quantized.

    Attributes:
        values: of these weights.
        rows: of these weights, each of one output.
        columns: of these weights, each of one input.
        others: values of all other tensors.
    """

    values: Sums = _NONE
    rows: Sums = _NONE
    columns: Sums = _NONE
    others: Sums = _NONE

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> LinearWeights:
        """Count them by the shapes of a component's tensors."""
        linear = {
            key
            for key, shape in shapes.items()
            if len(shape) == 2 and key.endswith(".weight") and not _UNQUANTIZED.search(key)
        }
        return cls(
            _sums((key, math.prod(shapes[key])) for key in linear),
            _sums((key, shapes[key][0]) for key in linear),
            _sums((key, shapes[key][1]) for key in linear),
            _sums((key, math.prod(shape)) for key, shape in shapes.items() if key not in linear),
        )


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of values of one component.

    Attributes:
        values: in all tensors that are not packed.
        block_values: in its largest block (a member of a module list, such as `transformer_blocks.7`).
        loose_values: outside of all blocks.
        leaf_values: in its largest single layer.
        packed: its other tensors.
        linear: the same values by what can be quantized of them; empty where the shapes are not known.
    """

    values: int
    block_values: int = 0
    loose_values: int = 0
    leaf_values: int = 0
    packed: PackedBytes = PackedBytes()
    linear: LinearWeights = LinearWeights()

    @classmethod
    def of(
        cls,
        tensors: Iterable[tuple[str, int]],
        packed: Sequence[tuple[str, AnyPacked]] = (),
        linear: LinearWeights | None = None,
    ) -> ParameterCount:
        """Count a component.

        Args:
            tensors: key and number of values of each.
            packed: key and description of each packed one.
            linear: what can be quantized of it.
        """
        sizes = PackedBytes(
            *_sums((key, one.stored_bytes) for key, one in packed),
            layer_values=max((one.values for _, one in packed), default=0),
            unpacking_bytes=max((one.unpacking_bytes for _, one in packed), default=0),
            copy_bytes=max((one.copy_bytes for _, one in packed), default=0),
            copies_output=any(one.copies_output for _, one in packed),
        )
        return cls(*_sums(tensors), packed=sizes, linear=linear or LinearWeights())

    def with_twice_the_inputs(self, inputs: int, outputs: int) -> ParameterCount:
        """Return the count of the same component with twice so many inputs of a linear layer outside of blocks."""
        added, linear = inputs * outputs, self.linear
        return replace(
            self,
            values=self.values + added,
            loose_values=self.loose_values + added,
            leaf_values=max(self.leaf_values, 2 * added + outputs),
            linear=replace(
                linear,
                values=linear.values.with_more(added),
                columns=linear.columns.with_more(inputs),
            ),
        )


def _sums(tensors: Iterable[tuple[str, int]]) -> Sums:
    blocks: dict[str, int] = defaultdict(int)
    leaves: dict[str, int] = defaultdict(int)
    for key, size in tensors:
        block = _BLOCK.match(key)
        blocks[block[0] if block else ""] += size
        leaves[key.rpartition(".")[0]] += size
    loose = blocks.pop("", 0)
    return Sums(sum(leaves.values()), max(blocks.values(), default=0), loose, max(leaves.values(), default=0))


def count_values(checkpoint: Path, variant: str | None = None) -> dict[str, ParameterCount]:
    """Count each component of a checkpoint.

    Args:
        checkpoint: a folder in diffusers layout, or a single file, which counts as one component `checkpoint`.
        variant: of the files in a folder, such as `fp16`.

    Raises:
        CatalogueError: a file is not a safetensors file, or an index names a missing shard.
    """
    if checkpoint.is_file():
        return {"checkpoint": count_files([checkpoint])}
    files = defaultdict(list)
    for name in _weights_in(checkpoint, variant):
        files[name.partition("/")[0]].append(checkpoint / name)
    return {component: count_files(parts) for component, parts in files.items()}


def count_component(folder: Path, variant: str | None = None) -> ParameterCount:
    """Count the one component whose configuration and weights are in a folder, such as a ControlNet.

    Raises:
        CatalogueError: as `count_values`.
    """
    return count_files(folder / name for name in _weights_in(folder, variant))


def _weights_in(folder: Path, variant: str | None) -> list[str]:
    try:
        names = folder_files(RepositoryFiles.in_folder(folder), variant)
    except HubRefused as error:
        raise CatalogueError(f"{error}; was its download interrupted?") from None
    return sorted(name for name in names if name.endswith(".safetensors"))


def count_files(files: Iterable[Path]) -> ParameterCount:
    """Count one component whose weights are in these files; those that have not changed are not read again.

    Raises:
        CatalogueError: a file is not a safetensors file.
    """
    return _count(tuple((file, file_state(file)) for file in files))


@lru_cache(maxsize=1024)
def _count(files: tuple[tuple[Path, tuple[int, ...]], ...]) -> ParameterCount:
    tensors: list[tuple[str, AnyTensor]] = []
    for file, _ in files:
        try:
            tensors += read_tensors(file).items()
        except UnreadableWeights as error:
            raise CatalogueError(f"{file.name} {error}") from error
    return count_tensors(tensors)


def count_tensors(tensors: Iterable[tuple[str, AnyTensor]]) -> ParameterCount:
    """Count the component that these are the tensors of, each with its name."""
    plain, shapes = [], {}
    packed: list[tuple[str, AnyPacked]] = []
    for key, tensor in tensors:
        if isinstance(tensor, QuantizedTensor):
            packed.append((key, tensor))
        elif not isinstance(tensor, PackedTensor):
            plain.append((key, tensor.values))
            shapes[key] = tensor.shape
        elif tensor.is_packed:
            packed.append((key.removeprefix(CHECKPOINT_PREFIX), tensor))
        else:
            plain.append((key.removeprefix(CHECKPOINT_PREFIX), tensor.values))
    return ParameterCount.of(plain, packed, LinearWeights.of(shapes))


def controlnet_parts(path: Path) -> list[Path]:
    """The files of a ControlNet that is given by its weights, or by the index of their shards."""
    parts = [path.with_name("config.json"), path]
    if path.suffix == ".json":
        shards = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        parts += [path.with_name(shard) for shard in sorted(shards)]
    return parts
