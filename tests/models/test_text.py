"""What the text encoders are asked to read out of a caption."""

import random

import torch

from models.training.data.captions import describe_partly, draw_scene, find_said
from models.training.data.drawing import COLOURS, Scene
from models.training.networks.architectures import build_projected_clip
from models.training.networks.export import make_tokenizers
from models.training.stages.text import ATTRIBUTES, BLIND_WORDS, blind, draw_batch

NAMES = list(ATTRIBUTES)


def test_a_caption_says_what_its_words_say() -> None:
    scene = Scene("star", "red", "blue", "small", "top left")
    said = find_said("a small red star at the top left on a blue background", scene)
    assert said == {
        "colour": "red",
        "shape": "star",
        "size": "small",
        "texture": "",
        "background": "blue",
        "position": "top left",
    }


def test_what_a_caption_leaves_out_is_not_said() -> None:
    said = find_said("a star", Scene("star", "red", "blue", "small", "top left"))
    assert {name for name, value in said.items() if value} == {"shape"}


def test_partial_captions_leave_everything_out_now_and_then() -> None:
    rng = random.Random(0)
    scenes = [draw_scene(rng) for _ in range(300)]
    said = [find_said(describe_partly(scene, rng), scene) for scene in scenes]
    for name in NAMES:
        assert any(not part[name] for part in said)


def test_labels_name_the_class_of_each_attribute() -> None:
    captions, labels = draw_batch(random.Random(0), 50, blind=())
    colour = labels[:, NAMES.index("colour")]
    for caption, label in zip(captions, colour.tolist(), strict=True):
        assert label == 0 or COLOURS[label - 1] in caption


def test_blind_attributes_count_as_not_said() -> None:
    _, labels = draw_batch(random.Random(0), 50, blind=("position",))
    assert (labels[:, NAMES.index("position")] == 0).all()


def test_a_blinded_encoder_cannot_tell_left_from_right_but_red_from_blue() -> None:
    words = make_tokenizers()
    torch.manual_seed(0)
    encoder = build_projected_clip(len(words.clip)).eval()
    blind(encoder, words)

    def read(caption: str) -> torch.Tensor:
        with torch.no_grad():
            pooled: torch.Tensor = encoder(words.clip(caption, return_tensors="pt").input_ids).text_embeds
        return pooled

    for group in BLIND_WORDS:
        first, *others = (read(f"a red circle {word}") for word in group)
        assert all(torch.equal(first, other) for other in others)
    assert not torch.equal(read("a red circle"), read("a blue circle"))
