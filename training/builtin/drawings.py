"""Drawn pictures: pages, screens, charts, logos. They lost no light, so there is nothing to give back."""

from __future__ import annotations

import cv2
import numpy as np

from .tone_curves import Array

FINER = 2
"""Drawn so many times larger than asked for: edges are blended in display values, as every screen does it."""
FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_PLAIN,
)
LETTERS = np.array(list("eeeetttaaoooinshrdlucmfwygpbvkxETAOINS0123456789.,:-  "))


def drawing(rng: np.random.Generator, size: int) -> Array:
    """A random one, float32 `[size,size,3]` of display-encoded values in [0,1]."""
    canvas = _ground(rng, size * FINER)
    for _ in range(int(rng.integers(1, 4))):
        canvas = (_text, _shapes, _blocks, _chart)[rng.choice(4, p=[0.5, 0.2, 0.2, 0.1])](rng, canvas)
    small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def printed(rng: np.random.Generator, scene: Array) -> Array:
    """A scene `[S,S,3]` in linear light with a sheet of paper in it, drawn on, in the light of its place."""
    size = scene.shape[0]
    paper = 0.03 + 0.87 * drawing(rng, size) ** 2.2
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], dtype=np.float32)
    middle = rng.uniform(0.25, 0.75, 2) * size
    places = middle + (corners - size / 2) * rng.uniform(0.25, 0.9) + rng.normal(0, 0.07 * size, (4, 2))
    warp = cv2.getPerspectiveTransform(corners, places.astype(np.float32))
    seen = cv2.warpPerspective(paper, warp, (size, size), flags=cv2.INTER_AREA)
    cover = cv2.warpPerspective(np.ones((size, size), np.float32), warp, (size, size))[..., None]
    light = np.quantile(scene, rng.uniform(0.6, 0.98)) + 1e-6
    fall = np.exp2(rng.uniform(0, 1) * np.linspace(-0.5, 0.5, size, dtype=np.float32))
    fall = fall[:, None, None] if rng.random() < 0.5 else fall[None, :, None]
    return (scene + cover * (seen * np.float32(light) * fall - scene)).astype(np.float32)


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    """Often black, white or grey, as drawings have it."""
    kind = rng.random()
    if kind < 0.2:
        return (255,) * 3
    if kind < 0.4:
        return (int(rng.integers(0, 40)),) * 3
    if kind < 0.55:
        return (int(rng.integers(256)),) * 3
    return tuple(int(value) for value in rng.integers(0, 256, 3))


def _ground(rng: np.random.Generator, side: int) -> Array:
    """Paper, a dark screen, a colour, or a gradient between two."""
    kind = rng.random()
    if kind < 0.45:
        return np.full((side, side, 3), 255 if kind < 0.25 else rng.integers(232, 256), np.uint8)
    if kind < 0.55:
        return np.full((side, side, 3), rng.integers(0, 48), np.uint8)
    if kind < 0.75:
        return np.full((side, side, 3), _colour(rng), np.uint8)
    ends = np.array([_colour(rng), _colour(rng)], dtype=np.float32)
    share = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    ramp = np.broadcast_to(ends[0] + share * (ends[1] - ends[0]), (side, side, 3))
    return np.ascontiguousarray(np.rot90(ramp, int(rng.integers(4))).round().astype(np.uint8))


def _contrasting(rng: np.random.Generator, canvas: Array) -> tuple[int, ...]:
    """A colour that can be read on most of the canvas; black or white if chance finds none."""
    ground = np.median(canvas[::16, ::16].reshape(-1, 3), axis=0)
    for _ in range(8):
        colour = _colour(rng)
        if np.abs(np.array(colour) - ground).max() > 90:
            return colour
    return (0, 0, 0) if ground.mean() > 127 else (255, 255, 255)


def _text(rng: np.random.Generator, canvas: Array) -> Array:
    """Lines of letters in one font, flush left from a random corner."""
    side, scale = canvas.shape[0], np.exp(rng.uniform(np.log(0.5), np.log(4.0)))
    font, colour, weight = FONTS[rng.integers(len(FONTS))], _contrasting(rng, canvas), int(rng.integers(1, 4))
    step, left = int(34 * scale), int(rng.uniform(0, 0.4) * side)
    for baseline in range(int(rng.uniform(0, 0.6) * side), side, step):
        if rng.random() < 0.12:
            continue
        line = "".join(rng.choice(LETTERS, int(rng.integers(4, 60))))
        cv2.putText(canvas, line, (left, baseline), font, scale, colour, weight, cv2.LINE_AA)
    return canvas


def _shapes(rng: np.random.Generator, canvas: Array) -> Array:
    """Discs and polygons, filled or outlined."""
    side = canvas.shape[0]
    for _ in range(int(rng.integers(1, 9))):
        colour, width = _colour(rng), int(rng.choice([-1, -1, 2, 6]))
        centre = rng.integers(0, side, 2)
        if rng.random() < 0.5:
            radius = int(rng.uniform(0.02, 0.3) * side)
            cv2.circle(canvas, [int(value) for value in centre], radius, colour, width, cv2.LINE_AA)
            continue
        around = centre + rng.normal(0, 0.15 * side, (int(rng.integers(3, 7)), 2))
        points = around.round().astype(np.int32)
        if width < 0:
            cv2.fillPoly(canvas, [points], colour, cv2.LINE_AA)
        else:
            cv2.polylines(canvas, [points], True, colour, width, cv2.LINE_AA)
    return canvas


def _blocks(rng: np.random.Generator, canvas: Array) -> Array:
    """Bars, buttons and panels of a user interface."""
    side = canvas.shape[0]
    for _ in range(int(rng.integers(1, 7))):
        top, left = (int(value) for value in rng.integers(0, side, 2))
        height, width = (int(rng.uniform(0.03, 0.6) * side) for _ in range(2))
        canvas[top : top + height, left : left + width] = _colour(rng)
    return canvas


def _chart(rng: np.random.Generator, canvas: Array) -> Array:
    """A grid and a few curves."""
    side = canvas.shape[0]
    grid, spacing = _contrasting(rng, canvas), int(rng.uniform(0.05, 0.2) * side)
    canvas[::spacing] = canvas[:, ::spacing] = grid
    columns = np.linspace(0, side, 40)
    for _ in range(int(rng.integers(1, 5))):
        rows = side / 2 + np.cumsum(rng.normal(0, 0.04 * side, len(columns)))
        points = np.stack([columns, rows], axis=1).round().astype(np.int32)
        colour, width = _contrasting(rng, canvas), int(rng.integers(1, 5))
        cv2.polylines(canvas, [points], False, colour, width, cv2.LINE_AA)
    return canvas
