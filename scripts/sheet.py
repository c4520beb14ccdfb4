"""The before/after sheet: what the SDR picture and the HDR picture look like when the exposure is lowered."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from gm_core.color import linear_to_srgb, srgb_to_linear
from gm_core.gain_map import GainMapSpec

TILE_SIDE = 512
LABEL_HEIGHT = 28
GAP = 8
BACKGROUND = (24, 24, 24)
TEXT = (235, 235, 235)
EXPOSURES = (-2, -4)
OFFSET = GainMapSpec.offset

Tile = tuple[str, Image.Image]


def draw_sheet(sdr: Image.Image, hdr: np.ndarray) -> Image.Image:
    """SDR above HDR, at lower exposures from left to right.

    `sdr` as displayed; `hdr` [H,W,3] linear BT.709 of the same size, 1.0 = SDR white.
    """
    linear = srgb_to_linear(torch.from_numpy(np.asarray(sdr, np.float32) / 255)).numpy()
    upper: list[Tile] = [("SDR photo", sdr)]
    lower = [show_gain(linear, hdr)]
    for stops in EXPOSURES:
        upper.append((f"SDR at {stops} stops", expose(linear, stops)))
        lower.append((f"HDR at {stops} stops", expose(hdr, stops)))
    return compose([upper, lower])


def expose(linear: np.ndarray, stops: float) -> Image.Image:
    return to_picture(linear_to_srgb(torch.from_numpy(linear * 2.0**stops).clamp(0, 1)).numpy())


def show_gain(linear: np.ndarray, hdr: np.ndarray) -> Tile:
    """Gain in stops, stretched from its lowest to its highest value."""
    stops = np.log2((np.maximum(hdr, 0) + OFFSET) / (linear + OFFSET))
    low, high = float(stops.min()), float(stops.max())
    label = f"gain map, black {low:+.1f} to white {high:+.1f} stops"
    return label, to_picture((stops - low) / max(high - low, 1e-6))


def to_picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray((values * 255 + 0.5).astype(np.uint8))


def compose(rows: list[list[Tile]]) -> Image.Image:
    width, height = fit(rows[0][0][1].size)
    step = height + LABEL_HEIGHT + GAP
    sheet = Image.new("RGB", (len(rows[0]) * (width + GAP) + GAP, len(rows) * step + GAP), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=17)
    for row, tiles in enumerate(rows):
        for column, (label, picture) in enumerate(tiles):
            left, top = GAP + column * (width + GAP), GAP + row * step
            pen.text((left + 2, top + 3), label, fill=TEXT, font=font)
            sheet.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (left, top + LABEL_HEIGHT))
    return sheet


def fit(size: tuple[int, int]) -> tuple[int, int]:
    """The size whose longer side is that of a tile."""
    scale = TILE_SIDE / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
