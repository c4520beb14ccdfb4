"""The tone curves of random cameras: from scene light to display values, each with random settings.

The model must not learn a handful of named curves, so these are families: clipping, logarithmic, sigmoid,
filmic, random splines.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Array = np.ndarray
Curve = Callable[[Array], Array]
"""Scene light (linear, 1.0 = white) to display-encoded [0,1], elementwise and monotone."""

HDR_PEAK = 100.0
"""The brightest light of any scene, 1.0 = white."""
STEEPEST = 0.85
"""Largest slope of gain against light, in stops per stop: 1 would leave no contrast."""


def srgb_encode(linear: Array) -> Array:
    """IEC 61966-2-1 transfer curve on [0,1] (clipped)."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.power(linear, 1 / 2.4) - 0.055)


def encoding(rng: np.random.Generator) -> Curve:
    """Display light to values of the file, clipped at white: sRGB mostly, else a gamma."""
    if rng.random() < 0.75:
        return srgb_encode
    gamma = rng.uniform(2.0, 2.4)
    return lambda x: np.clip(x, 0, 1) ** (1 / gamma)


def rolled_off(x: Array, knee: float, top: float) -> Array:
    """What is below `knee` as it is; above, an exponential that nears `top`."""
    room = top - knee
    return np.where(x < knee, x, knee + room * (1 - np.exp(-np.maximum(x - knee, 0) / room)))


def log_shoulder(x: Array, knee: float, top: float, bend: float) -> Array:
    """What is below `knee` as it is; above, a logarithm that reaches 1 at `top`."""
    rise = np.log1p(bend * np.clip((x - knee) / (top - knee), 0, 1)) / np.log1p(bend)
    return np.where(x < knee, x, knee + (1 - knee) * rise)


def clip_curve(rng: np.random.Generator, hdr: Array) -> Curve:
    return encoding(rng)


def brightest_light(rng: np.random.Generator, hdr: Array, least: float, most: float) -> float:
    """The light that all but a random share of a scene's values lie below, 10 to the power of `least` to
    `most`; white where the scene is darker.
    """
    return max(float(np.quantile(hdr, 1 - 10 ** rng.uniform(least, most))), 1.0)


def scene_top(rng: np.random.Generator, hdr: Array) -> float:
    """The light that becomes display white: one that fits the scene (all but 5 % to one in 10,000 of its
    values lie below), or a fixed one that most scenes do not reach.
    """
    if rng.random() < 0.5:
        return brightest_light(rng, hdr, -4.0, -1.3)
    return float(2 ** rng.uniform(2.0, np.log2(HDR_PEAK)))


def log_curve(rng: np.random.Generator, hdr: Array) -> Curve:
    """Mu-law style, 5 to 100 times as steep at black as a straight line to its top."""
    top = scene_top(rng, hdr)
    return mu_law(np.clip(top * 10 ** rng.uniform(0.7, 2.0), 10, 1e4), top)


def mu_law_curve(rng: np.random.Generator, hdr: Array) -> Curve:
    """As most of the literature has it (Kalantari and Ramamoorthi 2017): mu about 5,000, up to the brightest
    light that can be, or that there is.
    """
    brightest = brightest_light(rng, hdr, -4.5, -2.5)
    top = HDR_PEAK if rng.random() < 0.5 else brightest
    return mu_law(5000 * 10 ** rng.normal(0, 0.2), top)


def mu_law(mu: float, top: float) -> Curve:
    """A logarithm that is a straight line at black and reaches 1 at `top`."""
    return lambda x: np.log1p(mu * np.clip(x / top, 0, 1)) / np.log1p(mu)


def displayed(rng: np.random.Generator, tone: Curve) -> Curve:
    """A tone curve of linear display light behind a random exposure, encoded as sRGB or with a gamma."""
    gain, encode = 2 ** rng.uniform(-1.0, 1.5), encoding(rng)
    return lambda x: encode(tone(x * gain))


def sigmoid_curve(rng: np.random.Generator, hdr: Array) -> Curve:
    """The camera response of `gm_core.exposure` (Eilertsen et al. 2017), n and sigma over a wider range."""
    n, sigma = rng.uniform(0.45, 1.1), rng.uniform(0.3, 1.6)
    gain = 2 ** rng.uniform(-1.0, 2.0)
    return lambda x: np.clip((1 + sigma) * (x * gain) ** n / ((x * gain) ** n + sigma), 0, 1)


def reinhard_curve(rng: np.random.Generator, hdr: Array) -> Curve:
    """Extended Reinhard (2002) with a random white: a shoulder that ends in a clip, or never ends."""
    white = 2 ** rng.uniform(0.3, 7.0)
    return displayed(rng, lambda x: x * (1 + x / white**2) / (1 + x))


def filmic_curve(rng: np.random.Generator, hdr: Array) -> Curve:
    """A quotient of two parabolas, as game engines fit them to film: a toe, a straight part, a shoulder."""
    slope, toe = np.exp(rng.uniform(np.log(0.2), np.log(3.5))), rng.uniform(0.0, 0.4)
    start, white = rng.uniform(0, 0.1) * slope, 2 ** rng.uniform(1.5, 6.0)
    quotient = lambda x: x * (x + start) / (x * (x + slope) + toe)  # noqa: E731
    return displayed(rng, lambda x: quotient(x) / quotient(white))


def exponential_curve(rng: np.random.Generator, hdr: Array) -> Curve:
    """Film's saturation, `1 - exp(-x)`, above a knee below which nothing changes."""
    knee = max(rng.uniform(-0.6, 0.9), 0.0)
    return displayed(rng, lambda x: rolled_off(x, knee, 1.0))


def power_curve(rng: np.random.Generator, hdr: Array) -> Curve:
    """The scene's range pressed into the display's by an exponent, its top as in `log_curve`."""
    top, power = scene_top(rng, hdr), rng.uniform(0.35, 0.9)
    encode = encoding(rng)
    return lambda x: encode(np.clip(x / top, 0, 1) ** power)


def spline_curve(rng: np.random.Generator, hdr: Array) -> Curve:
    """Random monotone curve through knots in log light: slopes differ by up to a factor of about 20."""
    stops = np.linspace(-9, rng.uniform(0.0, 5.0), int(rng.integers(4, 9)))
    bell = np.exp(-0.5 * ((stops[1:] + rng.uniform(-1, 3)) / rng.uniform(2, 5)) ** 2)
    rises = bell * np.exp(rng.normal(0, 0.3, len(stops) - 1)) + 0.02
    values = np.concatenate([[0.0], np.cumsum(rises) / rises.sum()])
    fine = np.linspace(stops[0], stops[-1], 256)
    smooth = cv2.GaussianBlur(np.interp(fine, stops, values).reshape(1, -1), (0, 0), 12).ravel()
    smooth = (smooth - smooth[0]) / (smooth[-1] - smooth[0])
    return lambda x: np.interp(np.log2(np.maximum(x, 2.0**-12)), fine, smooth)


def shoulder(rng: np.random.Generator, hdr: Array) -> Curve:
    """To linear display light: tones as they are up to a knee, above it a logarithm that reaches white at the
    picture's maximum.
    """
    knee, top = rng.uniform(0.1, 0.8), brightest_light(rng, hdr, -4.0, -2.0)
    bend = 2 ** rng.uniform(-1, 5)
    return lambda x: log_shoulder(x, knee, top, bend)


def even_rise(rng: np.random.Generator, hdr: Array) -> Curve:
    """To linear display light: gain that grows evenly with every stop, from the dark tones or the mid-tones
    up to the picture's maximum, which becomes about white.
    """
    top = brightest_light(rng, hdr, -4.0, -2.0)
    most, bend = rng.uniform(0.4, 3.0), rng.uniform(1.0, 1.5)
    stops = max(rng.uniform(2.5, 10.0), most * bend / STEEPEST)
    white = top * 2 ** (rng.uniform(-0.2, 0.1) - most)
    rise = lambda x: most * np.clip(np.log2(np.maximum(x / top, 2.0**-16)) / stops + 1, 0, 1) ** bend  # noqa: E731
    return lambda x: x * np.exp2(-rise(x)) / white


def shoulder_curve(rng: np.random.Generator, hdr: Array) -> Curve:
    """A phone's `shoulder`, encoded."""
    tone, encode = shoulder(rng, hdr), encoding(rng)
    return lambda x: encode(tone(x))


CURVES: tuple[tuple[float, Callable[[np.random.Generator, Array], Curve]], ...] = (
    (0.30, clip_curve),
    (0.22, log_curve),
    (0.08, mu_law_curve),
    (0.12, reinhard_curve),
    (0.08, filmic_curve),
    (0.08, exponential_curve),
    (0.06, sigmoid_curve),
    (0.04, spline_curve),
    (0.02, power_curve),
)
