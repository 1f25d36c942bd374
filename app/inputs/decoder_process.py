"""One process of the decoder: reads images from stdin, writes their stored forms to stdout, and ends with stdin.

A request is a line of JSON (`task`, `size`, and what belongs to the task) and `size` bytes; a reply is a line of
JSON (`result`, `size`, and what belongs to the result) and `size` bytes: the stored form, and behind it the mask
that a task makes beside an image. Memory is limited, so that an image that needs more is refused here and takes
none from the API; and it gives way to the API where processors are few. Knows no HTTP, no fields, no storage.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from app.inputs.codec import decode
from app.inputs.codec.decoded_image import DecodedImage
from app.inputs.codec.limits import Deferred, Limits, TooLarge
from app.inputs.codec.masks import EmptyMask
from contracts.processes.priority import give_way

#: Added to the niceness of the API, whose other calls are short and go first.
_NICENESS = 5
#: The interpreter, Pillow's libraries, and what they allocate whatever the image is.
_BASE_BYTES = 256 * 2**20
_TASKS: Mapping[str, Callable[..., DecodedImage]] = {
    "decode": decode.decode,
    "decode_with_hole": decode.decode_with_hole,
    "decode_mask": decode.decode_mask,
    "decode_alpha_mask": decode.decode_alpha_mask,
    "decode_inverted_mask": decode.decode_inverted_mask,
    "fill": decode.fill,
    "preprocess": decode.preprocess,
}


def main() -> None:
    """Serve requests until stdin ends.

    The first argument is `Limits` as JSON, the second the bytes of memory that the tasks need beside decoding.
    """
    limits = Limits(**json.loads(sys.argv[1]))
    _restrict(limits, int(sys.argv[2]))
    decode.configure(limits)
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    while line := requests.readline():
        request = json.loads(line)
        reply, data = _answer(request, requests.read(request.pop("size")), limits)
        replies.write(json.dumps({**reply, "size": len(data)}).encode() + b"\n")
        replies.write(data)
        replies.flush()
        del data  # not while waiting for the next image


def _restrict(limits: Limits, task_bytes: int) -> None:
    # The file as received, without metadata, and as stored; the pixels, a copy that is turned or converted, and
    # what a decoder holds beside them.
    budget_bytes = _BASE_BYTES + task_bytes + 4 * limits.max_bytes + 3 * limits.max_decoded_bytes
    resource.setrlimit(resource.RLIMIT_AS, (budget_bytes, budget_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    give_way(os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the API is gone


def _answer(request: dict[str, Any], data: bytes, limits: Limits) -> tuple[dict[str, Any], bytes]:
    try:
        image = _TASKS[request.pop("task")](data, limits, **request)
    except Deferred:
        return {"result": "deferred"}, b""
    except EmptyMask as error:
        return {"result": "empty_mask", "message": str(error)}, b""
    except TooLarge as error:
        return {"result": "too_large", "message": error.message, "allowed": error.allowed}, b""
    except decode.Unreadable as error:
        return {"result": "unreadable", "message": str(error)}, b""
    fields, content = image.to_reply()
    return {"result": "decoded", **fields}, content


if __name__ == "__main__":
    main()
