"""The form: exactly what a model's schema has, and errors at the fields that they are about."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.studio import Studio

TASKS = {
    "txt2img": "From text",
    "img2img": "From image",
    "inpaint": "Inpaint",
    "controlnet": "Control",
    "edit": "Edit",
}


@pytest.mark.parametrize("model", ["shapes-sdxl", "shapes-sd3", "shapes-flux", "shapes-sd15", "shapes-kontext"])
def test_the_form_has_exactly_the_fields_that_the_model_takes(studio: Studio, model: str) -> None:
    schemas = studio.service.http.get(f"/v1/models/{model}").json()["schemas"]
    studio.page.get_by_label("Model", exact=True).select_option(model)
    for task in schemas.keys() & TASKS.keys():
        studio.choose(TASKS[task])
        expected = set(schemas[task]["properties"]) - {"task", "model"}
        expect(studio.page.locator(".request [data-field]")).to_have_count(len(expected))
        shown = studio.page.locator(".request [data-field]").evaluate_all(
            "(all) => all.map((one) => one.dataset.field)"
        )
        assert set(shown) == expected, task


def test_an_entry_has_the_fields_of_its_schema(studio: Studio) -> None:
    studio.page.get_by_text("LoRAs", exact=True).first.click()
    studio.page.get_by_role("button", name="Add LoRA").click()

    expect(studio.page.get_by_label("Name", exact=True)).to_have_value("0")
    studio.page.locator("#field-loras-0-scale").fill("0.5")
    job = studio.wait_for(studio.generate("a red circle on a blue background", Steps="2"), "completed")
    (lora,) = job["receipt"]["parameters"]["loras"]
    assert (lora["name"], lora["scale"]) == ("shapes-sdxl-tint", 0.5)


def test_errors_are_shown_at_the_fields_and_the_first_one_has_the_focus(studio: Studio) -> None:
    studio.page.get_by_text("LoRAs", exact=True).first.click()
    studio.page.get_by_role("button", name="Add LoRA").click()
    studio.page.locator("#field-loras-0-scale").fill("9")
    studio.fill(Prompt="a red circle", Width="65")

    studio.page.get_by_role("button", name="Generate").click()

    expect(studio.page.locator("#field-width-error")).to_contain_text("multiple of 8")
    expect(studio.page.locator("#field-loras-0-scale-error")).to_contain_text("at most 4")
    expect(studio.page.locator("#field-width")).to_be_focused()
    expect(studio.page.locator("#field-width")).to_have_attribute("aria-invalid", "true")
    studio.fill(Width="64")
    expect(studio.page.locator("#field-width-error")).to_have_count(0)


def test_an_empty_form_says_that_the_prompt_is_missing(studio: Studio) -> None:
    studio.page.get_by_role("button", name="Generate").click()

    expect(studio.page.locator("#field-prompt-error")).to_be_visible()


def test_a_description_is_shown_when_it_is_asked_for(studio: Studio) -> None:
    button = studio.page.get_by_role("button", name="About Guidance", exact=True)
    button.click()

    expect(button).to_have_attribute("aria-expanded", "true")
    expect(studio.page.locator("#field-guidance_scale-hint")).to_contain_text("How closely the image follows")


def test_everything_can_be_done_by_keyboard(studio: Studio) -> None:
    studio.page.locator("#field-prompt").focus()
    studio.page.keyboard.type("a red circle on a blue background")
    card = studio.submit(lambda: studio.page.keyboard.press("Control+Enter"))
    studio.wait_for(card, "completed")
    card.get_by_role("button", name="Show image 1").focus()
    studio.page.keyboard.press("Enter")
    expect(studio.page.get_by_role("dialog")).to_be_visible()
    studio.page.keyboard.press("Escape")
    expect(studio.page.get_by_role("dialog")).to_have_count(0)
