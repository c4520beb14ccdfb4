"""Between the user's picture and the small picture a gain-map model works on.

A gain map is smooth except where the picture itself has edges. The model therefore runs on a small copy, and
its map is brought to full size by a local linear model of the SDR picture (guided filter, He et al. 2013;
fast form, He and Sun 2015): edges come from the user's own pixels, while the decoder's blur and noise average
out.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

LATENT_STRIDE = 8
ROWS_PER_STRIP = 256
"""Rows of the full-size picture handled at once: bounds memory for very large pictures."""


def working_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width, multiples of 8, of the copy whose short side is about `side` pixels (0 = the
    picture's own).

    A picture is never enlarged beyond what multiples of 8 need, and never squeezed below 8 pixels.
    """
    scale = min(1.0, side / min(height, width)) if side else 1.0
    snapped = [
        max(LATENT_STRIDE, round(length * scale / LATENT_STRIDE) * LATENT_STRIDE)
        for length in (height, width)
    ]
    return snapped[0], snapped[1]


def resize_to_working(image: Tensor, side: int) -> Tensor:
    """`[B,3,H,W]` to the model's working size, area-averaged. See `working_size`."""
    size = working_size(image.shape[-2], image.shape[-1], side)
    if size == tuple(image.shape[-2:]):
        return image
    return interpolate(image.float(), size=size, mode="bilinear", antialias=True)


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over a square of 2 radius + 1 around every pixel; at the border, over the part in the picture."""
    rows = avg_pool2d(x, (2 * radius + 1, 1), stride=1, padding=(radius, 0), count_include_pad=False)
    return avg_pool2d(rows, (1, 2 * radius + 1), stride=1, padding=(0, radius), count_include_pad=False)


def local_linear_model(guide: Tensor, target: Tensor, *, radius: int, epsilon: float) -> Tensor:
    """Least-squares `target = A guide + b` in the window around every pixel, then averaged over overlapping
    windows.

    Args:
        guide: `[B,3,h,w]`.
        target: `[B,C,h,w]`.
        radius: half window in pixels.
        epsilon: variance of the guide below which it is taken for flat.

    Returns:
        Coefficients `[B,C,4,h,w]`: three of A, then b.
    """
    channels = target.shape[1]
    # Centred first: a variance is a small difference of large products, and float32 has only seven digits.
    centre_guide, centre = guide.mean(dim=(2, 3), keepdim=True), target.mean(dim=(2, 3), keepdim=True)
    guide, target = guide - centre_guide, target - centre
    mean_guide, mean_target = box_mean(guide, radius), box_mean(target, radius)
    pairs = (guide[:, :, None] * guide[:, None]).flatten(1, 2)
    covariance = box_mean(pairs, radius).unflatten(1, (3, 3)) - mean_guide[:, :, None] * mean_guide[:, None]
    products = (target[:, :, None] * guide[:, None]).flatten(1, 2)
    cross = (
        box_mean(products, radius).unflatten(1, (channels, 3)) - mean_target[:, :, None] * mean_guide[:, None]
    )
    covariance = covariance.permute(0, 3, 4, 1, 2) + epsilon * torch.eye(
        3, dtype=guide.dtype, device=guide.device
    )
    slope = torch.linalg.solve(covariance, cross.permute(0, 3, 4, 2, 1)).permute(0, 4, 3, 1, 2)
    bias = mean_target + centre - (slope * (mean_guide + centre_guide)[:, None]).sum(dim=2)
    coefficients = torch.cat([slope, bias[:, :, None]], dim=2).flatten(1, 2)
    return box_mean(coefficients, radius).unflatten(1, (channels, 4))


def upsample_gain_map(coded: Tensor, guide: Tensor, *, radius: int = 8, epsilon: float = 1e-4) -> Tensor:
    """Brings a model's coded gain map to the size of the SDR picture, following the picture's edges.

    Args:
        coded: `[B,C,h,w]` in [0,1], in the model's own coding (log2 where the model uses it).
        guide: `[B,3,H,W]` SDR picture, display-encoded, [0,1].
        radius: half window in pixels of the small map.
        epsilon: guide variance below which edges are ignored.

    Returns:
        `[B,C,H,W]` float32 in [0,1].
    """
    coded, guide = coded.float(), guide.float()
    small = interpolate(guide, size=coded.shape[-2:], mode="bilinear", antialias=True)
    model = local_linear_model(small, coded, radius=radius, epsilon=epsilon)
    height, width = guide.shape[-2:]
    if (height, width) == tuple(coded.shape[-2:]):
        return _apply(model, guide).clamp(0, 1)
    out = guide.new_empty(*coded.shape[:2], height, width)
    for top in range(0, height, ROWS_PER_STRIP):
        rows = min(ROWS_PER_STRIP, height - top)
        strip = resized_rows(model.flatten(1, 2), top, rows, height, width).unflatten(1, model.shape[1:3])
        out[:, :, top : top + rows] = _apply(strip, guide[:, :, top : top + rows])
    return out.clamp_(0, 1)


def _apply(model: Tensor, guide: Tensor) -> Tensor:
    return (model[:, :, :3] * guide[:, None]).sum(dim=2) + model[:, :, 3]


def resized_rows(x: Tensor, top: int, rows: int, height: int, width: int) -> Tensor:
    """Rows [top, top + rows) of the bilinear enlargement of `x` to height x width."""
    position = ((torch.arange(top, top + rows, device=x.device) + 0.5) * x.shape[-2] / height - 0.5).clamp(
        0, x.shape[-2] - 1
    )
    below = position.floor().long()
    above = (below + 1).clamp(max=x.shape[-2] - 1)
    weight = (position - below).to(x.dtype)[:, None]
    strip = x[..., below, :].lerp(x[..., above, :], weight)
    return interpolate(strip, size=(rows, width), mode="bilinear") if width != x.shape[-1] else strip
