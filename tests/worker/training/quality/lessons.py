"""Trains as a worker does, without a queue, and keeps the file where jobs find it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from PIL import Image

from contracts.requests.training.parameters import TrainingParameters
from contracts.storage import Storage
from worker.pool.pool import Pool
from worker.training.preparation import Preparation


def train(
    pool: Pool, storage: Storage, training: TrainingParameters, prior: Sequence[Image.Image] = ()
) -> tuple[str, str]:
    """Train to the end; returns the key and the SHA-256 of the stored file."""
    preparation = Preparation(pool.model(training.model), training, "ann")
    with torch.inference_mode():
        run = preparation.begin(preparation.read_examples(storage, prior))
        while not run.is_done:
            run.learn()
    data = run.result({})
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"inputs/{sha256}.safetensors"
    storage.write(key, data)
    return key, sha256
