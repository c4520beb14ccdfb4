"""The histogram of HDR Statistics as a picture."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..gm_core.statistics import BINS_PER_STOP, HISTOGRAM_STOPS, HDRStatistics

SIZE = (800, 400)
LEFT, TOP, RIGHT, BOTTOM = 20, 40, 780, 350
BACKGROUND, AXIS, TEXT = (24, 24, 24), (90, 90, 90), (210, 210, 210)
SDR_BAR, HDR_BAR, WHITE_LINE = (120, 140, 170), (240, 170, 60), (255, 255, 255)
STOPS_PER_LABEL = 2


def histogram_picture(statistics: HDRStatistics) -> torch.Tensor:
    """IMAGE [1,400,800,3]: shares of the pixels by stops around SDR white, on a logarithmic scale."""
    picture = Image.new("RGB", SIZE, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    _bars(draw, statistics.histogram)
    _axis(draw)
    title = f"peak {statistics.peak_nits:.0f} nits, {statistics.stops_above_white:.1f} stops above SDR white"
    draw.text((LEFT, 12), title, fill=TEXT)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]


def _column(stops: float) -> float:
    low, high = HISTOGRAM_STOPS
    return LEFT + (stops - low) / (high - low) * (RIGHT - LEFT)


def _bars(draw: ImageDraw.ImageDraw, histogram: tuple[float, ...]) -> None:
    """One percent of the pixels stands at half height: highlights are few and must be seen."""
    for index, share in enumerate(histogram):
        if not share:
            continue
        stops = HISTOGRAM_STOPS[0] + index / BINS_PER_STOP
        height = max(0.0, 1 + np.log10(share) / 4) * (BOTTOM - TOP)
        box = (_column(stops) + 1, BOTTOM - max(1.0, height), _column(stops + 1 / BINS_PER_STOP) - 1, BOTTOM)
        draw.rectangle(box, fill=HDR_BAR if stops >= 0 else SDR_BAR)


def _axis(draw: ImageDraw.ImageDraw) -> None:
    draw.line((LEFT, BOTTOM, RIGHT, BOTTOM), fill=AXIS)
    for stops in range(HISTOGRAM_STOPS[0], HISTOGRAM_STOPS[1] + 1, STOPS_PER_LABEL):
        column = _column(stops)
        draw.line((column, BOTTOM, column, BOTTOM + 5), fill=AXIS)
        draw.text((column, BOTTOM + 8), f"{stops:+d}" if stops else "0", fill=TEXT, anchor="ma")
    draw.line((_column(0), TOP - 8, _column(0), BOTTOM), fill=WHITE_LINE)
    draw.text((_column(0) + 6, TOP - 8), "SDR white", fill=WHITE_LINE)
    draw.text(((LEFT + RIGHT) / 2, BOTTOM + 26), "stops around SDR white", fill=TEXT, anchor="ma")
