import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gm_core.errors import GainMapError
from gm_core.statistics import BINS_PER_STOP, HISTOGRAM_STOPS, hdr_statistics


def grey(*values: float) -> torch.Tensor:
    """One row of grey pixels."""
    return torch.tensor(values).reshape(1, 1, 1, -1).expand(1, 3, 1, -1).clone()


def test_an_sdr_picture_is_not_hdr():
    found = hdr_statistics(torch.rand(2, 3, 16, 16))
    white = hdr_statistics(torch.ones(1, 3, 4, 4))
    assert found.stops_above_white == white.stops_above_white == 0
    assert found.share_above_white == white.share_above_white == 0
    assert white.peak_nits == pytest.approx(203) and white.clipped_share == 1


def test_known_values():
    found = hdr_statistics(grey(0.0, 0.5, 1.0, 8.0), white_nits=100.0)
    assert found.pixels == 4 and found.negative == 0
    assert found.peak_nits == pytest.approx(800) and found.average_nits == pytest.approx(237.5)
    assert found.stops_above_white == pytest.approx(3)
    assert found.share_above_white == found.clipped_share == 0.25
    assert found.percentile_nits[50.0] == pytest.approx(50) and found.percentile_nits[99.9] == pytest.approx(
        800
    )


def test_luminance_is_weighted_by_the_primaries():
    blue = torch.tensor([0.0, 0, 10]).reshape(1, 3, 1, 1)
    assert hdr_statistics(blue, white_nits=100).peak_nits == pytest.approx(72.2, abs=0.1)
    assert hdr_statistics(blue, primaries="bt2020", white_nits=100).peak_nits == pytest.approx(59.3, abs=0.1)


def test_broken_values_are_counted_and_left_out():
    hdr = grey(1.0, 2.0, 3.0, 4.0)
    hdr[0, 0, 0, 0], hdr[0, 1, 0, 1], hdr[0, 2, 0, 2] = math.nan, math.inf, -math.inf
    found = hdr_statistics(hdr)
    assert (found.nan, found.infinite, found.negative) == (1, 2, 1)
    assert found.peak_nits == pytest.approx(4 * 203) and found.share_above_white == 0.25
    assert sum(found.histogram) == pytest.approx(0.25)


def test_a_picture_without_a_finite_pixel_gives_zeros():
    found = hdr_statistics(torch.full((1, 3, 2, 2), math.nan))
    assert found.peak_nits == found.average_nits == found.stops_above_white == found.clipped_share == 0
    assert found.nan == 12 and set(found.percentile_nits.values()) == {0.0}


def test_a_batch_is_measured_as_one_picture():
    batch = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)).exp()
    batch[0, 0, 0, 0], batch[1] = math.nan, -batch[1]
    one = batch.movedim(0, 1).reshape(1, 3, 24, 8)
    assert hdr_statistics(batch) == hdr_statistics(one)


def test_colours_outside_a_gamut():
    red = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1)
    assert hdr_statistics(red, primaries="bt2020", gamut="bt709").out_of_gamut_share == 1
    assert hdr_statistics(red, primaries="bt709", gamut="bt2020").out_of_gamut_share == 0
    assert hdr_statistics(red - 0.1).out_of_gamut_share == 1


def test_a_ceiling_shows_as_clipped_share():
    ramp = torch.linspace(0, 10, 100).tolist()
    assert hdr_statistics(grey(*ramp)).clipped_share == 0.01
    assert hdr_statistics(grey(*(min(v, 5.0) for v in ramp))).clipped_share == pytest.approx(0.5, abs=0.01)


def test_a_ceiling_of_one_channel_is_one():
    sunset = grey(0.5, 0.5, 0.5, 0.5)
    sunset[:, 0, :, 1:] = 4.0
    assert hdr_statistics(sunset).clipped_share == 0.75


def test_colours_below_black_have_no_light():
    found = hdr_statistics(grey(-2.0, -1.0))
    assert found.negative == 6
    assert found.peak_nits == found.average_nits == found.percentile_nits[1.0] == 0


@given(stop=st.integers(HISTOGRAM_STOPS[0], HISTOGRAM_STOPS[1] - 1))
def test_the_histogram_counts_stops_around_white(stop):
    found = hdr_statistics(grey(1.1 * 2.0**stop)).histogram
    assert found[(stop - HISTOGRAM_STOPS[0]) * BINS_PER_STOP] == 1


def test_what_lies_outside_the_histogram_is_in_its_ends():
    found = hdr_statistics(grey(0.0, 2.0 ** HISTOGRAM_STOPS[1], 1e6)).histogram
    assert len(found) == (HISTOGRAM_STOPS[1] - HISTOGRAM_STOPS[0]) * BINS_PER_STOP
    assert (found[0], found[-1]) == pytest.approx((1 / 3, 2 / 3))


@given(st.lists(st.floats(0, 2.0**14, width=32), min_size=1, max_size=50))
def test_every_pixel_is_in_the_histogram_and_percentiles_rise(values):
    found = hdr_statistics(grey(*values))
    nits = list(found.percentile_nits.values())
    assert sum(found.histogram) == pytest.approx(1)
    assert nits == sorted(nits) and nits[-1] <= found.peak_nits


def test_an_unknown_gamut_is_named():
    with pytest.raises(GainMapError, match="'srgb'; expected one of bt709"):
        hdr_statistics(grey(1.0), gamut="srgb")
