"""Between the user's picture and the model's small one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gm_core import resample


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 512))
def test_working_size_is_a_multiple_of_8_and_never_enlarges(height, width, side):
    h, w = resample.working_size(height, width, side)
    assert h % 8 == w % 8 == 0
    assert 8 <= h <= max(8, height + 7) and 8 <= w <= max(8, width + 7)


def test_short_side_is_the_requested_one():
    assert resample.working_size(1080, 1920, 256) == (256, 456)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (31, 65), (300, 411)])
def test_constant_map_stays_constant_at_any_size(size):
    guide = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    out = resample.upsample_gain_map(torch.full((1, 3, 16, 24), 0.4), guide)
    assert out.shape == (1, 3, *size)
    assert torch.allclose(out, torch.full_like(out, 0.4), atol=1e-4)


def test_map_follows_the_edge_of_the_picture():
    guide = torch.zeros(1, 3, 64, 64)
    guide[..., 29:] = 1.0
    small = torch.nn.functional.interpolate(guide, size=(16, 16), mode="bilinear", antialias=True)
    out = resample.upsample_gain_map(0.2 + 0.5 * small, guide)
    assert (out[..., :28] - 0.2).abs().max() < 0.03
    assert (out[..., 30:] - 0.7).abs().max() < 0.03


def guided_filter(guide: np.ndarray, target: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """He et al. 2013, equations 19 to 21, window by window; [h,w,3] and [h,w,C]."""
    height, width = guide.shape[:2]

    def window(values, y, x):
        part = values[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
        return part.reshape(-1, *values.shape[2:])

    slope, bias = np.empty((height, width, 3, target.shape[2])), np.empty(target.shape)
    for y, x in np.ndindex(height, width):
        seen, wanted = window(guide, y, x), window(target, y, x)
        covariance = np.cov(seen.T, bias=True) + epsilon * np.eye(3)
        cross = seen.T @ wanted / len(seen) - np.outer(seen.mean(0), wanted.mean(0))
        slope[y, x] = np.linalg.solve(covariance, cross)
        bias[y, x] = wanted.mean(0) - seen.mean(0) @ slope[y, x]
    out = np.empty(target.shape)
    for y, x in np.ndindex(height, width):
        out[y, x] = guide[y, x] @ window(slope, y, x).mean(0) + window(bias, y, x).mean(0)
    return out


def test_it_is_the_guided_filter_of_the_paper():
    generator = torch.Generator().manual_seed(2)
    guide = torch.rand(1, 3, 11, 14, generator=generator)
    coded = torch.tensor([0.1, 0.4, 0.6]).view(1, 3, 1, 1) + 0.3 * guide[:, [1, 2, 0]].square()
    out = resample.upsample_gain_map(coded, guide, radius=2, epsilon=1e-3)
    first, second = (x[0].double().movedim(0, -1).numpy() for x in (guide, coded))
    expected = guided_filter(first, second, 2, 1e-3)
    np.testing.assert_allclose(out[0].movedim(0, -1), np.clip(expected, 0, 1), atol=1e-4)


def test_a_map_of_the_pictures_size_stays_in_range():
    generator = torch.Generator().manual_seed(3)
    guide = torch.rand(1, 3, 16, 16, generator=generator)
    coded = (guide > 0.5).float()
    out = resample.upsample_gain_map(coded, guide)
    assert out.min() == 0 and out.max() == 1


def test_fine_texture_of_the_picture_is_averaged_not_picked():
    """The map of a picture of columns 0, 1, 1 knows nothing of single columns: it must not show them."""
    guide = (torch.arange(96) % 3 > 0).float().expand(1, 3, 96, 96).clone()
    guide[..., 48:] = 1 - guide[..., 48:]
    coded = torch.nn.functional.avg_pool2d(guide, 3)
    out = resample.upsample_gain_map(coded, guide)
    columns = torch.nn.functional.avg_pool2d(out, 3)[..., 2:-2]
    assert torch.allclose(columns, coded[..., 2:-2], atol=0.05)


@pytest.mark.parametrize("size", [(24, 24), (61, 37)])
def test_rows_are_those_of_torchs_bilinear_enlargement(size):
    x = torch.rand(1, 2, 9, 7, generator=torch.Generator().manual_seed(4))
    whole = torch.nn.functional.interpolate(x, size=size, mode="bilinear")
    assert torch.allclose(resample.resized_rows(x, 5, 16, *size), whole[:, :, 5:21], atol=1e-5)


def test_strips_equal_the_whole(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    coded = torch.rand(2, 3, 24, 16, generator=generator)
    guide = torch.rand(2, 3, 201, 133, generator=generator)
    whole = resample.upsample_gain_map(coded, guide)
    monkeypatch.setattr(resample, "ROWS_PER_STRIP", 17)
    assert torch.allclose(resample.upsample_gain_map(coded, guide), whole, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_output_stays_in_range_whatever_the_map(seed):
    generator = torch.Generator().manual_seed(seed)
    coded = torch.rand(1, 3, 8, 8, generator=generator)
    guide = torch.rand(1, 3, 20, 28, generator=generator).round()
    out = resample.upsample_gain_map(coded, guide)
    assert torch.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
