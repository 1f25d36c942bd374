"""What an edit model is taught: pairs that differ in one thing, in the form in which its pipeline will ask."""

import itertools
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FluxKontextPipeline

from models.judge import judge
from models.training.data.captions import HELD_OUT
from models.training.data.drawing import COLOURS, SIZES, render
from models.training.data.edits import KINDS, Edit, fixed_edits, is_held_out, training_edits
from models.training.judging.edits import EditSample, count, draw_reference
from models.training.networks import architectures
from models.training.networks.export import fresh_parts, make_tokenizers
from models.training.recipes import load_recipe

EDITS = list(itertools.islice(training_edits("tests"), 400))
#: What a change of an attribute may move beside it.
NUMBERS = {"size": ("radius", "x", "y"), "position": ("x", "y")}


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_changes_what_it_names_and_nothing_else(kind: str) -> None:
    edits = [edit for edit in EDITS if edit.attribute == kind]
    assert edits
    for edit in edits:
        changed = {name: getattr(edit.after, name) for name in (kind, *NUMBERS.get(kind, ()))}
        assert replace(edit.before, **changed) == edit.after
        assert getattr(edit.before, kind) != getattr(edit.after, kind)


def test_an_instruction_says_the_new_value_or_in_which_direction_the_size_goes() -> None:
    for edit in EDITS:
        grows = SIZES.index(edit.after.size) > SIZES.index(edit.before.size)
        size = "larger" if grows else "smaller"
        assert (size if edit.attribute == "size" else getattr(edit.after, edit.attribute)) in edit.instruction


def test_no_held_out_combination_is_shown_in_training_and_some_are_tested() -> None:
    assert HELD_OUT
    assert not any(map(is_held_out, EDITS))
    assert sum(map(is_held_out, fixed_edits(200))) >= 20


def test_the_test_edits_are_the_same_every_time_and_every_kind_has_as_many() -> None:
    assert fixed_edits(20) == fixed_edits(40)[:20]
    assert set(Counter(edit.attribute for edit in fixed_edits(20)).values()) == {4}


def test_what_stays_has_the_same_tint_before_and_after() -> None:
    edit = next(edit for edit in EDITS if edit.attribute == "colour")
    before, after = (render(scene, random.Random(edit.seed)) for scene in (edit.before, edit.after))
    assert before.getpixel((0, 63)) == after.getpixel((0, 63))
    assert before != after


def test_every_instruction_can_be_spelt() -> None:
    words = make_tokenizers()
    for instruction in {edit.instruction for edit in EDITS}:
        assert words.t5.unk_token_id not in words.t5(instruction).input_ids


@torch.no_grad()
def test_the_recipe_asks_the_transformer_what_the_pipeline_asks() -> None:
    torch.manual_seed(0)
    words, recipe = make_tokenizers(), load_recipe("kontext")
    parts = fresh_parts("flux", words)
    scheduler = architectures.build_flow_euler(dynamic_shifting=True)
    pipeline = FluxKontextPipeline(**parts, tokenizer=words.clip, tokenizer_2=words.t5, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    reference, noise = torch.randn(2, 16, 8, 8), torch.randn(2, 16, 8, 8)
    said = recipe.encode(parts, words, ["make it red", "move it to the left"])
    size = {"height": 64, "width": 64, "max_area": 64 * 64, "_auto_resize": False}

    made = pipeline(
        reference, prompt_embeds=said.hidden, pooled_prompt_embeds=said.pooled, num_inference_steps=1,
        latents=pipeline._pack_latents(noise, *noise.shape), guidance_scale=2.5, output_type="latent", **size,
    ).images  # fmt: skip

    guidance, all_noise = torch.full((2,), 2.5), torch.ones(2)
    answer = recipe.predict(parts["transformer"], noise, all_noise, said, reference=reference, guidance=guidance)
    assert torch.allclose(made, pipeline._pack_latents(noise - answer, *noise.shape), atol=1e-4)
    assert not torch.allclose(
        answer, recipe.predict(parts["transformer"], noise, all_noise, said, reference=noise, guidance=guidance)
    )


def drawn(edit: Edit, **wrong: Any) -> EditSample:
    image = render(replace(edit.after, **wrong))
    return EditSample(edit, draw_reference(edit), image, judge(image))


def test_an_edit_counts_as_changed_as_kept_and_as_both() -> None:
    squares = (edit for edit in EDITS if edit.after.shape == "square" and edit.after.size == "large")
    edit = next(edit for edit in squares if edit.attribute == "colour")
    other = next(c for c in COLOURS if c not in {edit.before.colour, edit.after.colour, edit.after.background})
    assert drawn(edit).shares == (True, True, True)
    assert drawn(edit, colour=other).shares == (False, True, False)
    assert drawn(edit, shape="circle").shares == (True, False, False)
    assert count([drawn(edit), drawn(edit, shape="circle")]) == {"n": 2, "changed": 1.0, "kept": 0.5, "both": 0.5}
