"""Between the user's picture and the model's small one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gm_core import resample


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 512))
def test_working_size_is_a_multiple_of_8_and_never_enlarges(height, width, side):
    h, w = resample.working_size(height, width, side)
    assert h % 8 == w % 8 == 0
    assert h <= max(8, height + 7) and w <= max(8, width + 7)


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
