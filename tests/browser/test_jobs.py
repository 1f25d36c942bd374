"""A job on the page: generated, watched, cancelled, found again after a reload, run again and varied."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.studio import Studio

#: Jobs that a worker has in progress at most; more wait.
IN_FLIGHT = 16


def test_an_image_is_generated_and_shown_with_its_receipt(studio: Studio, tmp_path: Path) -> None:
    card = studio.generate("a red circle on a blue background", Seed="7")
    job = studio.wait_for(card, "completed")

    assert job["receipt"]["parameters"]["prompt"] == "a red circle on a blue background"
    assert job["receipt"]["seeds"] == [7]
    card.get_by_role("button", name="Show image 1").click()
    receipt = studio.page.get_by_role("dialog")
    expect(
        receipt.locator("dt", has_text="num_inference_steps").locator("xpath=following-sibling::dd")
    ).to_have_text("12")
    expect(receipt).to_contain_text("seed 7")
    assert (
        receipt.locator("figure img").first.evaluate("(image) => image.decode().then(() => image.naturalWidth)")
        == 64
    )
    with studio.page.expect_download() as download:
        receipt.get_by_role("link", name="Download").click()
    path = tmp_path / "download"
    download.value.save_as(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == job["images"][0]["sha256"]
    studio.page.keyboard.press("Escape")
    expect(receipt).to_have_count(0)


def test_a_running_job_shows_its_progress_and_its_previews(studio: Studio) -> None:
    card = studio.generate_endlessly()

    expect(card).to_contain_text("of 200")
    expect(card.locator(".developing img").first).to_have_attribute("src", re.compile("^data:image/jpeg"))
    expect(studio.page.locator("#service ol")).to_contain_text("of 200")
    assert float(card.locator("progress").evaluate("(bar) => bar.value")) > 0


def test_a_job_is_cancelled(studio: Studio) -> None:
    card = studio.generate_endlessly()

    card.get_by_role("button", name="Cancel").click()

    assert studio.wait_for(card, "cancelled")["status"] == "cancelled"
    expect(card).to_contain_text("cancelled")


def test_a_waiting_job_shows_its_place_in_the_queue(studio: Studio) -> None:
    for _ in range(IN_FLIGHT + 2):
        last = studio.service.submit("txt2img", num_inference_steps=200)["id"]

    expect(studio.card_of(last)).to_contain_text("in the queue")
    expect(studio.page.locator("#service ol")).to_contain_text("number 2 in the queue")


def test_a_reload_finds_the_running_job_and_the_draft_again(studio: Studio) -> None:
    id = studio.id_of(studio.generate_endlessly())

    studio.page.reload()

    card = studio.card_of(id)
    expect(card).to_contain_text("of 200")
    expect(card).to_contain_text("a red circle on a blue background")
    expect(studio.page.locator("#field-num_inference_steps")).to_have_value("200")
    card.get_by_role("button", name="Cancel").click()
    studio.wait_for(card, "cancelled")


def test_the_same_again_is_the_same_image_and_a_variation_another(studio: Studio) -> None:
    first = studio.generate("a yellow square on a green background", Seed="3")
    job = studio.wait_for(first, "completed")
    shas = []
    for name in ("Same again", "Vary"):
        card = studio.submit(first.get_by_role("button", name=name).click)
        shas.append(studio.wait_for(card, "completed")["images"][0]["sha256"])

    assert shas[0] == job["images"][0]["sha256"]
    assert shas[1] != job["images"][0]["sha256"]


def test_a_job_that_is_deleted_is_gone(studio: Studio) -> None:
    card = studio.generate("a red circle on a blue background", Steps="1")
    job = studio.wait_for(card, "completed")

    card.get_by_role("button", name="Show image 1").click()
    studio.page.get_by_role("button", name="Delete…").click()
    studio.page.get_by_role("button", name="Delete job and images").click()

    expect(card).to_have_count(0)
    assert studio.service.http.get(f"/v1/jobs/{job['id']}").status_code in (404, 410)
