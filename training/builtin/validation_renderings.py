"""The cameras of the validation: curves with fixed parameters, none drawn exactly by `rendering.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .rendering import LUMA, evened_out, stops_around, with_highlights_rolled_off
from .tone_curves import HDR_PEAK, Array, Curve, log_shoulder, srgb_encode

LOG_MU = 5000.0
SHOULDER_BEND = 8.0
PHONE_WHITE, GAIN_MAP_WHITE = 0.78, 0.85
"""Share of a view that a phone of either kind leaves below SDR white in its HDR picture."""


def log_curve(hdr: Array) -> Array:
    """A mu-law up to the brightest light there is."""
    return np.log1p(LOG_MU * hdr / HDR_PEAK) / np.log1p(LOG_MU)


def shoulder_curve(hdr: Array) -> Array:
    """A shoulder that clips, with more contrast."""
    return srgb_encode(np.minimum(1.25 * hdr / (hdr + 0.35), 1.0) ** 1.15)


def camera_curve(hdr: Array) -> Array:
    """A camera's sigmoid, clipped and brightened."""
    return np.minimum(1.6 * hdr**0.75 / (hdr**0.75 + 0.6), 1.0) ** 0.9


def drago_curve(hdr: Array) -> Array:
    """Drago et al. (2003), bias 0.85: a logarithm whose base grows with the light."""
    top = hdr.max()
    base = np.log2(2 + 8 * (hdr / top) ** (np.log(0.85) / np.log(0.5)))
    return srgb_encode(np.log2(1 + hdr) / np.log2(1 + top) * 0.8 * np.log2(10) / base)


def hable_curve(hdr: Array) -> Array:
    """Hable's filmic curve (2010) at twice the exposure, white at 11.2."""
    film = lambda x: (x * (0.15 * x + 0.05) + 0.004) / (x * (0.15 * x + 0.5) + 0.06) - 0.02 / 0.3  # noqa: E731
    return srgb_encode(film(2 * hdr) / film(11.2))


def reinhard_curve(hdr: Array) -> Array:
    """Extended Reinhard (2002), white at 10."""
    return srgb_encode(hdr * (1 + hdr / 100) / (1 + hdr))


def receptor_curve(hdr: Array) -> Array:
    """What a receptor answers (Naka and Rushton, 1966): half of its best at four times white."""
    return 1.1 * hdr**0.5 / (hdr**0.5 + 2)


SMOOTH: tuple[Curve, ...] = (drago_curve, hable_curve, reinhard_curve, receptor_curve)
"""Curves that bend and hardly clip; one after the other for the views of a scene."""
PHONES = ((4.0, 0.15, "largest"), (6.0, 0.15, "channel"), (6.0, 0.3, "local"))
"""Light that a phone's HDR picture ends at, the value from which its SDR picture's gain falls, and by what it
falls: the pixel's largest channel, every channel for itself, or the light around.
"""


def phone_hdr(hdr: Array, top: float, white: float) -> Array:
    """A phone's own HDR picture of a scene `[H,W,3]`: large differences of light evened out, a share of
    `white` left below SDR white, highlights rolled off to `top`.
    """
    even = evened_out(hdr, 0.35, radius=hdr.shape[1] // 16)
    even = even / np.quantile(even.max(axis=-1), white)
    return with_highlights_rolled_off(even, 0.5, top).astype(np.float32)


def phone_pictures(hdr: Array, top: float, knee: float, by: str) -> tuple[Array, Array]:
    """A phone's own SDR and HDR picture of a scene `[H,W,3]`: for SDR, gain falls from `knee` by what is
    named.
    """
    own = phone_hdr(hdr, top, PHONE_WHITE)
    if by == "channel":
        return srgb_encode(log_shoulder(own, knee, top, SHOULDER_BEND)), own
    level = np.maximum(own.max(axis=-1, keepdims=True), 1e-6)
    if by == "local":
        level = np.exp2(stops_around(level[..., 0], radius=hdr.shape[1] // 24))[..., None]
    return srgb_encode(own * log_shoulder(level, knee, top, SHOULDER_BEND) / level), own


GAIN_MAPS = ((2.8, 1.5, 6.0, "largest"), (4.0, 2.0, 8.0, "luminance"), (4.0, 2.0, 5.0, "local"))
"""Light that a phone's HDR picture ends at, the stops that its grey gain map gives that light, how many stops
below it gain begins, and whose stops they are: the largest channel's, the luminance's or those of the light
around.
"""
BELOW_WHITE = 0.999
"""Share of a gain-mapped picture's values that its SDR picture does not clip."""


def gain_mapped_pictures(hdr: Array, top: float, most: float, stops: float, by: str) -> tuple[Array, Array]:
    """A phone's SDR picture, its HDR picture less a gain that grows evenly with every stop of light, and that
    HDR picture.
    """
    own = phone_hdr(hdr, top, GAIN_MAP_WHITE)
    light = np.maximum(own @ LUMA if by == "luminance" else own.max(axis=-1), 1e-4)
    level = stops_around(light, radius=hdr.shape[1] // 24) if by == "local" else np.log2(light)
    gain = most * np.clip((level - np.log2(top)) / stops + 1, 0, 1)
    sdr = own * np.exp2(-gain)[..., None]
    return srgb_encode(sdr / max(float(np.quantile(sdr.max(axis=-1), BELOW_WHITE)), 1.0)), own


Rendering = Callable[[Array, int], tuple[Array, Array]]
"""A view `[H,W,3]` and its number to its SDR picture and to the HDR picture that is the truth of it."""
RENDERINGS: dict[str, Rendering] = {
    "clip": lambda hdr, view: (srgb_encode(hdr), hdr),
    "log": lambda hdr, view: (log_curve(hdr), hdr),
    "curve": lambda hdr, view: (shoulder_curve(hdr), hdr),
    "camera": lambda hdr, view: (camera_curve(hdr), hdr),
    "smooth": lambda hdr, view: (SMOOTH[view % len(SMOOTH)](hdr), hdr),
    "phone": lambda hdr, view: phone_pictures(hdr, *PHONES[view % len(PHONES)]),
    "gain map": lambda hdr, view: gain_mapped_pictures(hdr, *GAIN_MAPS[view % len(GAIN_MAPS)]),
}
