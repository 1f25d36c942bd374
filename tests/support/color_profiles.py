"""ICC profiles made by hand: RGB of any primaries, gray of any gamma, and a CMYK one with a table."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

#: x and y of red, green and blue.
Primaries = Sequence[tuple[float, float]]

SRGB: Primaries = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
DISPLAY_P3: Primaries = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_D65, _D50 = (0.3127, 0.3290), np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_WHITE = b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65_536)) for value in _D50)


def rgb_profile(primaries: Primaries, name: str = "test RGB", gamma: float = 2.2) -> bytes:
    """A matrix profile of these primaries with a white of D65."""
    white = _xyz(*_D65)
    columns = np.array([_xyz(*primary) for primary in primaries]).T
    matrix = columns * np.linalg.solve(columns, white)
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white)) @ _BRADFORD
    tags = {b"rXYZ": 0, b"gXYZ": 1, b"bXYZ": 2}
    colorants = {tag: _xyz_tag((adaptation @ matrix)[:, index]) for tag, index in tags.items()}
    curves = {tag: _gamma_tag(gamma) for tag in (b"rTRC", b"gTRC", b"bTRC")}
    return _profile(b"mntr", b"RGB ", b"XYZ ", name, {**colorants, **curves})


def gray_profile(gamma: float, name: str = "test gray") -> bytes:
    """A gray profile."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", name, {b"kTRC": _gamma_tag(gamma)})


def cmyk_profile(name: str = "test CMYK") -> bytes:
    """A CMYK profile in which any full ink is black, and paper is white."""
    header = struct.pack(">BBBB", 4, 3, 2, 0) + b"".join(
        struct.pack(">i", 65_536 if index in (0, 4, 8) else 0) for index in range(9)
    )
    linear = bytes(range(256))
    paper_only = b"".join(bytes([255 if corner == 0 else 0, 128, 128]) for corner in range(16))
    table = b"mft1\0\0\0\0" + header + linear * 4 + paper_only + linear * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", name, {b"A2B0": table})


def _xyz(x: float, y: float) -> npt.NDArray[np.float64]:
    return np.array([x / y, 1.0, (1.0 - x - y) / y])


def _xyz_tag(values: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(float(value) * 65_536)) for value in values)


def _gamma_tag(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _profile(device: bytes, space: bytes, connection: bytes, name: str, tags: dict[bytes, bytes]) -> bytes:
    """Return the profile's file: header, table of tags, tags (ICC.1:2001-04)."""
    text = name.encode("ascii") + b"\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78
    whole = {b"desc": description, b"cprt": b"text\0\0\0\0none\0", b"wtpt": _WHITE, **tags}
    table, body = struct.pack(">I", len(whole)), b""
    start = 128 + 4 + 12 * len(whole)
    for tag, content in whole.items():
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    header = bytearray(128)
    header[8:12], header[12:24], header[36:40] = b"\x02\x10\0\0", device + space + connection, b"acsp"
    header[68:80] = _WHITE[8:]
    header[0:4] = struct.pack(">I", 128 + len(table) + len(body))
    return bytes(header) + table + body
