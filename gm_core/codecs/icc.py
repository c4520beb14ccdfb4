"""ICC profiles: writes RGB profiles with the sRGB curve, reads matrix/TRC and grey ones (ICC.1:2022)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import torch

from ..color import bradford, linear_to_srgb, rgb_to_xyz
from ..errors import ImageReadError

_D50 = np.array([0.9642, 1.0, 0.8249])
_NAMES = {"bt709": "sRGB", "p3": "Display P3", "bt2020": "Rec. 2020 with sRGB curve"}
_RGB, _GREY = b"RGB ", b"GRAY"
_POINTS, _CURVES = (b"rXYZ", b"gXYZ", b"bXYZ"), (b"rTRC", b"gTRC", b"bTRC")
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


@dataclass(frozen=True)
class IccProfile:
    """to_xyz: [3,3] linear RGB to XYZ relative to D50. curves: per channel [65536], 16-bit code to linear.
    primaries: the name of the set in `gm_core.color.PRIMARIES` that the matrix belongs to, or None."""

    to_xyz: np.ndarray
    curves: np.ndarray
    primaries: str | None

    @property
    def table(self) -> np.ndarray:
        """Per channel [256]: linear light of the 8-bit codes."""
        return self.curves[:, ::257]

    @property
    def has_srgb_curve(self) -> bool:
        """Whether no 8-bit code tells its curves from the sRGB curve."""
        encoded = linear_to_srgb(torch.from_numpy(self.table)).numpy()
        return bool(np.abs(encoded - np.arange(256) / 255).max() < 0.5 / 255)


def build_icc(primaries: str) -> bytes:
    """A version 4 display profile with these primaries and the sRGB transfer curve.

    Readers disagree on which curve linearises the base of an Ultra HDR file: libultrahdr always takes
    sRGB, Chromium the profile's. With the sRGB curve in the profile they agree.
    """
    red, green, blue = d50_matrix(primaries).T
    curve = b"para" + struct.pack(">IHH", 0, 3, 0) + b"".join(_fixed(value) for value in _SRGB_CURVE)
    tags = {
        b"desc": _text(_NAMES[primaries]),
        b"cprt": _text("CC0"),
        b"wtpt": _xyz(_D50),
        b"chad": b"sf32\0\0\0\0" + b"".join(_fixed(value) for value in _adaptation(primaries).flat),
        b"rXYZ": _xyz(red),
        b"gXYZ": _xyz(green),
        b"bXYZ": _xyz(blue),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    return _assemble(tags)


def read_icc(profile: bytes) -> IccProfile:
    """Matrix and curves of an RGB matrix/TRC profile. A grey one gives three equal curves and the matrix of
    BT.709, in which grey is neutral, as it is there.

    Raises:
        ImageReadError: truncated, or neither a matrix/TRC RGB profile nor a grey one relative to XYZ.
    """
    try:
        tags = _tag_table(profile)
        grey = profile[16:20] == _GREY
        if grey and profile[20:24] != b"XYZ ":
            raise ValueError(f"grey relative to {profile[20:24]!r}")
        matrix = d50_matrix("bt709") if grey else np.stack([_read_xyz(tags[name]) for name in _POINTS], 1)
        curves = np.stack([_read_curve(tags[name]) for name in ((b"kTRC",) * 3 if grey else _CURVES)])
    except (KeyError, struct.error, ValueError) as error:
        raise ImageReadError(f"ICC profile: not a readable RGB matrix or grey profile ({error!r})") from error
    if not np.isfinite(curves).all() or abs(np.linalg.det(matrix)) < 1e-4:
        raise ImageReadError("ICC profile: its matrix or curves are unusable")
    return profile_of(matrix, curves)


def profile_of(to_xyz: np.ndarray, curves: np.ndarray) -> IccProfile:
    """A matrix/TRC profile, by the name of its primaries where they have one; its curves are clipped to 0 to
    1, as ICC.1 asks."""
    near = (name for name in _NAMES if np.abs(to_xyz - d50_matrix(name)).max() < 0.004)
    return IccProfile(to_xyz, np.clip(curves, 0, 1).astype(np.float32), next(near, None))


def adapted_to_d50(to_xyz: np.ndarray) -> np.ndarray:
    """[3,3] linear RGB to XYZ in the set's own white, adapted to D50 with Bradford."""
    return bradford(torch.from_numpy(to_xyz.sum(1)), torch.from_numpy(_D50)).numpy() @ to_xyz


def read_cicp(profile: bytes) -> tuple[int, int] | None:
    """Primaries and transfer curve in numbers of ITU-T H.273 that a profile of ICC.1:2022 may state."""
    try:
        tag = _tag_table(profile)[b"cicp"]
        return tag[8], tag[9]
    except (KeyError, IndexError, struct.error, ValueError):
        return None


def d50_matrix(primaries: str) -> np.ndarray:
    """[3,3] float64 linear RGB to XYZ, adapted to D50 with Bradford."""
    return _adaptation(primaries) @ rgb_to_xyz(primaries).numpy()


def code_steps() -> np.ndarray:
    """[65536] the 16-bit codes as 0 to 1."""
    return np.arange(1 << 16) / 65535


def srgb_table(bits: int = 8) -> np.ndarray:
    """[2^bits] float32: linear light of the sRGB codes."""
    highest = (1 << bits) - 1
    x = np.arange(highest + 1) / highest
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _adaptation(primaries: str) -> np.ndarray:
    return bradford(rgb_to_xyz(primaries).sum(1), torch.from_numpy(_D50)).numpy()


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(float(value) * 65536))


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(_fixed(value) for value in values)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(encoded), 28) + encoded


def _assemble(tags: dict[bytes, bytes]) -> bytes:
    offset = 132 + 12 * len(tags)
    table, body, placed = b"", b"", {}
    for name, data in tags.items():
        if data not in placed:
            placed[data] = offset + len(body)
            body += data + b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", placed[data], len(data))
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += b"".join(_fixed(value) for value in _D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _tag_table(profile: bytes) -> dict[bytes, bytes]:
    if profile[16:20] not in (_RGB, _GREY):
        raise ValueError(f"colour space {profile[16:20]!r}")
    (count,) = struct.unpack_from(">I", profile, 128)
    tags = {}
    for index in range(min(count, 100)):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        tags[name] = profile[offset : offset + size]
    return tags


def _read_xyz(tag: bytes) -> np.ndarray:
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _read_curve(tag: bytes) -> np.ndarray:
    """[65536] linear values of the 16-bit codes."""
    x = code_steps()
    if tag[:4] == b"para":
        return _parametric(tag, x)
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return x
    if count == 1:
        return x ** (struct.unpack_from(">H", tag, 12)[0] / 256)
    table = np.frombuffer(tag, ">u2", count, 12) / 65535
    return np.interp(x, np.linspace(0, 1, count), table)


def _parametric(tag: bytes, x: np.ndarray) -> np.ndarray:
    """ICC.1 table 68: five function types that share one form."""
    (kind,) = struct.unpack_from(">H", tag, 8)
    lengths = (1, 3, 4, 5, 7)
    if kind >= len(lengths):
        raise ValueError(f"parametric curve type {kind}")
    p = np.array(struct.unpack_from(f">{lengths[kind]}i", tag, 12)) / 65536
    gamma, a, b = p[0], *(p[1:3] if kind else (1.0, 0.0))
    knee = p[4] if kind >= 3 else (-b / a if kind else 0.0)
    slope = p[3] if kind >= 3 else 0.0
    above = p[5] if kind == 4 else (p[3] if kind == 2 else 0.0)
    below = p[6] if kind == 4 else (p[3] if kind == 2 else 0.0)
    return np.where(x >= knee, np.maximum(a * x + b, 0) ** gamma + above, slope * x + below)
