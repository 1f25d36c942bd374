"""Resources that all models of a worker share, in one object."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch

from contracts.catalogue.catalogue import Catalogue
from worker.adapters.files import LoraFiles
from worker.adapters.references.ip_adapters import IpAdapters
from worker.checkpoints.files import ContentHasher
from worker.encoding.cache import EmbeddingCache
from worker.runtime.cuda_graphs import GraphPool
from worker.runtime.kernel_options import KernelOptions
from worker.runtime.memory_tracker import MemoryTracker


@dataclass(frozen=True)
class PoolContext:
    """Resources that all models of a worker share.

    Attributes:
        encodes_ahead: whether a thread beside the jobs' has T5 read what waits.
        graph_pool: what CUDA graphs keep on the device.
        weights_lock: held while a model is loaded or moved, and by that thread while T5 runs.
    """

    catalogue: Catalogue
    device: torch.device
    hasher: ContentHasher
    embeddings: EmbeddingCache
    memory_tracker: MemoryTracker
    lora_files: LoraFiles
    ip_adapters: IpAdapters
    kernels: KernelOptions
    encodes_ahead: bool = False
    graph_pool: GraphPool = field(default_factory=GraphPool)
    weights_lock: threading.RLock = field(default_factory=threading.RLock)
