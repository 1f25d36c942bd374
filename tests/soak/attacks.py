"""What hostile clients send: `python -m tests.soak.attacks URL KEY`. At SIGTERM, prints the answers as JSON.

Every attack runs in a thread of its own, again and again. The process is nice: attackers bring their own machines.
"""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image

from contracts.processes.priority import give_way

LORA = Path(__file__).resolve().parents[2] / "models/loras/shapes-sdxl-tint.safetensors"


class Attacker:
    """The attacks of one key.

    Attributes:
        answers: "attack: status" -> count.
        odd: the first answers of 500, and what they said.
    """

    def __init__(self, url: str, key: str) -> None:
        self.answers: Counter[str] = Counter()
        self.odd: list[str] = []
        self._key = key
        self._address = (urlsplit(url).hostname or "", urlsplit(url).port or 80)
        self._http = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=60, trust_env=False
        )
        self._end = threading.Event()
        self._receiver = socket.create_server(("127.0.0.1", 0), backlog=4096)  # accepts, and never answers
        self._half_open: deque[socket.socket] = deque(maxlen=400)
        side = 7071
        picture = io.BytesIO()
        Image.new("I;16", (side, side), 1000).save(picture, "PNG")
        self._bomb = base64.b64encode(picture.getvalue()).decode()
        self._unknown_keys = json.dumps({"prompt": "a", **{f"k{number}": 1 for number in range(600_000)}})

    def run(self) -> None:
        """Attack until `stop`."""
        attacks: dict[Callable[[], None], float] = {
            self.slow_headers: 0.1, self.slow_body: 0.5, self.junk: 0.2, self.unknown_keys: 1.0,
            self.image_bomb: 0.5, self.lora_header: 1.0, self.lora_metadata: 3.0, self.high_priority: 0.2,
            self.webhooks: 0.2, self.large_prompts: 0.3, self.cancels: 0.2,
        }  # fmt: skip
        threads = [
            threading.Thread(target=self._repeat, args=(attack, pause), daemon=True)
            for attack, pause in attacks.items()
        ]
        for thread in threads:
            thread.start()
        self._end.wait()

    def stop(self) -> None:
        """End."""
        self._end.set()

    def _repeat(self, attack: Callable[[], None], pause_seconds: float) -> None:
        name = getattr(attack, "__name__", "attack")
        while not self._end.is_set():
            try:
                attack()
            except (httpx.HTTPError, OSError) as error:
                self.answers[f"{name}: {type(error).__name__}"] += 1
            time.sleep(pause_seconds)

    def _post(self, name: str, path: str, **options: Any) -> httpx.Response:
        answer = self._http.post(path, **options)
        self.answers[f"{name}: {answer.status_code}"] += 1
        if answer.status_code == 500 and len(self.odd) < 20:
            self.odd.append(f"{name}: {answer.text[:300]}")
        return answer

    # -- attacks --------------------------------------------------------------------------------------

    def slow_headers(self) -> None:
        """A connection whose header never ends."""
        self._half_sent("slow_headers", b"POST /v1/txt2img HTTP/1.1\r\nHost: localhost\r\nX-A: ")

    def slow_body(self) -> None:
        """A connection whose body of 60 MiB stops after a few bytes."""
        head = f"POST /v1/txt2img HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self._key}\r\n"
        rest = "Content-Type: application/json\r\nContent-Length: 62914560\r\n\r\n" + '{"prompt": "'
        self._half_sent("slow_body", (head + rest).encode())

    def _half_sent(self, name: str, data: bytes) -> None:
        connection = socket.create_connection(self._address, timeout=5)
        connection.sendall(data)
        self._half_open.append(connection)  # the oldest of too many is closed
        self.answers[f"{name}: opened"] += 1

    def junk(self) -> None:
        """Bodies that are no JSON, deep ones, and unusual numbers."""
        for body in (b"\xff\xfe{", b"[" * 100_000, b'{"prompt": "a", "width": 1e999}', b'{"prompt": NaN}'):
            self._post("junk", "/v1/txt2img", content=body, headers={"content-type": "application/json"})

    def unknown_keys(self) -> None:
        """9.5 MB of unknown fields."""
        headers = {"content-type": "application/json"}
        self._post("unknown_keys", "/v1/txt2img", content=self._unknown_keys, headers=headers)

    def image_bomb(self) -> None:
        """A picture of 97 KB with 50 million pixels."""
        self._post(
            "image_bomb", "/v1/img2img", json={"prompt": "a", "width": 64, "height": 64, "image": self._bomb}
        )

    def lora_header(self) -> None:
        """A weight file whose header has 8,000 sides of 1e308."""
        sides = b",".join([b"1e308"] * 8000)
        header = b'{"a.lora_A.weight":{"dtype":"F32","shape":[' + sides + b'],"data_offsets":[0,4]}}'
        self._upload("lora_header", struct.pack("<Q", len(header)) + header + b"\0" * 4)

    def lora_metadata(self) -> None:
        """A LoRA whose metadata has a regular expression that never ends, and a job that uses it."""
        data = LORA.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        pattern = {"unet.r": 2, "unet.lora_alpha": 2, "unet.alpha_pattern": {"([a-z0-9._]+)+!": 1}}
        header["__metadata__"] = {"lora_adapter_metadata": json.dumps(pattern)}
        text = json.dumps(header).encode()
        answer = self._upload("lora_metadata", struct.pack("<Q", len(text)) + text + data[8 + size :])
        if answer.status_code in (200, 201):
            loras = [{"name": answer.json()["id"]}]
            self._post("lora_metadata job", "/v1/txt2img", json={"prompt": "a", "loras": loras})

    def _upload(self, name: str, data: bytes) -> httpx.Response:
        return self._post(name, "/v1/loras", content=data, headers={"content-type": "application/octet-stream"})

    def high_priority(self) -> None:
        """Long jobs that ask to be first."""
        body = {"prompt": "a", "num_inference_steps": 100, "num_images": 4, "priority": "high"}
        self._post("high_priority", "/v1/txt2img", json=body)

    def webhooks(self) -> None:
        """Jobs that call a receiver which never answers."""
        url = f"http://127.0.0.1:{self._receiver.getsockname()[1]}/hook"
        body = {"prompt": "a", "num_inference_steps": 1, "webhook": {"url": url}}
        self._post("webhooks", "/v1/txt2img", json=body)

    def large_prompts(self) -> None:
        """Jobs that are heavy for Redis: as heavy as a job may be, and heavier."""
        for length, size in ((9_900, 120), (60_000, 500)):
            metadata = {f"n{number}": "x" * size for number in range(16)}
            self._post("large_prompts", "/v1/txt2img", json={"prompt": "é" * length, "metadata": metadata})

    def cancels(self) -> None:
        """Cancels of one job, each with an idempotency key of its own."""
        with suppress(LookupError, ValueError):
            job = self._http.get("/v1/jobs", params={"limit": 1}).json()["data"][0]["id"]
            headers = {"idempotency-key": os.urandom(8).hex()}
            self._post("cancels", f"/v1/jobs/{job}/cancel", headers=headers)


def main() -> None:
    """Attack until SIGTERM."""
    give_way(19)
    attacker = Attacker(sys.argv[1], sys.argv[2])
    signal.signal(signal.SIGTERM, lambda number, frame: attacker.stop())
    attacker.run()
    print(json.dumps({"answers": attacker.answers, "odd": attacker.odd}), flush=True)
    os._exit(0)  # connections that hang are not waited for


if __name__ == "__main__":
    main()
