"""Upscaling and erasing on the page, from a finished image and from a file."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from tests.browser.studio import Studio


def test_a_finished_image_is_upscaled(studio: Studio) -> None:
    card = studio.generate("a red circle on a blue background", Steps="2")
    first = studio.wait_for(card, "completed")
    card.get_by_role("button", name="Show image 1").click()

    studio.page.get_by_role("button", name="To upscale").click()

    expect(studio.page.get_by_role("radio", name="Upscale", exact=True)).to_be_checked()
    expect(studio.page.get_by_label("Upscaler", exact=True)).to_have_value("shapes-upscaler")
    large = studio.submit(studio.page.get_by_role("button", name="Upscale", exact=True).click)
    job = studio.wait_for(large, "completed")
    assert (job["task"], job["images"][0]["width"]) == ("upscale", 2 * first["images"][0]["width"])
    expect(large).to_contain_text("128 × 128")
    expect(large.get_by_role("button", name="Vary")).to_have_count(0)

    large.get_by_role("button", name="To img2img").click()
    expect(studio.page.get_by_role("radio", name="From image")).to_be_checked()
    # What the person had set there is still there.
    expect(studio.page.locator("#field-prompt")).to_have_value("a red circle on a blue background")


def test_what_is_painted_is_erased_and_the_rest_stays_exactly_as_it_is(studio: Studio, picture: Path) -> None:
    studio.choose("Erase")
    studio.page.set_input_files("#field-image", picture)
    canvas = studio.page.locator("mask-brush canvas")
    canvas.focus()
    studio.page.keyboard.press(" ")
    expect(studio.page.locator("[data-field=mask_image]")).to_contain_text("Paint what is to be erased")

    card = studio.submit(lambda: studio.page.keyboard.press("Control+Enter"))

    job = studio.wait_for(card, "completed")
    with Image.open(picture) as before:
        after = studio.service.image_of(job)
        assert after.convert("RGB").crop((0, 0, 20, 64)).tobytes() == before.crop((0, 0, 20, 64)).tobytes()
        assert after.convert("RGB").tobytes() != before.convert("RGB").tobytes()


def test_each_tab_keeps_its_own_values_and_mask(studio: Studio, picture: Path) -> None:
    studio.fill(Prompt="a red circle")
    studio.choose("Inpaint")
    studio.page.set_input_files("#field-image", picture)
    studio.page.locator("mask-brush canvas").focus()
    studio.page.keyboard.press(" ")
    studio.choose("Erase")
    expect(studio.page.locator("mask-brush")).to_have_count(0)
    studio.page.set_input_files("#field-image", picture)
    studio.page.locator("mask-brush canvas").focus()
    for key in ("ArrowUp", "ArrowUp", " "):
        studio.page.keyboard.press(key)

    studio.choose("Generate")

    expect(studio.page.locator("#field-prompt")).to_have_value("a red circle")
    job = studio.wait_for(studio.generate("a red circle", Steps="2"), "completed")
    with Image.open(studio.stored(job["receipt"]["parameters"]["mask_image"])) as mask:
        levels = mask.convert("L")
        assert [levels.getpixel(place) for place in ((32, 32), (32, 22))] == [255, 0]
