"""Small ICC profiles, made here byte by byte: Pillow makes none but of sRGB, Lab and XYZ."""

from __future__ import annotations

import itertools
import struct

import numpy as np

#: the primaries' XYZ under D50, a row each
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
D50 = (0.9642, 1.0, 0.8249)


def rgb_profile(primaries: tuple[tuple[float, ...], ...], gamma: float = 2.2) -> bytes:
    """A profile of a display: primaries and one power for all three."""
    curve = _curve(gamma)
    tags = {name: _xyz(row) for name, row in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def gray_profile(gamma: float) -> bytes:
    """A profile of gray pictures whose values are light to the power of 1 / gamma."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile(inks: dict[str, tuple[float, float, float]]) -> bytes:
    """A profile of a printer whose full inks, and their overprints by name ("CM"), have these Lab colors; the rest is
    black."""
    table = bytearray()
    for corner in itertools.product((0, 1), repeat=4):
        name = "".join(ink for ink, used in zip("CMYK", corner, strict=True) if used)
        lightness, a, b = inks.get(name, (100.0, 0.0, 0.0) if not name else (0.0, 0.0, 0.0))
        table += bytes((round(lightness * 2.55), round(a) + 128, round(b) + 128))
    steps = bytes(range(256))
    matrix = b"".join(struct.pack(">i", 65536 * (i in (0, 4, 8))) for i in range(9))
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + matrix + steps * 4 + bytes(table) + steps * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


def encoded(colors: np.ndarray, primaries: tuple[tuple[float, ...], ...], gamma: float = 2.2) -> np.ndarray:
    """The values, 0 to 255, by which a profile's space says what sRGB says by ``colors`` [N, 3], 0 to 255."""
    c = colors / 255
    light = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    other = light @ np.array(SRGB) @ np.linalg.inv(np.array(primaries))
    return (other.clip(0, 1) ** (1 / gamma) * 255).round()


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def _curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    described = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(12 + 67)
    tags = {b"desc": described, b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": _xyz(D50)} | tags
    table, data, begin = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", begin + len(data), len(content))
        data += content
    header = struct.pack(">I4sI4s4s4s12x4s28x", begin + len(data), b"", 0x02400000, kind, space, connection, b"acsp")
    header += b"".join(struct.pack(">i", round(v * 65536)) for v in D50)
    return header.ljust(128, b"\0") + table + data
