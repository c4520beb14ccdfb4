"""Seeded synthetic HDR scenes, the Eq. (1) targets made of them, and error measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

OFFSET = 1 / 64
WHITE_NITS = 203.0


class Case(NamedTuple):
    """sdr [H,W,3] in [0,1] on 8-bit codes; gain_map [H,W,3] in [0,1]; hdr [H,W,3] by Eq. (1), float64."""

    name: str
    qmax: float
    sdr: np.ndarray
    gain_map: np.ndarray
    hdr: np.ndarray


def texture(rng: np.random.Generator, height: int, width: int, slope: float = 1.2) -> np.ndarray:
    """[H,W] noise with a 1/f^slope spectrum, mean 0, deviation 1: as rough as foliage, stone or cloth."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    envelope = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width)) ** slope
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) * envelope, s=(height, width))
    return (noise - noise.mean()) / (noise.std() + 1e-12)


def photo(seed: int, height: int, width: int, *, stops: float, lamps: int) -> np.ndarray:
    """[H,W,3] linear light like a photo: regions of coloured texture, a bright sky, saturated lamps."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    light = np.exp2(0.5 * texture(rng, height, width) + stops * (0.5 - 1.5 * y))[..., None]
    colour = np.exp2(0.25 * np.stack([texture(rng, height, width, 1.8) for _ in range(3)], -1))
    regions = np.digitize(texture(rng, height, width, 2.2), (-0.8, 0.2, 1.0))
    palette = rng.uniform(0.15, 0.8, (4, 3))
    hdr = 0.5 * palette[regions] * colour * light
    for _ in range(lamps):
        cy, cx, radius = rng.uniform(0, height / max(height, width)), rng.uniform(), rng.uniform(0.01, 0.05)
        glow = np.exp(-(((y - cy) ** 2 + (x - cx) ** 2) / radius**2))[..., None]
        hdr += glow * rng.uniform(0.2, 1, 3) * 2 ** rng.uniform(2, 5)
    return hdr


def ramp(height: int, width: int) -> np.ndarray:
    """Grey from 0 to 64 times SDR white, left to right."""
    row = 65.0 ** np.linspace(0, 1, width) - 1
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def blobs(height: int, width: int) -> np.ndarray:
    """Soft saturated colour spots on dark grey."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    spots = ((0.2, 0.2, (9, 0.3, 0.1)), (0.3, 0.6, (0.2, 7, 0.4)), (0.5, 0.8, (0.3, 0.5, 12)))
    hdr = np.full((height, width, 3), 0.05)
    for cy, cx, colour in spots:
        hdr += np.exp(-(((y - cy) ** 2 + (x - cx) ** 2) / 0.02))[..., None] * np.array(colour)
    return hdr


def black(height: int, width: int) -> np.ndarray:
    """Nothing at all."""
    return np.zeros((height, width, 3))


def star(height: int, width: int) -> np.ndarray:
    """One small very bright light, as sharp as a lens leaves it, on black."""
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot(y - height / 2, x - width / 2)
    return np.repeat(60.0 * np.clip(4 - distance, 0, 1)[..., None], 3, axis=-1)


def cellar(height: int, width: int) -> np.ndarray:
    """Warm lamplight on dark rough walls: half of the blue channel is 0 where red and green are not."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    walls = np.exp2(0.8 * texture(rng, height, width))[..., None] * (0.12, 0.07, 0.03)
    clipped = np.exp2(0.5 * texture(rng, height, width, 1.8))[..., None] * (0.006, 0.012, 0.03)
    lamp = np.exp(-((y - 0.2) ** 2 + (x - 0.3) ** 2) / 0.003)[..., None]
    return np.maximum(walls - clipped, 0) + lamp * (40, 20, 0)


def grey_sdr(height: int, width: int) -> np.ndarray:
    """A grey ramp that stays within SDR."""
    return np.broadcast_to(np.linspace(0, 1, width)[None, :, None], (height, width, 3)).copy()


PHOTOS: Mapping[str, tuple[int, float, int]] = MappingProxyType(
    {
        "studio": (1, 0.5, 6),
        "night": (2, -2.0, 14),
        "sunset": (3, 3.0, 2),
        "forest": (4, 1.0, 1),
        "church": (5, -1.0, 8),
        "street": (6, 1.5, 10),
        "window": (7, 4.0, 3),
    }
)
SYNTHETIC: Mapping[str, Callable[[int, int], np.ndarray]] = MappingProxyType(
    {"ramp": ramp, "blobs": blobs, "black": black, "star": star, "cellar": cellar, "grey": grey_sdr}
)


def cases(names: Iterable[str], qmax: float) -> list[Case]:
    """The named scenes as Eq. (1) cases with this qmax."""
    return [case(name, qmax) for name in names]


def case(name: str, qmax: float, height: int = 384, width: int = 512) -> Case:
    """One scene: an SDR rendition on 8-bit codes, the gain map towards the scene, and Eq. (1) of both."""
    if name in PHOTOS:
        seed, stops, lamps = PHOTOS[name]
        scene = photo(seed, height, width, stops=stops, lamps=lamps)
    else:
        scene = SYNTHETIC[name](height, width)
    shown = scene if name in SYNTHETIC else scene / (scene + 0.7) * 1.5
    sdr = np.round(np.clip(shown, 0, 1) ** (1 / 2.2) * 255) / 255
    gain_map = np.clip(((scene + OFFSET) / (sdr**2.2 + OFFSET) - 1) / qmax, 0, 1)
    hdr = np.clip((sdr**2.2 + OFFSET) * (1 + gain_map * qmax) - OFFSET, 0, qmax + 1)
    return Case(name, qmax, sdr, gain_map, hdr)


def pq(linear: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084 code of linear light with 1.0 = 203 nits, float64."""
    y = np.clip(np.asarray(linear, np.float64) * WHITE_NITS / 10000, 0, 1) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """10 log10(1 / mean squared error) in dB; 200 for equal arrays."""
    error = float(np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2))
    return 200.0 if error == 0 else float(-10 * np.log10(error))


def pq_psnr(hdr: np.ndarray, target: np.ndarray) -> float:
    """PSNR of the PQ codes in dB."""
    return psnr(pq(hdr), pq(target))


def relative_p99(hdr: np.ndarray, target: np.ndarray) -> float:
    """99th percentile of |hdr - target| / (target + 1/64)."""
    return float(np.percentile(np.abs(hdr - target) / (target + OFFSET), 99))
