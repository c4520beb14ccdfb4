"""A broad random family of cameras: from scene light to the 8-bit SDR picture that a photographer would hold.

Every sample draws its own: exposure, tone curve, local compression, channel coupling, saturation,
quantisation, noise and JPEG.
"""

from __future__ import annotations

import cv2
import numpy as np

from gm_core.gain_map import GainMapSpec

from .tone_curves import (
    CURVES,
    HDR_PEAK,
    Array,
    Curve,
    clip_curve,
    encoding,
    even_rise,
    rolled_off,
    shoulder,
    shoulder_curve,
)

LUMA = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
"""Luminance weights of BT.709, rounded as the standard prints them: other digits would be other samples."""
FEW_BRIGHT = 0.15
"""Share of scenes of which next to nothing lies above white."""
ANCHOR_STEP, ANCHOR_ROUNDS = 2, 6
"""Every n-th pixel in which the exposure is sought, and steps of the search."""


def expose_plainly(rng: np.random.Generator, scene: Array) -> Array:
    """Scales a scene so that next to nothing of it lies above 1.0 = white."""
    top = float(np.quantile(scene.max(axis=-1), 1 - 10 ** rng.uniform(-4.5, -3)))
    return np.clip(scene / max(top * 2 ** rng.uniform(0, 0.6), 1e-6), 0, HDR_PEAK).astype(np.float32)


def expose(rng: np.random.Generator, scene: Array) -> Array:
    """Scales a scene so that 0.5 % to 30 % of it lies above 1.0 = white, and clips at `HDR_PEAK`. At times it
    is only 0.1 % to 0.5 %: few bright pixels are small lamps and glints, not nothing.
    """
    least, most = (0.001, 0.005) if rng.random() < FEW_BRIGHT else (0.005, 0.30)
    share = np.exp(rng.uniform(np.log(least), np.log(most)))
    white = float(np.quantile(scene.max(axis=-1), 1 - share))
    return np.clip(scene / max(white, 1e-6), 0, HDR_PEAK).astype(np.float32)


def local_compression(rng: np.random.Generator, hdr: Array) -> Array:
    """Compresses the large-scale log luminance, as phones do, before the global curve."""
    strength = rng.uniform(0.1, 0.5)
    return evened_out(hdr, strength, radius=int(rng.uniform(0.02, 0.15) * hdr.shape[1]) + 1)


def evened_out(hdr: Array, strength: float, *, radius: int) -> Array:
    """Differences of light between areas larger than `radius` pixels, less by a share of `strength`."""
    base = stops_around(hdr @ LUMA, radius=radius)
    return hdr * np.exp2(-strength * (base - np.median(base)))[..., None]


def stops_around(light: Array, *, radius: int) -> Array:
    """log2 of the light `[H,W]` that is around each pixel, up to the next edge."""
    return edge_keeping_blur(in_stops(light), radius=radius)


def in_stops(light: Array) -> Array:
    """log2 of light, black at -8."""
    return np.log2(light + 2.0**-8)


def edge_keeping_blur(picture: Array, *, radius: int, edge: float = 1.0) -> Array:
    """Guided filter (He et al.) of a single-channel picture by itself; steps well above `edge` survive."""
    box = lambda x: cv2.blur(x, (2 * radius + 1, 2 * radius + 1))  # noqa: E731
    mean = box(picture)
    variance = np.maximum(box(picture * picture) - mean * mean, 0)
    slope = variance / (variance + edge**2)
    return box(slope) * picture + box((1 - slope) * mean)


def graded(rng: np.random.Generator, scene: Array) -> Array:
    """The HDR picture that a phone makes of a scene, for its own display: large differences of light evened
    out, dark scenes made brighter, contrast to taste, and highlights rolled off to 1.5 to 8 times white. Its
    SDR picture is another rendering of that, so that is all the range there is to give back.
    """
    hdr = local_compression(rng, scene) if rng.random() < 0.6 else scene
    lift = (rng.uniform(0.06, 0.25) / max(float(np.median(hdr)), 1e-3)) ** rng.uniform(0.2, 0.9)
    hdr = hdr * np.float32(np.clip(lift, 0.5, 16))
    hdr = 0.18 * (hdr / 0.18) ** np.float32(rng.uniform(0.9, 1.25))
    return with_highlights_rolled_off(hdr, rng.uniform(0.3, 0.9), 2 ** rng.uniform(0.6, 3))


def with_highlights_rolled_off(hdr: Array, knee: float, top: float) -> Array:
    """Colours stay: a pixel `[H,W,3]` is dimmed as its largest channel must be to end at `top`."""
    largest = hdr.max(axis=-1, keepdims=True)
    return hdr * np.where(largest < knee, 1, rolled_off(largest, knee, top) / np.maximum(largest, 1e-6))


def optics(rng: np.random.Generator, hdr: Array) -> Array:
    """A lens blurs light, not codes: what it leaves of an edge is a ramp that the tone curve then bends."""
    return cv2.GaussianBlur(hdr, (0, 0), rng.uniform(0.4, 1.6))


def apply_curve(rng: np.random.Generator, hdr: Array, curve: Curve, *, coupled: float = 0.3) -> Array:
    """Per channel (colours bleach to white, as in film and most cameras), or with a probability of `coupled`
    by luminance, by the largest channel (colours stay as they are, as in gain-mapped photos), or in between.
    """
    per_channel = curve(hdr)
    if rng.random() >= coupled:
        return per_channel
    coupling = 1.0 if rng.random() < 0.4 else rng.uniform(0, 1)
    level = largest_or_luminance(rng, hdr, 0.4)[..., None]
    chroma = (hdr / np.maximum(level, 1e-6)) ** (rng.uniform(0.6, 1.0) / 2.2)
    return np.clip((1 - coupling) * per_channel + coupling * np.clip(curve(level) * chroma, 0, 1), 0, 1)


def largest_or_luminance(rng: np.random.Generator, hdr: Array, largest: float) -> Array:
    """A pixel's level `[H,W]`: its largest channel with a probability of `largest`, else its luminance."""
    return hdr.max(axis=-1) if rng.random() < largest else hdr @ LUMA


def saturate(rng: np.random.Generator, sdr: Array) -> Array:
    luma = (sdr @ LUMA)[..., None]
    return np.clip(luma + (sdr - luma) * rng.uniform(0.8, 1.25), 0, 1)


def gain_mapped(rng: np.random.Generator, hdr: Array) -> Array:
    """Linear display light that one gain a pixel brings back to `hdr`, as the grey gain maps of most phones
    hold it: by the pixel's largest channel, its luminance, the light around, or something between.
    """
    level = largest_or_luminance(rng, hdr, 0.5)
    own, around = in_stops(level), stops_around(level, radius=int(rng.uniform(0.01, 0.12) * hdr.shape[1]) + 1)
    share = np.clip(rng.uniform(-0.8, 1.8), 0, 1)
    level = np.exp2(own + share * (around - own))[..., None]
    tone = (even_rise if rng.random() < 0.5 else shoulder)(rng, hdr)
    return hdr * tone(level) / level


def phone_sdr(rng: np.random.Generator, hdr: Array) -> Array:
    """The SDR picture that a phone saves beside its own HDR picture, undamaged as in `render_sdr`."""
    kind = rng.random()
    if kind < 0.2:
        return render_sdr(rng, hdr)
    seen = local_compression(rng, hdr) if rng.random() < 0.4 else hdr
    if kind < 0.7:
        return hue_kept_sdr(rng, seen)
    return finish(rng, apply_curve(rng, seen, shoulder_curve(rng, seen), coupled=0.7))


def hue_kept_sdr(rng: np.random.Generator, hdr: Array) -> Array:
    """One from which a grey gain map leads back to `hdr`."""
    return finish(rng, encoding(rng)(gain_mapped(rng, hdr)))


def render_sdr(rng: np.random.Generator, hdr: Array, *, plain: float = 0.0) -> Array:
    """The undamaged display-encoded picture `[H,W,3]` in [0,1] that a random camera makes of a scene: one
    that does nothing but clip with a probability of `plain` at least.
    """
    weights = np.array([weight for weight, _ in CURVES])
    make_curve = CURVES[rng.choice(len(CURVES), p=weights / weights.sum())][1]
    if rng.random() < plain:
        make_curve = clip_curve
    seen = local_compression(rng, hdr) if rng.random() < 0.15 else hdr
    return finish(rng, apply_curve(rng, seen, make_curve(rng, seen)))


def finish(rng: np.random.Generator, sdr: Array) -> Array:
    """What is done to some pictures at the end: other saturation, a faded print."""
    if rng.random() < 0.2:
        sdr = saturate(rng, sdr)
    if rng.random() < 0.04:
        sdr = rng.uniform(0, 0.04) + sdr * rng.uniform(0.85, 0.96)  # a faded print: no black, no white
    return sdr.astype(np.float32)


def damage(rng: np.random.Generator, sdr: Array) -> Array:
    """What happens on the way to a file: softness or sharpening, noise, 8 bits, JPEG. Returns uint8
    `[H,W,3]`.
    """
    if rng.random() < 0.3:
        blurred = cv2.GaussianBlur(sdr, (0, 0), rng.uniform(0.4, 1.0))
        sdr = blurred if rng.random() < 0.5 else sdr + rng.uniform(0.2, 1.0) * (sdr - blurred)
    if rng.random() < 0.4:
        sdr = sdr + rng.normal(0, rng.uniform(0.001, 0.02), sdr.shape).astype(np.float32)
    codes = np.round(np.clip(sdr, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.5:
        codes = through_jpeg(codes, int(rng.integers(60, 99)))
    return codes


def through_jpeg(codes: Array, quality: int) -> Array:
    """uint8 `[H,W,3]` as they come back from a JPEG."""
    packed = cv2.imencode(".jpg", codes[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))[..., ::-1]


def log_gain(sdr: Array, hdr: Array) -> Array:
    """Per-channel gain in stops of Eq. (1), `log2((hdr + offset) / (sdr^gamma + offset))`."""
    eq1 = GainMapSpec()
    return np.log2((hdr + eq1.offset) / (np.clip(sdr, 0, 1) ** eq1.gamma + eq1.offset))


def anchor_midtones(sdr: Array, hdr: Array) -> Array:
    """The scene at the exposure that no picture tells: so bright that the SDR mid-tones gain zero stops on
    average.

    It is the light that is scaled. Stops added to the gain would scale the offset of Eq. (1) with it, and
    turn the black of every strongly compressed picture into less than no light.
    """
    some = sdr[::ANCHOR_STEP, ::ANCHOR_STEP], hdr[::ANCHOR_STEP, ::ANCHOR_STEP]
    weight = np.exp(-0.5 * ((some[0] @ LUMA - 0.45) / 0.18) ** 2) + 1e-3
    stops = 0.0
    for _ in range(ANCHOR_ROUNDS):
        gain = log_gain(some[0], some[1] * np.float32(2**stops))
        stops -= float((weight * (gain @ LUMA)).sum() / weight.sum())
    return hdr * np.float32(2**stops)
