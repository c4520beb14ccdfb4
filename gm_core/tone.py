"""How much gain each tone of a picture deserves, told from the picture's statistics.

A gain-map UNet sees a small latent and has to guess the camera's tone curve from it. The curve leaves
clearer traces in the pixels: how often each value occurs, how much contrast is left around it and how
colourful it is. `ToneNet` reads these traces and answers with two curves. `full_size_map` averages them with
the curves that the UNet painted, applies them to the picture's own pixels, and adds, softly, what only the
UNet can know: which of two equally bright things is the lamp.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from .errors import GainMapError, ModelFileError
from .gain_coding import GainCoding
from .resample import ROWS_PER_STRIP, box_mean, resize_to_working, resized_rows, upsample_gain_map

STATISTICS_SIDE = 96
"""Short side in pixels of the copy on which contrasts are measured."""
COUNTED_SIDE = 512
"""Short side in pixels above which only every n-th pixel is counted."""
FINE_BINS, COARSE_BINS, KNOTS = 33, 16, 17
STATISTICS = 5 * FINE_BINS + COARSE_BINS + 3 * 2 * COARSE_BINS + 2
PREFIX = "gmhdr.tone."
"""Tensors of a ToneNet in a model file start with this."""
RIDGE = 1e-3
DIFFERENCE_RADIUS, DIFFERENCE_SHARE = 1 / 32, 0.5
"""Half window, as a share of the short side, and weight of what a map says beyond its tones."""


def hat_position(value: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Index of the knot below `value` in [0,1] among `count` equidistant ones, and the weight of the next."""
    position = value.clamp(0, 1) * (count - 1)
    below = position.floor().clamp(0, count - 2)
    return below.long(), position - below


def soft_histogram(value: Tensor, weight: Tensor, bins: int) -> Tensor:
    """Sums `[B,bins]` of `weight` `[B,N]`, each shared linearly by the two bins next to `value` `[B,N]`."""
    below, share = hat_position(value, bins)
    sums = value.new_zeros(value.shape[0], bins)
    return sums.scatter_add_(1, below, (1 - share) * weight).scatter_add_(1, below + 1, share * weight)


def value_statistics(sdr: Tensor) -> Tensor:
    """How often each value occurs (red, green, blue, the largest and the smallest channel), and how colourful
    pixels of each brightness are. `[B,3,h,w]` to `[B,5 FINE_BINS + COARSE_BINS]`.
    """
    largest, smallest = sdr.amax(dim=1).flatten(1), sdr.amin(dim=1).flatten(1)
    ones = torch.ones_like(largest)
    values = [*sdr.flatten(2).unbind(1), largest, smallest]
    shares = [2 * (soft_histogram(v, ones, FINE_BINS) / ones.shape[1]).sqrt() for v in values]
    count = soft_histogram(largest, ones, COARSE_BINS) + 1
    return torch.cat([*shares, 3 * soft_histogram(largest, largest - smallest, COARSE_BINS) / count], dim=1)


def contrast_statistics(luma: Tensor) -> Tensor:
    """Mean and root mean square difference of neighbours at each brightness, in log. `[B,1,h,w]` to
    `[B,2 COARSE_BINS]`.
    """
    pairs = [(luma[..., 1:], luma[..., :-1]), (luma[..., 1:, :], luma[..., :-1, :])]
    level = torch.cat([((a + b) / 2).flatten(1) for a, b in pairs], dim=1)
    step = torch.cat([(a - b).abs().flatten(1) for a, b in pairs], dim=1)
    count = soft_histogram(level, torch.ones_like(level), COARSE_BINS) + 1
    mean = soft_histogram(level, step, COARSE_BINS) / count
    square = soft_histogram(level, step.square(), COARSE_BINS) / count
    return torch.cat([torch.log(mean + 0.003) + 4, torch.log(square.sqrt() + 0.003) + 4], dim=1)


def picture_statistics(sdr: Tensor) -> Tensor:
    """Statistics that a tone curve leaves its traces in.

    Args:
        sdr: `[B,3,H,W]` display-encoded, [0,1]. Values are counted on its own pixels, for averaging would
            hide a small lamp; contrasts are those of a copy of `STATISTICS_SIDE` pixels.

    Returns:
        `[B,STATISTICS]` float32, all of them of the order of 1.
    """
    stride = max(1, min(sdr.shape[-2:]) // COUNTED_SIDE)
    values = value_statistics(sdr[:, :, ::stride, ::stride].float())
    luma = resize_to_working(sdr, STATISTICS_SIDE).float().mean(dim=1, keepdim=True)
    levels = [luma]
    while len(levels) < 3:
        levels.append(avg_pool2d(levels[-1], 2))
    spread = torch.stack([levels[-1].flatten(1).std(dim=1), luma.flatten(1).std(dim=1)], dim=1)
    return torch.cat([values, *map(contrast_statistics, levels), 3 * spread], dim=1)


@dataclass(frozen=True)
class ToneCurves:
    """Gain in stops at `KNOTS` equidistant values: by a channel's own value, and by the largest channel's.

    Their sum is a pixel's gain. Both `[B,KNOTS]`.
    """

    by_channel: Tensor
    by_largest: Tensor

    def gain(self, sdr: Tensor) -> Tensor:
        """Stops `[B,3,H,W]` of a picture `[B,3,H,W]` in [0,1]."""
        largest = sdr.amax(dim=1, keepdim=True)
        return _read(self.by_channel, sdr) + _read(self.by_largest, largest)

    def rising(self) -> ToneCurves:
        """The same up to the mid-tones; above them a grey's gain is at least 0 stops and never falls.

        Cameras compress highlights and do not expand them: a lamp is no darker than the wall it lights.
        """
        grey = self.by_channel + self.by_largest
        upper = grey[:, KNOTS // 2 :].clamp(min=0).cummax(dim=1).values
        lifted = torch.cat([grey[:, : KNOTS // 2], upper], dim=1)
        return ToneCurves(self.by_channel, self.by_largest + lifted - grey)


def _read(curve: Tensor, value: Tensor) -> Tensor:
    below, share = hat_position(value, curve.shape[1])
    flat = below.flatten(1)
    low, high = curve.gather(1, flat).view_as(value), curve.gather(1, flat + 1).view_as(value)
    return torch.lerp(low, high, share)


def fit_curves(sdr: Tensor, gain: Tensor) -> ToneCurves:
    """The curves that explain most of a gain map.

    Args:
        sdr: `[B,3,h,w]` in [0,1].
        gain: `[B,3,h,w]` stops.

    Returns:
        Least-squares curves, with a slight preference for small gains where the picture has no such value.
    """
    largest = sdr.amax(dim=1, keepdim=True).expand_as(sdr)
    basis = torch.cat([_hats(sdr.flatten(1)), _hats(largest.flatten(1))], dim=2)
    pixels = basis.shape[1]
    normal = basis.mT @ basis / pixels + RIDGE * torch.eye(2 * KNOTS, dtype=basis.dtype, device=basis.device)
    right = basis.mT @ gain.flatten(1)[..., None] / pixels
    by_channel, by_largest = torch.linalg.solve(normal, right)[..., 0].split(KNOTS, dim=1)
    return ToneCurves(by_channel, by_largest)


def _hats(value: Tensor) -> Tensor:
    """`[B,N]` to the hat functions' values `[B,N,KNOTS]`."""
    below, share = hat_position(value, KNOTS)
    basis = value.new_zeros(*value.shape, KNOTS)
    basis.scatter_(2, below[..., None], (1 - share)[..., None])
    return basis.scatter_(2, below[..., None] + 1, share[..., None])


class ToneNet(nn.Module):
    """Statistics of a picture to the curves of its gain: a multilayer perceptron of some 150,000 numbers."""

    mean: Tensor
    scale: Tensor

    def __init__(self, *, width: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(STATISTICS))
        self.register_buffer("scale", torch.ones(STATISTICS))
        self.layers = nn.Sequential(
            nn.Linear(STATISTICS, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, 2 * KNOTS),
        )

    @classmethod
    def pop_from(cls, weights: dict[str, Tensor], name: str) -> ToneNet | None:
        """Takes a tone net out of the tensors of a model file; None if it brings none."""
        keys = [key for key in weights if key.startswith(PREFIX)]
        own = {key.removeprefix(PREFIX): weights.pop(key) for key in keys}
        return cls.from_weights(own, name) if own else None

    @classmethod
    def from_weights(cls, weights: dict[str, Tensor], name: str) -> ToneNet:
        """From its own tensors, `PREFIX` removed; raises ModelFileError when they do not fit."""
        first = weights.get("layers.0.weight")
        net = cls(width=len(first) if first is not None else 256)
        try:
            net.load_state_dict({key: tensor.float() for key, tensor in weights.items()})
        except RuntimeError as error:
            raise ModelFileError(
                f"{name}: the tensors {PREFIX}* do not form a tone net ({error})."
            ) from error
        return net.eval().requires_grad_(False)

    def forward(self, statistics: Tensor) -> ToneCurves:
        """`[B,STATISTICS]` to curves."""
        return ToneCurves(*self.layers((statistics - self.mean) / self.scale).split(KNOTS, dim=1))


def tone_consensus(painted: ToneCurves, inferred: ToneCurves) -> ToneCurves:
    """The mean of what the map says and what the statistics say: each errs where the other does not."""
    return ToneCurves(
        (painted.by_channel + inferred.by_channel) / 2, (painted.by_largest + inferred.by_largest) / 2
    )


def local_differences(gain: Tensor, explained: Tensor) -> Tensor:
    """What a map `[B,3,h,w]` says beyond its tones: soft and without colour, `[B,1,h,w]` stops.

    In a latent a map is coarse: its fine detail is noise and its colour differences are tints.
    """
    rest = (gain - explained).mean(dim=1, keepdim=True)
    radius = max(1, round(min(rest.shape[-2:]) * DIFFERENCE_RADIUS))
    return DIFFERENCE_SHARE * box_mean(rest, radius)


def full_size_map(
    small: Tensor, sdr: Tensor, *, coding: GainCoding, net: ToneNet | None = None, strength: float = 1.0
) -> Tensor:
    """Brings the map that a model painted to the size of its SDR picture.

    Args:
        small: `[B,3,h,w]` coded gain map in [0,1].
        sdr: `[B,3,H,W]` display-encoded, [0,1].
        coding: the model's coding; log2 if there is a tone net.
        net: the model's tone net, if it has one.
        strength: how far tones are corrected: 0 = the painted map along the picture's edges, 1 = all the way.

    Returns:
        Coded gain map `[B,3,H,W]` float32 in [0,1].

    Raises:
        GainMapError: the coding is linear, in which a tone net's stops can't be added.
    """
    if net is None or strength == 0:
        return upsample_gain_map(small, sdr)
    corrected = corrected_map(small, sdr, coding=coding, net=net)
    return corrected if strength == 1 else upsample_gain_map(small, sdr).lerp_(corrected, strength)


def corrected_map(small: Tensor, sdr: Tensor, *, coding: GainCoding, net: ToneNet) -> Tensor:
    """The map on the tone curves that it and the statistics of its SDR picture agree on, at full size.

    Greys stay grey, for channels of equal value get equal gain. Arguments as `full_size_map`.
    """
    if coding.encoding != "log2":
        raise GainMapError("tone correction needs a log2-coded gain map; this model's is linear")
    span = coding.log2_max - coding.log2_min
    seen = interpolate(sdr, size=small.shape[-2:], mode="bilinear", antialias=True)
    gain = small.float() * span + coding.log2_min
    painted = fit_curves(seen, gain)
    curves = tone_consensus(painted, net(picture_statistics(sdr))).rising()
    local = local_differences(gain, painted.gain(seen))
    height, width = sdr.shape[-2:]
    coded = sdr.new_empty(sdr.shape, dtype=torch.float32)
    for top in range(0, height, ROWS_PER_STRIP):
        strip = sdr[:, :, top : top + ROWS_PER_STRIP]
        stops = curves.gain(strip) + resized_rows(local, top, strip.shape[-2], height, width)
        coded[:, :, top : top + ROWS_PER_STRIP] = (stops - coding.log2_min) / span
    return coded.clamp_(0, 1)
