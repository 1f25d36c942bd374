"""A webhook from `darkroom up`: a real image, sent to the receiver in `docs/webhooks.md`."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.main import main
from tests.support.running_service import RunningService

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"


def documented_receiver(secret: str) -> Any:
    """The handler class of the page's example, with this secret."""
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(program.replace("whsec_…", secret), names)
    return names["Receiver"]


@pytest.mark.parametrize("is_ours", [True, False])
def test_the_documented_receiver_accepts_our_messages_only(
    service: RunningService, capsys: pytest.CaptureFixture[str], is_ours: bool
) -> None:
    assert main(["webhooks", "secret", "--data", str(service.data)]) == 0
    secret = capsys.readouterr().out.strip()
    handler = documented_receiver(secret if is_ours else "whsec_" + "QUFB" * 11)
    handler.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/hook"
            webhook = {"url": url, "events": ["completed"]}
            job = service.run("txt2img", seed=3, num_inference_steps=2, webhook=webhook)
            while not (deliveries := service.fetch(job["id"])["webhook"]["deliveries"])[0]["attempts"]:
                time.sleep(0.05)
        finally:
            server.shutdown()
            thread.join()

    (delivery,) = deliveries
    if not is_ours:
        assert (delivery["status"], delivery["status_code"]) == ("pending", 401)
        return
    assert (delivery["status"], delivery["status_code"]) == ("delivered", 204)
    event, id, images = capsys.readouterr().out.strip().split(" ", 2)
    assert (event, id) == ("completed", job["id"])
    (link,) = re.findall(r"'(http[^']+)'", images)
    image = httpx.get(link, trust_env=False).raise_for_status().content
    assert hashlib.sha256(image).hexdigest() == job["images"][0]["sha256"]
