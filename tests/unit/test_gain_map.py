import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_core.errors import GainMapError
from gm_core.gain_map import (
    GainMapSpec,
    blend_gain,
    cap_gain,
    extract_gain_map,
    fitting_spec,
    limit_darkening,
    merge_hdr,
    scale_gain,
)

PAPER = GainMapSpec()
unit = st.floats(0, 1, width=32)


def pixel(value: float, channels: int = 3) -> torch.Tensor:
    return torch.full((1, channels, 1, 1), value)


@pytest.mark.parametrize(
    ("sdr", "gain_map", "qmax", "hdr"),
    [
        (1.0, 0.0, 99, 1.0),
        (1.0, 1.0, 9, 10.140625),
        (1.0, 1.0, 49, 50.765625),
        (1.0, 1.0, 99, 101.546875),
        (0.0, 1.0, 9, 0.140625),
        (0.0, 1.0, 49, 0.765625),
        (0.0, 1.0, 99, 1.546875),
        (0.0, 0.0, 99, 0.0),
    ],
)
def test_equation_one_golden_numbers(sdr, gain_map, qmax, hdr):
    merged = merge_hdr(sdr=pixel(sdr), gain_map=pixel(gain_map), spec=GainMapSpec(qmax=qmax))
    assert_close(merged, pixel(hdr), rtol=0, atol=1e-5)


@given(sdr=unit, gain_map=unit, qmax=st.sampled_from([1.0, 9.0, 49.0, 99.0]))
def test_extract_inverts_merge(sdr, gain_map, qmax):
    spec = GainMapSpec(qmax=qmax)
    hdr = merge_hdr(sdr=pixel(sdr), gain_map=pixel(gain_map), spec=spec)
    assert_close(extract_gain_map(sdr=pixel(sdr), hdr=hdr, spec=spec), pixel(gain_map), rtol=1e-4, atol=1e-5)


@given(sdr=unit, gain=st.floats(0.2, 1))
def test_extract_keeps_darkening_on_request(sdr, gain):
    gain_map = pixel((gain - 1) / PAPER.qmax)
    hdr = merge_hdr(sdr=pixel(sdr), gain_map=gain_map, spec=PAPER)
    kept = extract_gain_map(sdr=pixel(sdr), hdr=hdr, spec=PAPER, darken=True)
    # HDR never goes below black, so a pixel darkened past it comes back at the gain that just reaches it.
    reachable = gain_map.clamp(min=(PAPER.offset / (sdr**2.2 + PAPER.offset) - 1) / PAPER.qmax)
    assert_close(kept, reachable, rtol=1e-4, atol=1e-5)
    assert extract_gain_map(sdr=pixel(sdr), hdr=hdr, spec=PAPER).min() >= 0


@given(a=unit, b=unit, other=unit)
def test_merge_is_monotone_in_both_inputs(a, b, other):
    low, high = pixel(min(a, b)), pixel(max(a, b))
    fixed = pixel(other)
    assert (
        merge_hdr(sdr=low, gain_map=fixed, spec=PAPER) <= merge_hdr(sdr=high, gain_map=fixed, spec=PAPER)
    ).all()
    assert (
        merge_hdr(sdr=fixed, gain_map=low, spec=PAPER) <= merge_hdr(sdr=fixed, gain_map=high, spec=PAPER)
    ).all()


def test_merge_clamps_to_the_range_of_the_equation():
    wild = torch.tensor([-5.0, 0.5, 7.0]).reshape(1, 3, 1, 1)
    hdr = merge_hdr(sdr=wild, gain_map=wild, spec=PAPER)
    assert hdr.min() == 0 and hdr.max() == pytest.approx(101.546875)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_becomes_float32(dtype):
    sdr = torch.rand(1, 3, 4, 4).to(dtype)
    hdr = merge_hdr(sdr=sdr, gain_map=sdr, spec=PAPER)
    assert hdr.dtype == torch.float32
    assert_close(hdr, merge_hdr(sdr=sdr.float(), gain_map=sdr.float(), spec=PAPER))
    assert extract_gain_map(sdr=sdr, hdr=hdr.to(dtype), spec=PAPER).dtype == torch.float32


def test_inputs_are_not_mutated():
    sdr, gain_map = torch.rand(2, 3, 4, 4) * 2 - 0.5, torch.rand(2, 1, 4, 4) * 2 - 0.5
    before = sdr.clone(), gain_map.clone()
    hdr = merge_hdr(sdr=sdr, gain_map=gain_map, spec=PAPER)
    extract_gain_map(sdr=sdr, hdr=hdr, spec=PAPER)
    scale_gain(gain_map=gain_map, strength=0.5, spec=PAPER)
    cap_gain(gain_map=gain_map, stops=1, spec=PAPER)
    assert torch.equal(sdr, before[0]) and torch.equal(gain_map, before[1])


@pytest.mark.parametrize(("sdr_batch", "map_batch"), [(1, 3), (3, 1), (3, 3)])
def test_batches_of_one_are_shared(sdr_batch, map_batch):
    sdr, gain_map = torch.rand(sdr_batch, 3, 2, 2), torch.rand(map_batch, 1, 2, 2)
    hdr = merge_hdr(sdr=sdr, gain_map=gain_map, spec=PAPER)
    assert hdr.shape == (3, 3, 2, 2)
    last = merge_hdr(sdr=sdr[-1:], gain_map=gain_map[-1:], spec=PAPER)
    assert_close(hdr[-1:], last)
    assert extract_gain_map(sdr=sdr, hdr=hdr, spec=PAPER).shape == (3, 3, 2, 2)


def test_gradient_of_merge_is_that_of_the_formula():
    sdr = torch.rand(1, 3, 5, 5, requires_grad=True)
    gain_map = torch.rand(1, 3, 5, 5, requires_grad=True)
    merge_hdr(sdr=sdr, gain_map=gain_map, spec=PAPER).sum().backward()
    d_sdr = 2.2 * sdr.detach() ** 1.2 * (1 + 99 * gain_map.detach())
    d_map = (sdr.detach() ** 2.2 + 1 / 64) * 99
    assert_close(sdr.grad, d_sdr)
    assert_close(gain_map.grad, d_map)


@pytest.mark.parametrize(
    ("sdr", "gain_map", "message"),
    [
        ((1, 3, 8, 8), (1, 3, 9, 8), "gain_map is 8x9 but sdr is 8x8"),
        ((2, 3, 8, 8), (3, 3, 8, 8), "batch of 3"),
        ((1, 3, 8, 8), (1, 2, 8, 8), "1 or 3"),
        ((1, 4, 8, 8), (1, 3, 8, 8), "sdr has shape"),
        ((3, 8, 8), (1, 3, 8, 8), "sdr has shape"),
    ],
)
def test_misfitting_shapes_are_named(sdr, gain_map, message):
    with pytest.raises(GainMapError, match=message):
        merge_hdr(sdr=torch.rand(sdr), gain_map=torch.rand(gain_map), spec=PAPER)


def test_integer_pixels_are_refused():
    with pytest.raises(GainMapError, match="uint8"):
        merge_hdr(
            sdr=torch.zeros(1, 3, 2, 2, dtype=torch.uint8), gain_map=torch.zeros(1, 3, 2, 2), spec=PAPER
        )


@pytest.mark.parametrize("qmax", [0, -1, float("nan"), float("inf"), 1e9, "99"])
def test_unusable_qmax_is_refused(qmax):
    with pytest.raises(GainMapError, match="qmax"):
        GainMapSpec(qmax=qmax)


@given(gain_map=st.floats(-1 / 99, 1), strength=st.floats(0, 1))
def test_scale_gain_is_a_power_of_the_gain(gain_map, strength):
    scaled = scale_gain(gain_map=pixel(gain_map), strength=strength, spec=PAPER)
    expected = ((1 + 99 * max(gain_map, -1 / 99)) ** strength - 1) / 99
    assert_close(scaled, pixel(expected), rtol=1e-4, atol=1e-5)


def test_scale_gain_takes_a_mask():
    mask = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    scaled = scale_gain(gain_map=torch.full((1, 3, 1, 2), 0.5), strength=mask, spec=PAPER)
    assert_close(scaled[0, :, 0].T, torch.tensor([[0.0] * 3, [0.5] * 3]))


@given(first=unit, second=unit, share=unit)
def test_blended_gain_lies_between_in_stops(first, second, share):
    blended = blend_gain(gain_map=pixel(first), other=pixel(second), share=pixel(share, 1), spec=PAPER)
    stops = [math.log2(1 + PAPER.qmax * value) for value in (first, second)]
    wanted = (2 ** (stops[0] + share * (stops[1] - stops[0])) - 1) / PAPER.qmax
    assert_close(blended, pixel(wanted), rtol=1e-4, atol=1e-5)


@given(channels=st.tuples(unit, unit, unit), stops=st.floats(0, 7))
def test_cap_gain_limits_the_brightest_channel_and_nothing_else(channels, stops):
    gain_map = torch.tensor(channels).reshape(1, 3, 1, 1)
    capped = cap_gain(gain_map=gain_map, stops=stops, spec=PAPER)
    stops_before, stops_after = (torch.log2(1 + 99 * g) for g in (gain_map, capped))
    assert stops_after.max() <= stops + 1e-3
    if stops_before.max() <= stops:
        assert_close(capped, gain_map, rtol=1e-4, atol=1e-6)


def test_negative_headroom_is_refused():
    with pytest.raises(GainMapError, match="stops"):
        cap_gain(gain_map=pixel(0.5), stops=-1, spec=PAPER)


@given(sdr=unit, gain=st.floats(0, 40), darkest=unit)
def test_limited_darkening_leaves_every_channel_some_light(sdr, gain, darkest):
    gain_map = pixel((gain - 1) / PAPER.qmax)
    limited = limit_darkening(sdr=pixel(sdr), gain_map=gain_map, darkest=darkest, spec=PAPER)
    hdr = merge_hdr(sdr=pixel(sdr), gain_map=limited, spec=PAPER)
    assert (hdr >= darkest * sdr**2.2 - 1e-5).all()
    if gain >= 1:
        assert_close(limited, gain_map)


def test_the_fitting_qmax_keeps_every_highlight_and_no_more():
    sdr = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    hdr = 700 * torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    hdr[0, 0, 0, 0] = torch.inf
    spec = fitting_spec(sdr=sdr, hdr=hdr)
    gain_map = extract_gain_map(sdr=sdr, hdr=hdr, spec=spec, darken=True)
    finite = torch.isfinite(hdr)
    assert_close(merge_hdr(sdr=sdr, gain_map=gain_map, spec=spec)[finite], hdr[finite], rtol=1e-4, atol=1e-4)
    assert gain_map[finite].amax().item() == pytest.approx(1, rel=1e-6)
    assert fitting_spec(sdr=sdr, hdr=sdr**2.2).qmax == 1


def test_the_fitting_qmax_of_a_sun_is_the_largest_there_is(caplog):
    hdr = torch.cat([pixel(0.5), pixel(1e5)], 3)
    spec = fitting_spec(sdr=hdr.clamp(max=1.0), hdr=hdr)
    assert spec.qmax == 65535 and "cut at 65535" in caplog.text
    gain_map = extract_gain_map(sdr=hdr.clamp(max=1.0), hdr=hdr, spec=spec)
    assert gain_map[..., 1].eq(1).all() and gain_map[..., 0].lt(1e-4).all()
