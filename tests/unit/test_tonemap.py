import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_core.gain_map import GainMapSpec, merge_hdr
from gm_core.tonemap import (
    DISPLAY_OPERATORS,
    STAGE1_OPERATORS,
    analytic_gain_map,
    fix_mulog_tmo,
    gamut_reduce,
)

Q49 = GainMapSpec(qmax=49)


def pixel(*rgb: float) -> torch.Tensor:
    return torch.tensor(rgb, dtype=torch.float32).reshape(1, 3, 1, 1)


def grid(side: int) -> torch.Tensor:
    axis = torch.linspace(0, 1, side)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).reshape(1, 3, side, -1)


@pytest.mark.parametrize(
    ("name", "hdr", "sdr"),
    [
        ("hard_clip_tmo", 0.4, 0.4),
        ("hard_clip_tmo", 7.0, 1.0),
        ("linear_scale_tmo", 25.0, 0.5),
        ("fix_mulog_tmo", 0.0, 0.0),
        ("fix_mulog_tmo", 1.0, 0.385724),
        ("fix_mulog_tmo", 2.138303, 0.5),
        ("fix_mulog_tmo", 50.0, 1.0),
        ("fix_mulog_tmo", 50.765625, 1.0),
    ],
)
def test_stage1_operators_golden_numbers(name, hdr, sdr):
    assert_close(
        STAGE1_OPERATORS[name](pixel(hdr, hdr, hdr), qmax=49), pixel(sdr, sdr, sdr), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("name", STAGE1_OPERATORS)
@given(a=st.floats(0, 51), b=st.floats(0, 51))
def test_stage1_operators_are_monotone(name, a, b):
    low, high = sorted((a, b))
    operator = STAGE1_OPERATORS[name]
    assert operator(pixel(low, 0, 0), qmax=49)[0, 0] <= operator(pixel(high, 0, 0), qmax=49)[0, 0]


def test_stage1_chain_passes_gradients_to_the_gain_map():
    sdr, gain_map = torch.rand(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.2, requires_grad=True)
    hdr = merge_hdr(sdr=sdr, gain_map=gain_map, spec=Q49)
    fix_mulog_tmo(hdr, qmax=49).sum().backward()
    assert (gain_map.grad > 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_operators_return_float32(dtype):
    hdr = (torch.rand(1, 3, 4, 4) * 5).to(dtype)
    for operator in STAGE1_OPERATORS.values():
        assert operator(hdr, qmax=49).dtype == torch.float32
    for operator in DISPLAY_OPERATORS.values():
        assert operator(hdr).dtype == torch.float32


def test_gamut_reduction_keeps_greys_and_clips():
    assert_close(gamut_reduce(pixel(0.3, 0.3, 0.3)), pixel(0.3, 0.3, 0.3))
    assert_close(gamut_reduce(pixel(1.0, 0.0, 0.0)), pixel(1.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("sdr", "qmax", "gain_map", "hdr"),
    [
        ((1, 1, 1), 49, (0.9846,) * 3, (50,) * 3),
        ((1, 1, 1), 99, (0.9846,) * 3, (100,) * 3),
        ((0.5, 0.5, 0.5), 49, (0.1680,) * 3, (2.138,) * 3),
        ((0.5, 0.5, 0.5), 99, (0.1758,) * 3, (4.277,) * 3),
        ((1, 0, 0), 49, (0.0772, 0.0701, 0.0140), (4.842, 0.054, 0.011)),
        ((0, 1, 0), 49, (0.881, 0.588, 0.095), (0.674, 30.28, 0.073)),
        ((0, 0, 1), 49, (0.040, 0.0096, 0.504), (0.031, 0.007, 26.08)),
        ((0.9, 0.7, 0.6), 49, (0.3933, 0.3391, 0.2464), (16.38, 8.297, 4.439)),
    ],
)
def test_closed_form_golden_numbers(sdr, qmax, gain_map, hdr):
    spec = GainMapSpec(qmax=qmax)
    best = analytic_gain_map(pixel(*sdr), spec=spec)
    assert_close(best, pixel(*gain_map), rtol=0, atol=5e-4)
    assert_close(merge_hdr(sdr=pixel(*sdr), gain_map=best, spec=spec), pixel(*hdr), rtol=3e-4, atol=6e-4)


def test_closed_form_of_the_greys():
    greys = torch.tensor([0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]).expand(1, 3, 1, 12)
    expected = [0, 0.0421, 0.0743, 0.0996, 0.1122, 0.1329, 0.168, 0.2242, 0.3116, 0.4467, 0.6564, 0.9846]
    assert_close(analytic_gain_map(greys, spec=Q49)[0, 1, 0], torch.tensor(expected), rtol=0, atol=6e-5)


def test_closed_form_reconstructs_the_sdr_picture():
    sdr = grid(33)
    hdr = merge_hdr(sdr=sdr, gain_map=analytic_gain_map(sdr, spec=Q49), spec=Q49)
    error = (gamut_reduce(fix_mulog_tmo(hdr, qmax=49)) - sdr).abs()
    assert error.mean() < 1e-4 and error.max() < 0.067


@pytest.mark.parametrize("name", DISPLAY_OPERATORS)
def test_display_operators_stay_displayable(name):
    hdr = torch.randn(2, 3, 8, 8).exp() * 4 - 1
    before = hdr.clone()
    shown = DISPLAY_OPERATORS[name](hdr)
    assert shown.shape == hdr.shape and shown.min() >= 0 and shown.max() <= 1
    assert torch.equal(hdr, before)


@pytest.mark.parametrize("name", DISPLAY_OPERATORS)
def test_an_infinite_pixel_is_shown_as_the_brightest(name):
    shown = DISPLAY_OPERATORS[name](torch.tensor([0.5, float("inf")]).expand(1, 3, 1, 2))
    assert shown.isfinite().all()


def test_false_colour_of_what_is_no_number_is_a_colour():
    infinite = float("inf")
    hdr = torch.tensor([[infinite, -infinite, 1.0], [float("nan"), 1.0, 1.0]]).T[None, :, None]
    assert DISPLAY_OPERATORS["false colour"](hdr).isfinite().all()


def test_reinhard_shows_a_picture_without_highlights_as_it_is():
    linear = torch.rand(1, 3, 4, 4)
    assert_close(DISPLAY_OPERATORS["reinhard"](linear), DISPLAY_OPERATORS["clip"](linear))


def test_reinhard_maps_the_peak_to_white():
    shown = DISPLAY_OPERATORS["reinhard"](torch.tensor([1.0, 40.0]).expand(1, 3, 1, 2))
    assert shown[0, 0, 0, 1] > 0.9999 and 0.7 < shown[0, 0, 0, 0] < 0.8


def test_false_colour_changes_with_every_stop_above_white():
    stops = torch.tensor([0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5])
    colours = DISPLAY_OPERATORS["false colour"]((2**stops).expand(1, 3, 1, 7))[0, :, 0].T
    assert len({tuple(colour) for colour in colours.tolist()}) == 7
    grey = DISPLAY_OPERATORS["false colour"](pixel(0.2, 0.2, 0.2))
    assert_close(grey, DISPLAY_OPERATORS["clip"](pixel(0.2, 0.2, 0.2)))
