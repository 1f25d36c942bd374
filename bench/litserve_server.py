"""The same pipelines behind LitServe, with its batching: `python -m bench.litserve_server PORT BATCH`."""

from __future__ import annotations

import sys
from typing import Any

import litserve
from PIL import Image

from bench.diffusers_loop import MAX_WAIT_MILLISECONDS, DiffusersLoop, Order, compute_alike, to_base64


class LoopApi(litserve.LitAPI):
    """One worker process around a loop; `batch` and `unbatch` keep the lists as they are."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # LitServe names it
        """Load the model, in the worker process."""
        compute_alike()
        self._loop = DiffusersLoop()

    def decode_request(self, request) -> Order:  # type: ignore[no-untyped-def]  # LitServe reads the annotation
        """Read the JSON body."""
        return Order(**request)

    def predict(self, orders: Any) -> Any:
        """Generate a batch, or the image of a single order where there are no batches."""
        return self._loop.generate([orders])[0] if isinstance(orders, Order) else self._loop.generate(orders)

    def batch(self, inputs: list[Order]) -> list[Order]:
        """The list itself."""
        return inputs

    def unbatch(self, output: list[Image.Image]) -> list[Image.Image]:
        """The list itself."""
        return output

    def encode_response(self, output: Image.Image) -> dict[str, str]:
        """Encode as PNG and base64."""
        return {"b64_json": to_base64(output)}


if __name__ == "__main__":
    compute_alike()
    api = LoopApi(max_batch_size=int(sys.argv[2]), batch_timeout=MAX_WAIT_MILLISECONDS / 1000)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=600)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
