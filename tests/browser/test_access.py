"""Keys, and a service that goes away and comes back."""

from __future__ import annotations

import signal

import psutil
from playwright.sync_api import BrowserContext, expect

from tests.browser.studio import Studio
from tests.support.running_service import RunningService


def test_a_key_is_asked_for_and_kept_in_the_session_only(
    context: BrowserContext, service: RunningService, key: str
) -> None:
    page = context.new_page()
    page.goto(service.url)
    page.get_by_label("API key").fill("dk_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("does not accept this key")

    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")

    page.wait_for_selector("#field-prompt")
    stored = page.evaluate("[Object.values(sessionStorage), Object.values(localStorage), document.cookie]")
    assert key in stored[0]
    assert stored[1:] == [[], ""]
    other = context.new_page()
    other.goto(service.url)
    expect(other.get_by_label("API key")).to_be_visible()
    page.get_by_role("button", name="Forget key").click()
    expect(page.get_by_label("API key")).to_be_visible()


def test_something_that_cannot_be_a_key_is_not_sent(
    context: BrowserContext, service: RunningService, key: str
) -> None:
    page = context.new_page()
    page.goto(service.url)
    page.get_by_label("API key").fill("ключ с пробелом")
    page.keyboard.press("Enter")

    expect(page.get_by_role("alert")).to_contain_text("without spaces")


def test_the_page_says_that_the_service_is_away_and_goes_on_when_it_is_back(
    studio: Studio, context: BrowserContext
) -> None:
    card = studio.generate_endlessly()
    expect(card).to_contain_text("of 200")

    context.set_offline(True)
    expect(studio.page.get_by_role("alert")).to_contain_text("does not answer")
    kill_api(studio.service)
    context.set_offline(False)

    expect(studio.page.get_by_role("alert")).to_have_count(0)
    card.get_by_role("button", name="Cancel").click()
    studio.wait_for(card, "cancelled")
    studio.wait_for(studio.generate("a red circle on a blue background", Steps="2", Images="1"), "completed")


def kill_api(service: RunningService) -> None:
    """End the API process, which the supervisor starts again."""
    for process in psutil.Process(service.process.pid).children(recursive=True):
        if process.cmdline()[-2:] == ["-m", "app"]:
            process.send_signal(signal.SIGKILL)


def test_workers_and_models_are_shown(studio: Studio) -> None:
    panel = studio.page.locator("#service")
    report = studio.service.http.get("/v1/workers").json()["data"][0]

    expect(panel).to_contain_text(report["id"])
    expect(panel.get_by_label(f"Device memory of {report['id']}")).to_be_visible()
    expect(panel).to_contain_text("shapes-flux")
    expect(panel.locator("[data-state=warm]").first).to_be_visible()
