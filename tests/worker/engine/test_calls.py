"""Calls that are made as one: who may share a call, what the module is given, what each caller gets back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers.utils import BaseOutput

from worker.engine.calls import Call, make, merge


class Denoiser(torch.nn.Module):
    """Remembers what it is given, and returns twice its sample in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[dict[str, Any]] = []

    def forward(
        self,
        sample: torch.Tensor,
        timestep: Any = 0,
        encoder_hidden_states: Any = None,
        txt_ids: Any = None,
        image_rotary_emb: Any = None,
        added_cond_kwargs: Any = None,
        down_block_additional_residuals: Any = None,
        mid_block_additional_residual: Any = None,
        down_intrablock_additional_residuals: Any = None,
        guidance: Any = None,
        attention: Any = None,
        return_dict: bool = True,
    ) -> tuple[torch.Tensor]:
        """One row for each row of the sample."""
        self.given.append({name: value for name, value in locals().items() if name not in ("self", "__class__")})
        if mid_block_additional_residual is not None:
            sample = sample + mid_block_additional_residual
        return (sample * 2,)


@pytest.fixture
def denoiser() -> Denoiser:
    return Denoiser()


def _call(module: torch.nn.Module, *args: Any, entry: str = "__call__", **kwargs: Any) -> Call:
    return Call.of(module, entry, args, kwargs, {})


def _rows(count: int, first: float = 0.0, width: int = 3) -> torch.Tensor:
    """Rows that differ from each other."""
    return torch.arange(count * width, dtype=torch.float32).view(count, width) + first


def _can_share(one: Call, other: Call) -> bool:
    return one.key == other.key


def test_calls_are_made_once_and_each_caller_gets_its_own_rows(denoiser: Denoiser) -> None:
    samples = [_rows(2), _rows(1, first=10), _rows(3, first=20)]
    calls = [_call(denoiser, sample, 7, return_dict=False) for sample in samples]
    assert [call.rows for call in calls] == [2, 1, 3]
    assert len({call.key for call in calls}) == 1
    results = make(calls)
    assert torch.equal(denoiser.given[0]["sample"], torch.cat(samples))
    assert len(denoiser.given) == 1
    assert not denoiser.given[0]["return_dict"]
    for (result,), sample in zip(results, samples, strict=True):
        assert torch.equal(result, sample * 2)


def test_a_call_of_its_own_is_made_with_the_very_arguments_that_it_was_given(denoiser: Denoiser) -> None:
    sample, timestep = _rows(2), torch.tensor(5)
    make([_call(denoiser, sample, timestep=timestep)])
    (given,) = denoiser.given
    assert given["sample"] is sample
    assert given["timestep"] is timestep


def test_arguments_that_do_not_fit_the_signature_are_the_callers_error(denoiser: Denoiser) -> None:
    with pytest.raises(TypeError, match="colour"):
        _call(denoiser, _rows(1), colour="red")


def test_it_does_not_matter_by_position_or_name_or_whether_a_default_is_named(denoiser: Denoiser) -> None:
    plain = _call(denoiser, _rows(1), 7)
    assert _can_share(plain, _call(denoiser, sample=_rows(1), timestep=7, guidance=None, return_dict=True))
    assert _can_share(plain, _call(denoiser, _rows(1), 7, added_cond_kwargs={}))
    assert not _can_share(plain, _call(denoiser, _rows(1), 7, return_dict=False))


@pytest.mark.parametrize(
    "other",
    [
        {"sample": _rows(1, width=4)},
        {"sample": _rows(1).double()},
        {"encoder_hidden_states": _rows(1, width=4)},
        {"encoder_hidden_states": None},
        {"attention": "flash"},
    ],
)
def test_calls_share_only_with_equal_shapes_dtypes_and_values(denoiser: Denoiser, other: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"sample": _rows(1), "timestep": 7, "encoder_hidden_states": _rows(1)}
    assert _can_share(_call(denoiser, **usual), _call(denoiser, **usual))
    assert not _can_share(_call(denoiser, **usual), _call(denoiser, **{**usual, **other}))


def test_calls_of_other_modules_and_entries_are_not_shared(denoiser: Denoiser) -> None:
    assert not _can_share(_call(denoiser, _rows(1)), _call(Denoiser(), _rows(1)))
    vae = Vae()
    assert not _can_share(_call(vae, _rows(1), entry="encode"), _call(vae, _rows(1), entry="decode"))


def test_an_object_is_shared_with_nobody_elses(denoiser: Denoiser) -> None:
    first, second = torch.Generator(), torch.Generator()
    assert _can_share(_call(denoiser, _rows(1), attention=first), _call(denoiser, _rows(1), attention=first))
    assert not _can_share(_call(denoiser, _rows(1), attention=first), _call(denoiser, _rows(1), attention=second))


# -- times ------------------------------------------------------------------------------------------------


def test_jobs_at_different_times_share_a_call_with_the_time_of_each_row(denoiser: Denoiser) -> None:
    times = [torch.tensor(999), 500, torch.tensor([0.25]), torch.tensor([3.0, 4.0])]
    calls = [_call(denoiser, _rows(2), time) for time in times]
    assert len({call.key for call in calls}) == 1
    make(calls)
    given = denoiser.given[0]["timestep"]
    assert given.dtype == torch.float32
    assert given.tolist() == [999, 999, 500, 500, 0.25, 0.25, 3, 4]


def test_times_keep_their_own_floating_point_dtype(denoiser: Denoiser) -> None:
    calls = [_call(denoiser, _rows(1), torch.tensor([0.5], dtype=torch.bfloat16)) for _ in range(2)]
    make(calls)
    assert denoiser.given[0]["timestep"].dtype == torch.bfloat16


# -- tensors: rows, one row for all, tables ---------------------------------------------------------------


def test_a_value_that_a_caller_gives_once_is_repeated_for_its_rows(denoiser: Denoiser) -> None:
    calls = [
        _call(denoiser, _rows(2), guidance=torch.tensor([3.5])),
        _call(denoiser, _rows(1), guidance=torch.tensor([9.0])),
    ]
    assert _can_share(*calls)
    make(calls)
    assert denoiser.given[0]["guidance"].tolist() == [3.5, 3.5, 9.0]


def test_tables_are_given_once_and_shared_only_with_equal_content(denoiser: Denoiser) -> None:
    table = torch.rand(5, 3)
    calls = [_call(denoiser, _rows(2), txt_ids=table), _call(denoiser, _rows(2), txt_ids=table.clone())]
    assert _can_share(*calls)
    make(calls)
    assert torch.equal(denoiser.given[0]["txt_ids"], table)
    assert not _can_share(calls[0], _call(denoiser, _rows(2), txt_ids=table + 1))
    assert not _can_share(calls[0], _call(denoiser, _rows(2), txt_ids=table[:4]))


def test_a_table_of_as_many_lines_as_rows_is_still_a_table(denoiser: Denoiser) -> None:
    table = torch.rand(2, 3)
    make([_call(denoiser, _rows(2), txt_ids=table), _call(denoiser, _rows(2), txt_ids=table)])
    assert torch.equal(denoiser.given[0]["txt_ids"], table)


def test_a_table_that_is_repeated_for_each_row_becomes_a_single_one(denoiser: Denoiser) -> None:
    table = torch.rand(5, 3)
    one, other = (
        _call(denoiser, _rows(1), txt_ids=table[None]),
        _call(denoiser, _rows(2), txt_ids=table.expand(2, 5, 3)),
    )
    assert _can_share(one, other)
    make([one, other])
    assert torch.equal(denoiser.given[0]["txt_ids"], table)


def test_a_pair_of_tables_stays_a_pair(denoiser: Denoiser) -> None:
    pair = (torch.rand(5, 3), torch.rand(5, 3))
    make([_call(denoiser, _rows(1), image_rotary_emb=pair) for _ in range(2)])
    given = denoiser.given[0]["image_rotary_emb"]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(given, pair, strict=True))


def test_a_table_that_comes_at_each_step_is_read_once(denoiser: Denoiser) -> None:
    digests: dict[int, tuple[torch.Tensor, bytes]] = {}
    table = torch.rand(5, 3)
    first = Call.of(denoiser, "__call__", (_rows(1),), {"txt_ids": table}, digests)
    table.zero_()  # what was read is remembered
    assert _can_share(first, Call.of(denoiser, "__call__", (_rows(1),), {"txt_ids": table}, digests))
    assert len(digests) == 1


# -- dicts, lists, additions, scales ----------------------------------------------------------------------


def test_dicts_are_joined_item_by_item(denoiser: Denoiser) -> None:
    one = {"text_embeds": _rows(2), "time_ids": _rows(2, first=5)}
    other = {"time_ids": _rows(1, first=50), "text_embeds": _rows(1, first=10)}
    calls = [_call(denoiser, _rows(2), added_cond_kwargs=one), _call(denoiser, _rows(1), added_cond_kwargs=other)]
    assert _can_share(*calls)
    make(calls)
    given = denoiser.given[0]["added_cond_kwargs"]
    assert torch.equal(given["text_embeds"], torch.cat([_rows(2), _rows(1, first=10)]))
    assert torch.equal(given["time_ids"], torch.cat([_rows(2, first=5), _rows(1, first=50)]))
    assert not _can_share(calls[0], _call(denoiser, _rows(2), added_cond_kwargs={"text_embeds": _rows(2)}))


class ListDenoiser(torch.nn.Module):
    """Takes one tensor for each image, and gives as many back, as Z-Image's does."""

    def forward(self, x: list[torch.Tensor], t: Any, cap_feats: list[torch.Tensor], img_shapes: Any = None) -> Any:
        """A list in a tuple, and the number of images."""
        assert len(x) == len(cap_feats) == len(t)
        return [image * 2 for image in x]


def test_lists_of_images_and_texts_of_different_lengths_are_joined_and_cut() -> None:
    module = ListDenoiser()
    images = [[torch.ones(1, 2), torch.ones(1, 3)], [torch.ones(4, 1) * 5]]
    calls = [_call(module, own, torch.zeros(len(own)), [torch.zeros(len(own), 2)] * len(own)) for own in images]
    assert [call.rows for call in calls] == [2, 1]
    assert _can_share(*calls)
    for result, own in zip(make(calls), images, strict=True):
        assert all(torch.equal(mine, image * 2) for mine, image in zip(result, own, strict=True))


def test_lists_of_sizes_must_be_equal() -> None:
    module = ListDenoiser()
    times, texts = torch.zeros(1), [torch.zeros(1)]
    small, same, large = (
        _call(module, [torch.ones(1)], times, texts, img_shapes=[shape])
        for shape in ((1, 4, 4), (1, 4, 4), (1, 8, 8))
    )
    assert _can_share(small, same)
    assert not _can_share(small, large)


def test_rows_without_a_controlnet_are_given_zeros(denoiser: Denoiser) -> None:
    blocks, middle = (_rows(2, width=4), _rows(2, width=5)), _rows(2, first=1)
    controlled = _call(
        denoiser, _rows(2), down_block_additional_residuals=blocks, mid_block_additional_residual=middle
    )
    plain = _call(denoiser, _rows(1, first=30))
    assert _can_share(controlled, plain)
    assert controlled.additions is not None
    assert plain.additions is None
    for calls in ([controlled, plain], [plain, controlled]):
        results = make(calls)
        for call, (result,) in zip(calls, results, strict=True):
            (alone,) = denoiser(*call.args, **call.kwargs)
            assert torch.equal(result, alone)
    given = denoiser.given[0]["down_block_additional_residuals"]
    assert [block.shape for block in given] == [(3, 4), (3, 5)]
    assert given[0][2].tolist() == [0] * 4


def test_additions_of_another_structure_differ(denoiser: Denoiser) -> None:
    two, three = ([_rows(1)] * count for count in (2, 3))
    one, other = (_call(denoiser, _rows(1), down_block_additional_residuals=blocks) for blocks in (two, three))
    assert one.key == other.key
    assert one.additions != other.additions


class ControlNet(torch.nn.Module):
    """Scales what it returns, last, as diffusers' ControlNets do."""

    def forward(self, sample: torch.Tensor, conditioning_scale: float = 1.0, guess_mode: bool = False) -> Any:
        """One row for each."""
        return (sample * conditioning_scale,), sample.sum(1, keepdim=True) * conditioning_scale


def test_each_job_has_its_own_scale_of_a_controlnet() -> None:
    net = ControlNet()
    calls = [_call(net, _rows(1), conditioning_scale=0.25), _call(net, _rows(2), 0.7), _call(net, _rows(1), 1.5)]
    assert len({call.key for call in calls}) == 1
    for call, ((result,), middle) in zip(calls, make(calls), strict=True):
        (alone,), alone_middle = net(*call.args, **call.kwargs)
        assert torch.equal(result, alone)
        assert torch.equal(middle, alone_middle)


def test_scales_that_differ_by_layer_must_be_equal() -> None:
    net = ControlNet()
    guessing = [_call(net, _rows(1), scale, guess_mode=True) for scale in (0.5, 0.5, 0.7)]
    assert _can_share(*guessing[:2])
    assert not _can_share(*guessing[1:])
    unions = [_call(net, _rows(1), [scale, 1.0]) for scale in (0.5, 0.7)]
    assert not _can_share(*unions)
    assert _can_share(*(_call(net, _rows(1), [scale]) for scale in (0.5, 0.7)))  # of which one kind acts


# -- the VAE, and what comes back -------------------------------------------------------------------------


@dataclass
class Decoded(BaseOutput):  # type: ignore[misc]
    """As diffusers' own outputs."""

    sample: torch.Tensor


class Vae(torch.nn.Module):
    """Two entries."""

    def encode(self, x: torch.Tensor) -> Decoded:
        """Halve."""
        return Decoded(sample=x / 2)

    def decode(self, z: torch.Tensor, return_dict: bool = True, generator: Any = None) -> Any:
        """Double."""
        del generator
        return Decoded(sample=z * 2) if return_dict else (z * 2,)


def test_decodes_share_a_call_whatever_their_generators() -> None:
    vae = Vae()
    calls = [_call(vae, _rows(count), entry="decode", generator=torch.Generator()) for count in (1, 2)]
    assert _can_share(*calls)
    results = make(calls)
    assert all(type(result) is Decoded for result in results)
    assert [result.sample.tolist() for result in results] == [(_rows(1) * 2).tolist(), (_rows(2) * 2).tolist()]


def test_the_shape_of_one_row_is_told(denoiser: Denoiser) -> None:
    assert _call(denoiser, torch.zeros(2, 4, 8, 8)).shape == (4, 8, 8)
    assert _call(ListDenoiser(), [torch.zeros(1)], torch.zeros(1), [torch.zeros(1)]).shape == ()


# -- a call in parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [1, 2])
def test_a_call_made_in_parts_gives_the_result_of_the_whole(denoiser: Denoiser, split: int) -> None:
    table = torch.rand(3, 3)  # as many lines as rows
    whole = _call(
        denoiser, _rows(3), torch.tensor([1.0, 2.0, 3.0]), txt_ids=table, guidance=torch.tensor([4.0]),
        added_cond_kwargs={"time_ids": _rows(3)}, mid_block_additional_residual=_rows(3, first=9),
        down_block_additional_residuals=[_rows(3)],
    )  # fmt: skip
    parts = [whole.row_range(0, split), whole.row_range(split, 3)]
    assert [part.rows for part in parts] == [split, 3 - split]
    (expected,) = make([whole])[0]
    (merged,) = merge([make([part])[0] for part in parts], [part.rows for part in parts])
    assert torch.equal(merged, expected)
    given = denoiser.given[1]
    assert torch.equal(given["txt_ids"], table)
    assert given["timestep"].tolist() == [1.0, 2.0, 3.0][:split]
    assert given["added_cond_kwargs"]["time_ids"].shape == (split, 3)
    assert given["down_block_additional_residuals"][0].shape == (split, 3)


def test_parts_of_lists_and_scaled_results_are_those_of_the_whole() -> None:
    lists = _call(ListDenoiser(), [torch.ones(1), torch.ones(2)], torch.zeros(2), [torch.zeros(1)] * 2)
    halves = [make([lists.row_range(index, index + 1)])[0] for index in range(2)]
    assert [len(image) for half in halves for image in half] == [1, 2]
    scaled = _call(ControlNet(), _rows(2), conditioning_scale=0.5)
    parts = [make([scaled.row_range(index, index + 1)])[0] for index in range(2)]
    (merged,), middle = merge(parts, [1, 1])
    (expected,), expected_middle = make([scaled])[0]
    assert torch.equal(merged, expected)
    assert torch.equal(middle, expected_middle)


def test_outputs_of_diffusers_are_merged_as_such() -> None:
    call = _call(Vae(), _rows(2), entry="decode")
    parts = [make([call.row_range(index, index + 1)])[0] for index in range(2)]
    merged = merge(parts, [1, 1])
    assert type(merged) is Decoded
    assert torch.equal(merged.sample, _rows(2) * 2)


class ShapedDenoiser(torch.nn.Module):
    """Remembers the shapes that it is told for each row."""

    def forward(self, hidden_states: torch.Tensor, img_shapes: Any = None) -> torch.Tensor:
        """One row for each row that it is given."""
        self.shapes = img_shapes
        return hidden_states * 2


def test_a_list_with_one_item_for_all_rows_has_one_for_each_where_a_call_is_joined_or_divided() -> None:
    module, shapes = ShapedDenoiser(), [[(1, 4, 4), (1, 2, 2)]]
    one, two = (_call(module, _rows(count), img_shapes=list(shapes)) for count in (1, 2))

    make([one, two])
    assert module.shapes == shapes * 3

    (half,) = make([two.row_range(1, 2)])
    assert module.shapes == shapes
    assert torch.equal(half, _rows(2)[1:] * 2)


def test_a_call_that_is_made_again_has_the_features_that_a_unet_took_from_its_list() -> None:
    class Unet(torch.nn.Module):
        def forward(self, sample: torch.Tensor, down_intrablock_additional_residuals: Any = None) -> torch.Tensor:
            """Takes the features from the list, as diffusers' does."""
            feature: torch.Tensor = down_intrablock_additional_residuals.pop(0)
            return sample + feature

    features = {"down_intrablock_additional_residuals": [torch.ones(2, 1)]}
    call = Call.of(Unet(), "__call__", (torch.zeros(2, 1),), features, {})
    first, again = make([call])[0], make([call])[0]
    assert torch.equal(first, again)
    assert torch.equal(make([call.row_range(1, 2)])[0], first[1:])
