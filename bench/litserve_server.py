"""The same pipelines behind LitServe, with its batching: `python -m bench.litserve_server PORT BATCH`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import litserve
import torch
from PIL import Image

from bench.mixes import COMPANY_MILLISECONDS, Order, to_base64
from bench.painter import Painter
from bench.report import keep_arithmetic


class PainterApi(litserve.LitAPI):
    """One worker process around a painter."""

    def setup(self, device: str) -> None:
        """Load, in the worker."""
        del device
        torch.set_num_threads(1)
        self._painter = Painter()

    def decode_request(self, request) -> Order:  # type: ignore[no-untyped-def]  # LitServe reads the annotation
        """JSON in."""
        return Order(**request)

    def predict(self, orders: Order | Sequence[Order]) -> Any:
        """A batch, or one order where there are no batches."""
        if isinstance(orders, Order):
            return self._painter.paint([orders])[0]
        return self._painter.paint(orders)

    def batch(self, inputs: list[Order]) -> list[Order]:
        """A list is what the painter takes."""
        return inputs

    def unbatch(self, output: list[Image.Image]) -> list[Image.Image]:
        """A list is what the painter gives."""
        return output

    def encode_response(self, output: Image.Image) -> dict[str, str]:
        """PNG as base64 out."""
        return {"b64_json": to_base64(output)}


def main() -> None:
    """Serve until a signal."""
    port, batch = int(sys.argv[1]), int(sys.argv[2])
    api = PainterApi(max_batch_size=batch, batch_timeout=COMPANY_MILLISECONDS / 1000)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=600)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    keep_arithmetic()
    main()
