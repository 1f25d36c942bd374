"""The page on a desktop and on a phone, in dark and in light; with the screenshots of docs/page.md."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.studio import Studio

PROMPTS = {
    "shapes-flux": "a purple star on a white background",
    "shapes-sd3": "a yellow square on a green background",
    "shapes-sdxl": "a blue triangle on a yellow background",
}


def show_images(studio: Studio) -> None:
    """Have finished images of each model, and one that develops."""
    for model, prompt in PROMPTS.items():
        studio.service.run("txt2img", model=model, prompt=prompt, seed=5)
    studio.service.run("txt2img", prompt="a red circle on a blue background", num_images=4, seed=8)
    card = studio.generate("a red star on a blue background", Steps="200")
    card.locator(".developing img").wait_for()


def assert_fits(studio: Studio) -> None:
    """Nothing stands out to the right."""
    sizes = studio.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert sizes[0] <= sizes[1]


@pytest.mark.parametrize(("scheme", "picture"), [("dark", "page"), ("light", "page-light")])
def test_a_desktop_shows_form_images_and_service_side_by_side(studio: Studio, scheme: str, picture: str) -> None:
    studio.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    show_images(studio)

    places = [studio.page.locator(name).bounding_box() for name in ("#create", "#images", "#service")]
    assert all(places)
    assert len({round(place["y"]) for place in places if place}) == 1
    assert_fits(studio)
    studio.page.locator("#create").evaluate("(form) => form.scrollTo(0, 0)")
    if scheme == "dark":
        studio.photograph(picture)
        studio.page.get_by_role("button", name="Show image 1: a red circle").first.click()
        expect(studio.page.get_by_role("dialog")).to_be_visible()
        studio.photograph("page-receipt")


@pytest.mark.parametrize("task", ["From text", "Inpaint", "Control"])
def test_a_phone_shows_one_below_the_other_and_reaches_each_by_a_touch(studio: Studio, task: str) -> None:
    studio.page.set_viewport_size({"width": 390, "height": 844})
    studio.choose(task)

    assert_fits(studio)
    for name in ("Images", "Service", "Create"):
        studio.page.get_by_role("link", name=name, exact=True).click()
        expect(studio.page.locator(f"#{name.lower()}")).to_be_in_viewport()
