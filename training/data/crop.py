"""One crop and one flip for every picture of a row, whatever their resolutions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.random_streams import generator

Pixels = Image.Image | NDArray[np.float32]


@dataclass(frozen=True)
class Crop:
    """A window in fractions of the picture, so that it selects the same content at any resolution.

    Args:
        left, top, right, bottom: in [0, 1].
        size: (height, width) of the result in pixels.
        flip: mirror left and right.
    """

    left: float
    top: float
    right: float
    bottom: float
    size: tuple[int, int]
    flip: bool = False

    def label(self) -> str:
        """Text that is equal for equal crops."""
        return f"{self.left:.6f},{self.top:.6f},{self.right:.6f},{self.bottom:.6f},{self.size},{self.flip}"


def plan_crop(
    picture: tuple[int, int], size: tuple[int, int], *, seed: int, number: int, center: bool, flip: bool
) -> Crop:
    """The largest window of the target's shape, at the centre or at a place drawn for sample `number`.

    Args:
        picture: (height, width) of the source.
        size: (height, width) of the result.
        flip: mirror with probability 1/2.
    """
    scale = min(picture[0] / size[0], picture[1] / size[1])
    # Rounded up, a whole side would begin outside of the picture, which Pillow refuses.
    height, width = (min(1.0, wanted * scale / found) for wanted, found in zip(size, picture, strict=True))
    draws = torch.rand(3, generator=generator(seed, "crop", number)).tolist()
    place = (0.5, 0.5) if center else (draws[0], draws[1])
    left, top = (1 - width) * place[0], (1 - height) * place[1]
    return Crop(left, top, left + width, top + height, size, flip and draws[2] < 0.5)


def apply_crop(pixels: Pixels, crop: Crop) -> Tensor:
    """Crop, resize (bilinear, antialiased) and flip.

    Args:
        pixels: 8-bit RGB picture, or float [H,W,3].

    Returns:
        [3,H,W] float32; an 8-bit picture comes out in [0,1].
    """
    if isinstance(pixels, Image.Image):
        resized = np.asarray(_resize(pixels, crop), np.float32) / 255
    else:
        channels = [Image.fromarray(np.ascontiguousarray(pixels[..., c], np.float32)) for c in range(3)]
        resized = np.stack([np.asarray(_resize(channel, crop)) for channel in channels], axis=-1)
    if crop.flip:
        resized = resized[:, ::-1]
    return torch.from_numpy(np.ascontiguousarray(resized)).movedim(-1, 0)


def bucket_sizes(resolution: int, step: int, *, longest: float = 2.0) -> list[tuple[int, int]]:
    """(height, width) pairs of about resolution² pixels, multiples of `step`, sides up to `longest` to 1."""
    sizes = set()
    width = step
    while width <= resolution * longest:
        height = max(step, int(resolution * resolution / width / step + 0.5) * step)
        if max(width / height, height / width) <= longest:
            sizes.add((height, width))
        width += step
    return sorted(sizes | {(resolution, resolution)})


def nearest_bucket(picture: tuple[int, int], buckets: list[tuple[int, int]]) -> tuple[int, int]:
    """The bucket whose shape loses least of a picture of (height, width)."""
    ratio = np.log(picture[0] / picture[1])
    return min(buckets, key=lambda size: (abs(np.log(size[0] / size[1]) - ratio), size))


def _resize(image: Image.Image, crop: Crop) -> Image.Image:
    box = (
        crop.left * image.width,
        crop.top * image.height,
        min(crop.right * image.width, image.width),
        min(crop.bottom * image.height, image.height),
    )
    return image.resize((crop.size[1], crop.size[0]), Image.Resampling.BILINEAR, box=box)
