"""The layouts of LoHa, LoKr, full differences, OFT, IA3 and kohya's DoRA, as lycoris-lora writes them.

Part of the one table of layouts, for the API and the worker: which tensors a layer of each kind has, and the shape
of the weight that they change. Reads names and shapes only; knows no model, and no formula.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from contracts.errors import AdapterRefused
from contracts.weights.formats.safetensors import Tensor

_DOWN = ("lora_down.weight", "lora_A.weight", "lora.down.weight")
_UP = ("lora_up.weight", "lora_B.weight", "lora.up.weight")
#: Kind -> its tensors in a layer, by the names that they have here.
_KINDS: Mapping[str, frozenset[str]] = {
    "lora": frozenset({"down", "up", "mid"}),
    "loha": frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"}),
    "lokr": frozenset({"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
    "oft": frozenset({"oft_blocks", "rescale"}),
    "ia3": frozenset({"weight", "on_input"}),
    "full": frozenset({"diff"}),
}
#: What lists call the kinds that a file may have; `dora` is beside another.
KINDS = ("lora", "dora", "loha", "lokr", "full", "oft", "ia3")
#: What may stand beside them -> with which kinds.
_BESIDE: Mapping[str, frozenset[str]] = {
    "alpha": frozenset({"lora", "loha", "lokr", "oft"}),
    "dora_scale": frozenset({"lora", "loha", "lokr"}),
    "diff_b": frozenset({"lora", "loha", "lokr", "full"}),
}
_NAMES = {
    **dict.fromkeys(_DOWN, "down"), **dict.fromkeys(_UP, "up"), "lora_mid.weight": "mid",
    **{part: part for kind in ("loha", "lokr", "oft", "ia3", "full") for part in _KINDS[kind]},
    **{part: part for part in _BESIDE},
}  # fmt: skip
_KEY = re.compile(
    rf"^(?P<layer>.+?)\.(?P<part>{'|'.join(sorted(map(re.escape, _NAMES), key=len, reverse=True))})$"
)
#: Parts that tell nothing alone: a plain LoRA has them, or any model.
_PLAIN = frozenset({"down", "up", "alpha", "weight", "rescale"})
#: How lycoris-lora's own wrapper names all layers.
LYCORIS = "lycoris_"
#: Kinds that no layout here has -> how their tensors are named.
_UNSUPPORTED: Mapping[str, re.Pattern[str]] = {
    "a norm's difference (`w_norm`)": re.compile(r"\.(w_norm|b_norm)$"),
    "GLoRA": re.compile(r"\.(a1|a2|b1|b2|bm)\.weight$"),
    "PEFT's OFT": re.compile(r"\.oft_[rRs](\.|$)"),
    "PEFT's BOFT": re.compile(r"\.boft_"),
    "PEFT's IA3": re.compile(r"\.ia3_l(\.|$)"),
    "VeRA": re.compile(r"\.vera_"),
    "an old LyCORIS' OFT (`oft_diag`)": re.compile(r"\.oft_diag$"),
    "a LoKr with a core of its first half": re.compile(r"\.lokr_t1$"),
}


@dataclass(frozen=True)
class WeightChange:
    """Change that a file's tensors make to the weight of one layer, as far as their shapes tell.

    Attributes:
        kind: `lora`, `loha`, `lokr`, `oft`, `ia3` or `full`.
        rank: of its factors; None where it has none.
        outputs, inputs: rows and channels of the layer; None where unknown.
        kernel: of a convolution, () for a matrix; None where unknown.
        columns: values of a row, inputs × kernel; None where unknown.
        is_dora: whether the changed weight has lengths of its own; `lengths_on_input`: of its columns.
        block_rows: of the blocks that an OFT rotates.
    """

    kind: str
    rank: int | None = None
    outputs: int | None = None
    inputs: int | None = None
    kernel: tuple[int, ...] | None = None
    columns: int | None = None
    is_dora: bool = False
    lengths_on_input: bool = False
    block_rows: int = 1

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it is called in lists."""
        if not self.is_dora:
            return (self.kind,)
        return ("dora",) if self.kind == "lora" else (self.kind, "dora")

    @property
    def workspace_values(self) -> int:
        """Values that a worker makes for the time of a call: products of its factors, and lengths in float32."""
        size = (self.outputs or 0) * (self.columns or 0)
        return size * (6 * self.is_dora + 2 * (self.kind == "loha"))


def group(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Name of a layer -> part -> key of its tensor, for all layers that are more than a plain LoRA's.

    Raises:
        AdapterRefused: a layer has one part twice.
    """
    layers: dict[str, dict[str, str]] = {}
    for key in keys:
        if match := _KEY.match(key):
            parts = layers.setdefault(match["layer"], {})
            part = _NAMES[match["part"]]
            if part in parts:
                raise AdapterRefused(f"the file has two sets of weights for {match['layer'][:120]}")
            parts[part] = key
    return {
        name: parts
        for name, parts in layers.items()
        if parts.keys() - _PLAIN or (name.startswith(LYCORIS) and parts.keys() - {"weight", "alpha", "rescale"})
    }


def unsupported_kind(key: str) -> str | None:
    """What a tensor belongs to, for kinds of adapters that are refused by name."""
    return next((kind for kind, pattern in _UNSUPPORTED.items() if pattern.search(key)), None)


def kind_of(name: str, parts: Collection[str]) -> str:
    """The kind of a layer, by its parts.

    Raises:
        AdapterRefused: it has parts of several kinds, or one that does not belong to its kind.
    """
    kinds = [kind for kind, own in _KINDS.items() if own & set(parts)] or ["full"]
    if len(kinds) > 1:
        raise AdapterRefused(f"{name[:120]} has weights of two kinds, {' and '.join(kinds)}")
    for beside in _BESIDE.keys() & set(parts):
        if kinds[0] not in _BESIDE[beside]:
            raise AdapterRefused(f"{name[:120]}.{beside} does not belong to the {kinds[0]} of this layer")
    return kinds[0]


_Shape = tuple[int, ...]
_Shapes = Mapping[str, _Shape]


def read_change(name: str, parts: Mapping[str, Tensor], on_input: bool = False) -> WeightChange:
    """Check that a layer's tensors are whole and fit together.

    Args:
        parts: by the names of `group`.
        on_input: of an IA3, whether it scales what goes into the layer.

    Raises:
        AdapterRefused: one is missing, or shapes disagree.
    """
    kind, shapes = kind_of(name, parts), {part: tensor.shape for part, tensor in parts.items()}
    for part in {"alpha", "on_input"} & parts.keys():
        if parts[part].values != 1:
            raise AdapterRefused(f"{name[:120]}.{part} must be one value, got the shape {list(shapes[part])}")
    try:
        change = _READERS[kind](shapes, on_input)
        if "diff_b" in shapes and prod(shapes["diff_b"]) != change.outputs:
            raise ValueError
        return _with_lengths(change, shapes)
    except KeyError as error:
        raise AdapterRefused(f"{name[:120]}.{error.args[0]} is missing") from None
    except AdapterRefused as error:
        raise AdapterRefused(f"{name[:120]} cannot be applied: {error}") from None
    except ValueError:
        listed = ", ".join(f"{part} {list(shape)}" for part, shape in sorted(shapes.items()))
        raise AdapterRefused(f"the tensors of {name[:120]} ({kind}) do not fit together: {listed}") from None


def lengths_on_input(shape: Sequence[int]) -> bool:
    """Whether DoRA's lengths are those of a weight's columns, instead of its rows."""
    return len(shape) > 1 and shape[0] == 1 and shape[1] != 1


def cannot_join(change: WeightChange, outputs: Sequence[int]) -> str | None:
    """Why a change of several layers, joined along their outputs, cannot be made of each; None if it can."""
    if change.lengths_on_input:
        return "its `dora_scale` is of the lengths of joined columns"
    if any(rows % change.block_rows for rows in outputs):
        return f"its blocks of {change.block_rows} rows cross their borders"
    return None


def _with_lengths(change: WeightChange, shapes: _Shapes) -> WeightChange:
    if "dora_scale" not in shapes:
        return change
    shape = shapes["dora_scale"]
    inputs = change.inputs or change.columns
    if prod(shape) != (inputs if lengths_on_input(shape) else change.outputs):
        raise ValueError
    return replace(change, is_dora=True, lengths_on_input=lengths_on_input(shape))


def _require(*conditions: bool) -> None:
    if not all(conditions):
        raise ValueError


def _lora(shapes: _Shapes, on_input: bool) -> WeightChange:
    del on_input
    (rank, inputs, *kernel), (outputs, up_rank, *ones) = shapes["down"], shapes["up"]
    _require(rank == up_rank > 0, set(ones) <= {1})
    if "mid" in shapes:
        first, second, *middle = shapes["mid"]
        _require(first == second == rank, set(kernel) <= {1}, len(middle) == len(kernel) == 2)
        kernel = middle
    return WeightChange("lora", rank, outputs, inputs, tuple(kernel), inputs * prod(kernel))


def _loha(shapes: _Shapes, on_input: bool) -> WeightChange:
    del on_input
    if "hada_t1" in shapes or "hada_t2" in shapes:
        cores = [shapes["hada_t1"], shapes["hada_t2"]]
        found = {_core(core, shapes[f"hada_w{n}_a"], shapes[f"hada_w{n}_b"]) for n, core in enumerate(cores, 1)}
        _require(len(found) == 1)
        outputs, inputs, kernel = found.pop()
        return WeightChange("loha", shapes["hada_w1_b"][0], outputs, inputs, kernel, inputs * prod(kernel))
    products = {_product(shapes[f"hada_w{n}_a"], shapes[f"hada_w{n}_b"]) for n in (1, 2)}
    _require(len(products) == 1)
    outputs, columns = products.pop()
    return WeightChange("loha", shapes["hada_w1_b"][0], outputs, columns=columns)


def _lokr(shapes: _Shapes, on_input: bool) -> WeightChange:
    del on_input
    rank = next((shapes[half][0] for half in ("lokr_w2_b", "lokr_w1_b") if half in shapes), None)
    for half in ("lokr_w1", "lokr_w2"):
        _require(half not in shapes or not {f"{half}_a", f"{half}_b"} & shapes.keys())
    rows, columns = (
        shapes["lokr_w1"] if "lokr_w1" in shapes else _product(shapes["lokr_w1_a"], shapes["lokr_w1_b"])
    )
    if "lokr_w2" in shapes:
        _require("lokr_t2" not in shapes, len(shapes["lokr_w2"]) >= 2)
        outputs, *rest = shapes["lokr_w2"]
        more = prod(rest)
    elif "lokr_t2" in shapes:
        outputs, inputs, kernel = _core(shapes["lokr_t2"], shapes["lokr_w2_a"], shapes["lokr_w2_b"])
        more = inputs * prod(kernel)
    else:
        outputs, more = _product(shapes["lokr_w2_a"], shapes["lokr_w2_b"])
    return WeightChange("lokr", rank, rows * outputs, columns=columns * more)


def _full(shapes: _Shapes, on_input: bool) -> WeightChange:
    del on_input
    if "diff" not in shapes:
        return WeightChange("full", outputs=prod(shapes["diff_b"]))
    outputs, *rest = shapes["diff"]
    if not rest:
        raise AdapterRefused("its `diff` has one value a channel: differences of norms are not supported")
    return WeightChange("full", None, outputs, rest[0], tuple(rest[1:]), prod(rest))


def _oft(shapes: _Shapes, on_input: bool) -> WeightChange:
    del on_input
    if len(shapes["oft_blocks"]) == 4:
        raise AdapterRefused("its oft_blocks have 4 axes: BOFT is not supported")
    blocks, rows, columns = shapes["oft_blocks"]
    _require(rows == columns, prod(shapes.get("rescale", (blocks * rows,))) == blocks * rows)
    return WeightChange("oft", outputs=blocks * rows, block_rows=rows)


def _ia3(shapes: _Shapes, on_input: bool) -> WeightChange:
    shapes["on_input"]
    scaled = prod(shapes["weight"])
    return WeightChange("ia3", inputs=scaled) if on_input else WeightChange("ia3", outputs=scaled)


def _product(first: _Shape, second: _Shape) -> tuple[int, int]:
    """Rows and columns of a product of two factors, whose second may be a kernel."""
    (outputs, rank), (other, *rest) = first, second
    _require(rank == other > 0, len(rest) > 0)
    return outputs, prod(rest)


def _core(core: _Shape, first: _Shape, second: _Shape) -> tuple[int, int, _Shape]:
    """Outputs, inputs and kernel of a Tucker decomposition."""
    (rank, other, *kernel), (first_rank, outputs), (second_rank, inputs) = core, first, second
    _require(rank == first_rank > 0, other == second_rank > 0, len(kernel) == 2)
    return outputs, inputs, tuple(kernel)


_READERS: Mapping[str, Callable[[_Shapes, bool], WeightChange]] = {
    "lora": _lora, "loha": _loha, "lokr": _lokr, "full": _full, "oft": _oft, "ia3": _ia3,
}  # fmt: skip
