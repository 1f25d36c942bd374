"""A training on the page: set up, watched, cancelled, and its result used in the next request."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.studio import Studio
from tests.support.images import draw_shape, encode_image

INSTANCE = {"Prompt_of_all_images": "a red blob"}


@pytest.fixture
def drawings(tmp_path: Path) -> list[Path]:
    """Two drawings, the second with a caption beside it."""
    paths = [tmp_path / "one.png", tmp_path / "two.png", tmp_path / "two.txt"]
    for path, background in zip(paths, ("blue", "green"), strict=False):
        path.write_bytes(encode_image(draw_shape("circle", "red", background)))
    paths[2].write_text("a red blob on green", encoding="utf-8")
    return paths


def test_a_lora_is_trained_watched_and_used_in_the_next_request(studio: Studio, drawings: list[Path]) -> None:
    studio.choose("Train")
    studio.page.set_input_files("#field-images", drawings)
    expect(studio.page.get_by_role("group", name="Image 2").locator("img")).to_have_count(1)
    expect(studio.page.get_by_label("Caption of image 2")).to_have_value("a red blob on green")
    samples = "a red blob\na red blob on a white background"
    card = studio.train("blob", Steps="6", Snapshot_every="3", Seed="1", Prompts_of_samples=samples, **INSTANCE)
    expect(card).to_contain_text("blob")
    job = studio.wait_for(card, "completed")

    assert [one["id"] for one in job["receipt"]["training"]["loras"]] == ["blob-step3", "blob"]
    captions = [image["caption"] for image in job["receipt"]["parameters"]["images"]]
    assert captions == ["a red blob", "a red blob on green"]
    curve = card.get_by_role("img", name=re.compile("^Loss of 6 steps"))
    expect(curve).to_be_visible()
    assert len((curve.locator(".each").get_attribute("points") or "").split()) == 6
    expect(card.locator(".samples img")).to_have_count(2)
    card.get_by_role("button", name="Show training blob").click()
    dialog = studio.page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="After step 3")).to_be_visible()
    expect(dialog.get_by_alt_text(re.compile("blob, after step 3"))).to_have_count(2)
    expect(dialog.get_by_role("button", name="Use blob-step3")).to_be_visible()
    studio.photograph("page-training")

    dialog.get_by_role("button", name="Use blob", exact=True).click()
    expect(studio.page.get_by_role("radio", name="Generate", exact=True)).to_be_checked()
    expect(studio.page.locator("#field-prompt")).to_have_value("a red blob")
    used = studio.wait_for(studio.generate("a red blob", Steps="2"), "completed")
    assert [one["id"] for one in used["receipt"]["loras"]] == ["blob"]


def test_a_reload_draws_the_curve_and_the_samples_again(studio: Studio, drawings: list[Path]) -> None:
    body = {"name": "again", "instance_prompt": "a red blob", "steps": 4, "sample_prompts": ["a red blob"]}
    with drawings[0].open("rb") as file:
        upload = studio.service.http.post(
            "/v1/uploads", content=file.read(), headers={"Content-Type": "image/png"}
        )
    answer = studio.service.http.post("/v1/trainings", json={**body, "images": [{"image": upload.json()["id"]}]})
    studio.service.wait(answer.json()["id"])

    studio.page.reload()

    card = studio.card_of(answer.json()["id"])
    expect(card.get_by_role("img", name=re.compile("^Loss of 4 steps"))).to_be_visible()
    expect(card.locator(".samples img")).to_have_count(1)
    expect(card).to_contain_text("4 steps")


def test_a_running_training_shows_its_loss_and_is_cancelled(studio: Studio, drawings: list[Path]) -> None:
    studio.choose("Train")
    studio.page.get_by_role("radio", name="Textual inversion").check()
    studio.page.set_input_files("#field-images", drawings[:1])
    card = studio.train("word", Steps="20000", Prompt_of_all_images="a photo of word")

    expect(card).to_contain_text(re.compile(r"step \d+ of 20000, loss \d"))
    expect(card.get_by_role("img", name=re.compile("^Loss of"))).to_be_visible()
    card.get_by_role("button", name="Cancel").click()
    studio.wait_for(card, "cancelled")


def test_a_zip_file_of_pairs_trains_a_control_net_that_the_next_request_has(
    studio: Studio, tmp_path: Path
) -> None:
    archive = tmp_path / "pairs.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("1.png", encode_image(draw_shape("square", "red", "blue")))
        file.writestr("1.control.png", encode_image(draw_shape("square", "white", "black")))
    studio.choose("Train")
    studio.page.get_by_role("radio", name="ControlNet").check()
    studio.page.set_input_files("#field-images", archive)
    expect(studio.page.locator("[data-field=images]")).to_contain_text("pairs.zip")
    card = studio.train("squares", Steps="1", Prompt_of_all_images="a square")
    studio.wait_for(card, "completed")

    card.get_by_role("button", name="Use squares").click()

    expect(studio.page.get_by_role("radio", name="Control", exact=True)).to_be_checked()
    expect(studio.page.locator("#field-controls-0-controlnet option:checked")).to_have_text("squares")


def test_what_is_wrong_with_an_image_is_said_at_it(studio: Studio, drawings: list[Path], tmp_path: Path) -> None:
    studio.choose("Train")
    lonely, broken = tmp_path / "three.txt", tmp_path / "broken.png"
    lonely.write_text("a caption", encoding="utf-8")
    broken.write_bytes(drawings[0].read_bytes()[:60])
    error = studio.page.locator("#field-images-error")
    for files, words in (([lonely], "three.txt has no image"), ([broken], "broken.png: ")):
        studio.page.set_input_files("#field-images", files)
        expect(error).to_contain_text(words)
    studio.page.set_input_files("#field-images", drawings)
    studio.fill(Name="blob")

    studio.page.get_by_role("button", name="Train", exact=True).click()

    # The second image has a caption of its own.
    expect(studio.page.locator("#field-images-0-error")).to_contain_text("has no caption")
    expect(studio.page.get_by_label("Caption of image 1")).to_have_attribute("aria-invalid", "true")
    expect(studio.page.locator("#field-images-1-error")).to_have_count(0)


def test_the_form_of_a_training_has_exactly_the_fields_that_mean_something(studio: Studio) -> None:
    studio.choose("Train")
    for model in ("shapes-sdxl", "shapes-flux"):
        studio.page.get_by_label("Model", exact=True).select_option(model)
        schemas = studio.service.http.get(f"/v1/models/{model}").json()["training_schemas"]
        for kind, schema in schemas.items():
            if len(schemas) > 1:
                studio.page.locator("[name=task]").nth(list(schemas).index(kind)).check()
            expected = {name for name, part in schema["properties"].items() if "const" not in part} - {"model"}
            fields = studio.page.locator(".request .group > [data-field]")
            expect(fields).to_have_count(len(expected))
            assert set(fields.evaluate_all("(all) => all.map((one) => one.dataset.field)")) == expected, kind
    assert json.loads(studio.page.evaluate("sessionStorage['darkroom.draft']"))["tab"] == "train"
