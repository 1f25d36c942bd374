"""Calls of a model's modules that wait: what they are given, which of them can be made as one, and how.

A call is bound to its module's signature, and its arguments are described: tensors with a row for each image and
guidance pass, tables that all rows share, plain values. Calls with equal descriptions are joined row by row, made
once, and the result is cut into each caller's rows. Knows neither jobs nor in which order calls are made.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch

#: Arguments without a row axis: positions of tokens. They must be equal in a joined call.
_TABLES = frozenset({"txt_ids", "img_ids", "image_rotary_emb"})
#: Python lists with one item for each row.
_LISTS = frozenset({"x", "cap_feats", "img_shapes"})
#: Those whose items may differ in shape: the model pads and masks them itself.
_RAGGED_LISTS = frozenset({"x", "cap_feats"})
#: What a ControlNet or T2I-Adapter adds to the denoiser's layers. Rows without one are given zeros: x + 0 is x.
_ADDITIONS = frozenset(
    {
        "down_block_additional_residuals",
        "mid_block_additional_residual",
        "down_intrablock_additional_residuals",
        "block_controlnet_hidden_states",
        "controlnet_block_samples",
        "controlnet_single_block_samples",
    }
)
#: Times are spread to rows, as float32: that is what their embedding computes with.
_TIMES = frozenset({"timestep", "timesteps", "t"})
#: A ControlNet multiplies what it returns by it, last. In a joined call that is done after the result is cut.
_SCALE = "conditioning_scale"
#: ControlNets that need it for their own layers, too: it stays in the call, and only equal ones are joined.
_SCALED_INSIDE = frozenset({"ZImageControlNetModel"})
#: Has no effect on a VAE's decoder.
_IGNORED: Mapping[str, frozenset[str]] = {"decode": frozenset({"generator"})}

#: Finds whether an object is the same table as before: content hashes of tables, remembered by object.
TableDigests = dict[int, tuple[torch.Tensor, bytes]]


@dataclass(frozen=True, eq=False)
class Call:
    """A call of one entry of a module, with its arguments.

    Attributes:
        module: that is called.
        entry: `__call__`, `encode` or `decode`.
        compute: makes the call.
        args, kwargs: as the caller gave them.
        given: argument -> value, without those that equal their defaults.
        rows: of the call.
        first_row, whole_rows: of a part of a call: where it begins in the whole one, and how many rows that has.
        key: equal for calls that can be joined, additions aside.
        additions: the structure of what ControlNets add; None where nothing is added.
        scale: that a joined call leaves out, and that its result is multiplied by; None: nothing is left out.
    """

    module: torch.nn.Module
    entry: str
    compute: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    given: Mapping[str, Any] = field(repr=False)
    rows: int
    key: Hashable
    additions: Hashable | None
    scale: float | None = None
    first_row: int = 0
    whole_rows: int = 0
    _is_part: bool = False

    @classmethod
    def of(
        cls, module: torch.nn.Module, entry: str, args: tuple[Any, ...], kwargs: Mapping[str, Any],
        digests: TableDigests,
    ) -> Call:  # fmt: skip
        """Describe a call.

        Args:
            digests: of the tables that the same caller has given before.

        Raises:
            TypeError: the arguments do not fit the module's signature.
        """
        module_class: Any = type(module)
        signature = _signature(module_class, entry)
        bound = signature.bind(module, *args, **kwargs).arguments
        given = dict(list(bound.items())[1:])
        given.update(given.pop("kwargs", {}))
        rows = len(next(iter(given.values())))
        defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
        given = {
            name: value
            for name, value in given.items()
            if value is not defaults.get(name, ...) and not (type(value) is dict and not value)
        }
        for name in _IGNORED.get(entry, ()):
            given.pop(name, None)
        scale = given.get(_SCALE)
        if isinstance(scale, list) and len(scale) == 1:
            scale = scale[0]  # a union's, of which one kind acts; several it weighs inside
        leaves_scale = (
            isinstance(scale, int | float)
            and not given.get("guess_mode")
            and module_class.__name__ not in _SCALED_INSIDE
        )
        if leaves_scale:
            given[_SCALE] = 1.0
        described = {name: _describe(name, value, rows, digests) for name, value in sorted(given.items())}
        if scale is not None or not _ADDITIONS.isdisjoint(given):
            # What a ControlNet adds is as long as the longest row of its call.
            for name in _RAGGED_LISTS & given.keys():
                described[name] = "list", max(tuple(item.shape) for item in given[name])
        added = tuple((name, text) for name, text in described.items() if name in _ADDITIONS)
        return cls(
            module=module,
            entry=entry,
            compute=module if entry == "__call__" else getattr(module, entry),
            args=args,
            kwargs=kwargs,
            given=given,
            rows=rows,
            key=(id(module), entry, *((name, text) for name, text in described.items() if name not in _ADDITIONS)),
            additions=added or None,
            scale=scale if leaves_scale else None,
        )

    def row_range(self, start: int, stop: int) -> Call:
        """The same call for some of its rows."""
        given = {name: _slice(name, value, self.rows, start, stop) for name, value in self.given.items()}
        whole, first = self.whole_rows or self.rows, self.first_row + start
        return replace(self, given=given, rows=stop - start, first_row=first, whole_rows=whole, _is_part=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row of the first argument; empty for a list."""
        first = next(iter(self.given.values()))
        return tuple(first.shape[1:]) if isinstance(first, torch.Tensor) else ()


def make(calls: Sequence[Call]) -> list[Any]:
    """Make calls that can be joined as one; returns each one's result."""
    first = calls[0]
    if len(calls) == 1 and not first._is_part:
        # UNets empty a list of additions, which a call that is made again needs.
        kwargs = {name: list(value) if type(value) is list else value for name, value in first.kwargs.items()}
        return [first.compute(*first.args, **kwargs)]
    counts = [call.rows for call in calls]
    names = dict.fromkeys(name for call in calls for name in call.given)
    joined = {name: _join(name, [call.given.get(name) for call in calls], counts) for name in names}
    result = first.compute(**joined)
    results, start = [], 0
    for call in calls:
        results.append(_cut(result, sum(counts), slice(start, start + call.rows), call))
        start += call.rows
    return results


def merge(parts: Sequence[Any], rows: Sequence[int]) -> Any:
    """The result of a call from the results of its row ranges, in order."""
    first = parts[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(list(parts)) if first.dim() and len(first) == rows[0] else first
    if isinstance(first, dict):
        return _like(first, {name: merge([part[name] for part in parts], rows) for name in first})
    if isinstance(first, list | tuple):
        return type(first)(merge(items, rows) for items in zip(*parts, strict=True))
    return first


@cache
def _signature(module_class: Any, entry: str) -> inspect.Signature:
    return inspect.signature(module_class.forward if entry == "__call__" else getattr(module_class, entry))


def _describe(name: str, value: Any, rows: int, digests: TableDigests) -> Hashable:
    """What must be equal for this argument to be joined with another call's."""
    if name in _TIMES and isinstance(value, int | float | torch.Tensor):
        return "time"
    if isinstance(value, torch.Tensor):
        if _has_rows(name, value, rows):
            return "rows", tuple(value.shape[1:]), value.dtype
        return "table", tuple(value.shape[-2:]), value.dtype, _digest(value, digests)
    if isinstance(value, dict):
        return tuple((key, _describe(key, item, rows, digests)) for key, item in sorted(value.items()))
    if isinstance(value, list | tuple):
        if name in _LISTS:
            return "list" if name in _RAGGED_LISTS else tuple(dict.fromkeys(str(item) for item in value))
        return tuple(_describe(name, item, rows, digests) for item in value)
    # An object that equals only itself (a cache, a generator) is in no two callers' hands.
    return value if isinstance(value, Hashable) else ("object", id(value))


def _has_rows(name: str, value: torch.Tensor, rows: int) -> bool:
    return name not in _TABLES and (value.dim() == 0 or value.shape[0] in (1, rows))


def _digest(table: torch.Tensor, digests: TableDigests) -> bytes:
    """The hash of a table's content. Each step is given the same object, so it is read from the device once."""
    if id(table) not in digests:  # kept with the table: an id is its own while it lives
        rows_agree = table[0] if table.dim() == 3 else table  # of three axes, models read the first row only
        content = rows_agree.float().cpu().contiguous().numpy().tobytes()
        digests[id(table)] = table, hashlib.sha256(content).digest()
    return digests[id(table)][1]


def _join(name: str, values: Sequence[Any], counts: Sequence[int]) -> Any:
    some = next((value for value in values if value is not None), None)
    if name in _ADDITIONS:
        values = [
            _zeros(some, count) if value is None else value for value, count in zip(values, counts, strict=True)
        ]
    if name in _TIMES and isinstance(some, int | float | torch.Tensor):
        times = [torch.as_tensor(value) for value in values]
        return _concatenate([time if time.is_floating_point() else time.float() for time in times], counts)
    if isinstance(some, torch.Tensor):
        pairs = zip(values, counts, strict=True)
        if name in _TABLES or any(value.dim() and len(value) not in (1, count) for value, count in pairs):
            return some[0] if some.dim() == 3 and name in _TABLES else some
        return _concatenate(values, counts)
    if isinstance(some, dict):
        return {key: _join(key, [value[key] for value in values], counts) for key in some}
    if isinstance(some, list | tuple):
        if name in _LISTS:
            pairs = zip(values, counts, strict=True)
            return [item for value, count in pairs for item in _item_for_each(value, count)]
        return type(some)(_join(name, [value[index] for value in values], counts) for index in range(len(some)))
    return some


def _item_for_each(value: Sequence[Any], rows: int) -> Sequence[Any]:
    """A list as long as its call has rows: some pipelines give one item for all."""
    return list(value) * rows if len(value) == 1 else value


def _concatenate(values: Sequence[torch.Tensor], counts: Sequence[int]) -> torch.Tensor:
    return torch.cat(
        [
            value if value.dim() and len(value) == count else value.expand(count, *value.shape[1:])
            for value, count in zip(values, counts, strict=True)
        ]
    )


def _zeros(like: Any, rows: int) -> Any:
    if isinstance(like, torch.Tensor):
        return like.new_zeros(rows, *like.shape[1:])
    if isinstance(like, dict):
        return {name: _zeros(item, rows) for name, item in like.items()}
    return [_zeros(item, rows) for item in like]


def _slice(name: str, value: Any, rows: int, start: int, stop: int) -> Any:
    if isinstance(value, torch.Tensor):
        has_rows = name not in _TABLES and value.dim() and len(value) == rows
        return value[start:stop] if has_rows else value
    if isinstance(value, dict):
        return {key: _slice(key, item, rows, start, stop) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if name in _LISTS:
            return _item_for_each(value, rows)[start:stop]
        return type(value)(_slice(name, item, rows, start, stop) for item in value)
    return value


def _cut(result: Any, total: int, part: slice, call: Call) -> Any:
    """One call's rows of whatever the module returned."""
    if isinstance(result, torch.Tensor):
        own = result[part] if result.dim() and len(result) == total else result
        return own if call.scale is None else own * call.scale
    if isinstance(result, dict):
        return _like(result, {name: _cut(value, total, part, call) for name, value in result.items()})
    if isinstance(result, list) and isinstance(next(iter(call.given.values())), list):
        return result[part]
    if isinstance(result, list | tuple):
        return type(result)(_cut(item, total, part, call) for item in result)
    return result


def _like(result: dict[Any, Any], items: dict[Any, Any]) -> Any:
    """Items in what a module returned: a class of diffusers, or a dictionary, whose keys may be numbers."""
    return items if type(result) is dict else type(result)(**items)
