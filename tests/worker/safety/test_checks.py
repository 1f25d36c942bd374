"""The shipped checks of images: a classifier from a folder, and the checker that a checkpoint carries."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPForImageClassification, CLIPImageProcessor

from contracts.errors import SettingsError
from contracts.settings import BUILT_IN_CATALOGUE
from models.training.data.captions import test_scenes as scenes_of_the_judge
from models.training.data.drawing import SHAPES, render
from worker.safety.checkpoint_checker import CheckpointChecker
from worker.safety.classifier import Classifier
from worker.safety.opening import open_safety
from worker.settings import WorkerSettings

NO_STARS = BUILT_IN_CATALOGUE.parent / "safety" / "no-stars"


def test_the_classifier_of_shapes_finds_stars_and_little_else() -> None:
    classifier, rng = Classifier(NO_STARS, ["star"]), random.Random(1)
    scenes = scenes_of_the_judge(held_out=True, count=40)
    found = [(scene.shape == "star", classifier.score(render(scene, rng), "any") >= 0.5) for scene in scenes]
    stars = [flagged for is_star, flagged in found if is_star]
    others = [flagged for is_star, flagged in found if not is_star]
    assert min(len(stars), len(others)) >= 5
    assert sum(stars) >= 0.9 * len(stars)
    assert sum(others) <= 0.1 * len(others)
    every = Classifier(NO_STARS, list(SHAPES)).score(Image.new("L", (300, 20)), "any")
    assert every == pytest.approx(1, abs=1e-4)


def test_clip_with_a_head_is_a_classifier(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 32, "patch_size": 16}
    labels = {"id2label": {0: "fine", 1: "star"}, "label2id": {"fine": 0, "star": 1}}
    model = CLIPForImageClassification(CLIPConfig(vision_config=vision, text_config=sizes, **labels))
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 1.0]))
    model.save_pretrained(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    score = Classifier(tmp_path, ["star"]).score(Image.new("RGB", (64, 48), "red"), "any")
    assert score == pytest.approx(torch.tensor(1.0).sigmoid().item(), abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"image_check": "classifier"}, "needs DARKROOM_WORKER_IMAGE_CHECK_FOLDER"),
        (
            {"image_check": "classifier", "image_check_folder": NO_STARS, "image_check_labels": ["moon"]},
            "has no label moon; it knows circle, square, triangle, star, cross",
        ),
        ({"image_check": "classifier", "image_check_folder": NO_STARS}, "needs labels to flag"),
        (
            {"image_check": "classifier", "image_check_folder": NO_STARS.parent, "image_check_labels": ["star"]},
            "has no image classifier as safetensors",
        ),
        (
            {"image_check": "checkpoint", "image_check_folder": NO_STARS.parent},
            "IMAGE_CHECK_FOLDER: .* has no safety checker as safetensors",
        ),
        ({"image_check": "clasifier"}, "no check is named clasifier; one of off, checkpoint, classifier"),
    ],
)
def test_a_check_that_cannot_work_is_told_at_the_start(settings: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        open_safety(WorkerSettings.model_validate(settings), Path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint with a safety checker, with random weights, that flags everything."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config={**sizes, "image_size": 32, "patch_size": 16}, text_config=sizes, projection_dim=8
    )
    checker = StableDiffusionSafetyChecker(config)
    with torch.no_grad():
        for name, value in (("concept_embeds_weights", -2.0), ("special_care_embeds_weights", 2.0)):
            getattr(checker, name).fill_(value)
        for name in ("concept_embeds", "special_care_embeds"):
            getattr(checker, name).fill_(1.0)
    checker.save_pretrained(tmp_path / "safety_checker")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "feature_extractor"
    )
    return tmp_path


def test_a_checkpoints_own_checker_decides_and_leaves_the_image_alone(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    checker = CheckpointChecker({"guarded": checkpoint, "bare": tmp_path / "bare"}.__getitem__)
    image = Image.new("RGB", (64, 48), "red")
    assert checker.score(image, "guarded") == 1.0
    assert image.getextrema() == ((255, 255), (0, 0), (0, 0))
    assert checker.score(image, "bare") is None
    alone = shutil.copytree(checkpoint / "safety_checker", tmp_path / "alone")
    shutil.copy(checkpoint / "feature_extractor" / "preprocessor_config.json", alone)
    assert CheckpointChecker(lambda _: tmp_path / "bare", alone).score(image, "bare") == 1.0
    strict = StableDiffusionSafetyChecker.from_pretrained(checkpoint / "safety_checker")
    with torch.no_grad():
        strict.concept_embeds_weights.fill_(2.0)
    strict.save_pretrained(checkpoint / "safety_checker")
    assert CheckpointChecker(lambda _: checkpoint).score(image, "guarded") == 0.0
