"""Hashes of an image's latents after each step, and the root of the Merkle tree over them. RFC 6962, 2.1."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def hash_leaf(data: bytes) -> str:
    """Return the hash of one leaf, in hexadecimal."""
    return hashlib.sha256(b"\0" + data).hexdigest()


def merkle_root(leaves: Sequence[str]) -> str:
    """Return the root over leaves, all in hexadecimal: of none, the SHA-256 of nothing."""
    if not leaves:
        return hashlib.sha256().hexdigest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = merkle_root(leaves[:split]), merkle_root(leaves[split:])
    return hashlib.sha256(b"\1" + bytes.fromhex(left) + bytes.fromhex(right)).hexdigest()
