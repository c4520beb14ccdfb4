"""SDR and gain map are cropped and flipped together, whatever their resolutions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from training.data.crop import Crop, apply_crop, bucket_sizes, nearest_bucket, plan_crop

SIDES = st.integers(40, 90)


def ramp(height: int, width: int) -> np.ndarray:
    """A picture whose red is the column and green the row, in [0,1]."""
    rows, columns = np.meshgrid(
        (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij"
    )
    return np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.float32)


@given(height=SIDES, width=SIDES, number=st.integers(0, 10**6), center=st.booleans())
def test_both_pictures_show_the_same_place(height: int, width: int, number: int, center: bool) -> None:
    crop = plan_crop((height, width), (32, 32), seed=1, number=number, center=center, flip=True)
    sdr = Image.fromarray((ramp(height, width) * 255).round().astype(np.uint8))
    full, half = ramp(height, width), ramp(height // 2, width // 2)
    pictures = [apply_crop(pixels, crop) for pixels in (sdr, full, half)]
    assert (pictures[0] - pictures[1]).abs().max() < 0.01
    assert (pictures[1] - pictures[2]).abs().max() < 0.03
    rising = bool(pictures[1][0, 0, -1] > pictures[1][0, 0, 0])
    assert rising is not crop.flip


@given(height=SIDES, width=SIDES, number=st.integers(0, 1000))
def test_a_crop_keeps_the_shape_of_things_and_takes_all_it_can(height: int, width: int, number: int) -> None:
    crop = plan_crop((height, width), (32, 48), seed=0, number=number, center=False, flip=False)
    seen = ((crop.bottom - crop.top) * height, (crop.right - crop.left) * width)
    assert np.isclose(seen[1] / seen[0], 48 / 32)
    assert np.isclose(max(seen[0] / height, seen[1] / width), 1)
    assert crop.left >= 0 and crop.top >= 0 and crop.right <= 1 + 1e-9 and crop.bottom <= 1 + 1e-9


@given(height=st.integers(8, 4000), width=st.integers(8, 4000), number=st.integers(0, 1000))
@example(height=524, width=914, number=0)
def test_a_crop_of_any_picture_to_any_bucket_lies_within_it(height: int, width: int, number: int) -> None:
    for size in bucket_sizes(384, 64):
        crop = plan_crop((height, width), size, seed=0, number=number, center=False, flip=False)
        assert crop.left >= 0 and crop.top >= 0


def test_a_centred_crop_is_in_the_middle_and_a_drawn_one_anywhere() -> None:
    def windows(center: bool) -> np.ndarray:
        crops = [
            plan_crop((64, 64), (16, 32), seed=0, number=n, center=center, flip=False) for n in range(200)
        ] + [plan_crop((64, 64), (32, 16), seed=0, number=n, center=center, flip=False) for n in range(200)]
        return np.array([(crop.left, crop.top) for crop in crops])

    assert np.allclose(windows(True), [(0, 0.25)] * 200 + [(0.25, 0)] * 200)
    top, left = windows(False)[:200, 1], windows(False)[200:, 0]
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.2
    for places in (top, left):
        assert places.min() < 0.02 and places.max() > 0.48 and abs(places.mean() - 0.25) < 0.03


def test_a_crop_is_cut_between_pixels_and_resized_without_overshoot() -> None:
    crop = Crop(0.13, 0.07, 0.63, 0.57, (10, 10))
    places = (np.arange(10) + 0.5) / 10 * 0.5
    found = apply_crop(ramp(40, 40), crop).numpy()
    assert np.allclose(found[0], 0.13 + places, atol=1e-5)
    assert np.allclose(found[1], (0.07 + places)[:, None], atol=1e-5)
    halves = Image.fromarray(np.repeat(np.uint8([[[0] * 3] * 20 + [[255] * 3] * 20]), 40, axis=0))
    edge = apply_crop(np.asarray(halves, np.float32) / 255, crop)
    assert edge.min() == 0 and edge.max() == 1 and apply_crop(halves, crop).max() == 1


def test_whatever_changes_a_crop_changes_its_label_and_the_seed_its_place() -> None:
    crop = Crop(0.1, 0.2, 0.5, 0.6, (32, 32))
    changes = [{"left": 0.0}, {"top": 0.0}, {"right": 1.0}, {"bottom": 1.0}, {"size": (8, 8)}, {"flip": True}]
    assert len({crop.label(), *(replace(crop, **change).label() for change in changes)}) == 7
    drawn = {
        plan_crop((64, 96), (32, 32), seed=seed, number=0, center=False, flip=False).left for seed in range(4)
    }
    assert len(drawn) == 4


def test_half_of_the_samples_are_mirrored() -> None:
    flips = [
        plan_crop((64, 64), (32, 32), seed=0, number=n, center=True, flip=True).flip for n in range(1000)
    ]
    assert 450 < sum(flips) < 550


def test_a_whole_picture_comes_back_as_it_is() -> None:
    pixels = torch.rand(3, 24, 40).movedim(0, -1).numpy()
    crop = plan_crop((24, 40), (24, 40), seed=0, number=0, center=True, flip=False)
    assert np.allclose(apply_crop(pixels, crop).movedim(0, -1).numpy(), pixels)


def test_buckets_have_about_the_same_area() -> None:
    buckets = bucket_sizes(512, 64)
    assert (512, 512) in buckets and nearest_bucket((480, 640), buckets) in {(448, 576), (448, 640)}
    for height, width in buckets:
        assert height % 64 == width % 64 == 0
        assert 0.85 < height * width / 512**2 < 1.15
        assert max(height / width, width / height) <= 2
