"""What a person does on the page, and what they see."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page

from tests.support.running_service import Json, RunningService

#: A job that no test waits for: it ends when it is cancelled.
ENDLESS = {"Steps": "200", "Images": "8"}

_DROP = """([selector, name, type, content]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], name, { type }));
    const target = document.querySelector(selector);
    for (const kind of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true }));
}"""
_PASTE = """([name, type, content]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], name, { type }));
    dispatchEvent(new ClipboardEvent("paste", { clipboardData: files, cancelable: true }));
}"""


class Studio:
    """The page as a person uses it.

    Attributes:
        service: the same service, for what the page does not show.
    """

    def __init__(self, page: Page, service: RunningService) -> None:
        self.page = page
        self.service = service

    def choose(self, task: str) -> None:
        """Select a task by its label."""
        self.page.get_by_role("radio", name=task, exact=True).check()

    def fill(self, **texts: str) -> None:
        """Fill in fields by their labels; `_` stands for a space."""
        for label, text in texts.items():
            self.page.get_by_label(label.replace("_", " "), exact=True).and_(
                self.page.locator("textarea, input:not([type=range])")
            ).fill(text)

    def generate(self, prompt: str, **texts: str) -> Locator:
        """Send the form, and return the card of the new job."""
        self.fill(Prompt=prompt, **texts)
        return self.submit(self.page.get_by_role("button", name="Generate").click)

    def submit(self, act: Callable[[], None]) -> Locator:
        """Do what makes a job, and return its card."""
        with self.page.expect_response(lambda answer: answer.status == HTTPStatus.ACCEPTED) as answer:
            act()
        return self.card_of(answer.value.json()["id"])

    def train(self, name: str, **texts: str) -> Locator:
        """Send the form of a training, and return the card of the new job; its images are chosen before."""
        self.fill(Name=name, **texts)
        return self.submit(self.page.get_by_role("button", name="Train", exact=True).click)

    def generate_endlessly(self) -> Locator:
        """Send a job that runs until it is cancelled."""
        return self.generate("a red circle on a blue background", **ENDLESS)

    def id_of(self, card: Locator) -> str:
        """The id of the job that a card shows."""
        id: str | None = card.get_attribute("data-job")
        assert id is not None
        return id

    def card_of(self, id: str) -> Locator:
        """The card of a job."""
        return self.page.locator(f".card[data-job='{id}']")

    def wait_for(self, card: Locator, status: str) -> Json:
        """Wait until a card shows a status, and return its job."""
        id = self.id_of(card)
        self.page.locator(f".card[data-job='{id}'][data-status='{status}']").wait_for()
        return self.service.fetch(id)

    def drop(self, selector: str, file: Path, kind: str = "image/png") -> None:
        """Drop a file on an element, once it is there."""
        self.page.wait_for_selector(selector)
        self.page.evaluate(_DROP, [selector, file.name, kind, base64.b64encode(file.read_bytes()).decode()])

    def paste(self, file: Path, kind: str = "image/png") -> None:
        """Paste a file."""
        self.page.evaluate(_PASTE, [file.name, kind, base64.b64encode(file.read_bytes()).decode()])

    def photograph(self, name: str) -> None:
        """Write what is seen to `NAME.webp` in the folder that DARKROOM_SCREENSHOTS names, if it does."""
        folder = os.environ.get("DARKROOM_SCREENSHOTS")
        if folder:
            with Image.open(io.BytesIO(self.page.screenshot(animations="disabled"))) as image:
                image.convert("RGB").save(Path(folder) / f"{name}.webp", quality=80, method=6)

    def stored(self, key: str) -> Path:
        """The file that the service stored under a key."""
        return self.service.data / "storage" / key
