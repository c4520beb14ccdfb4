import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_core.errors import GainMapError
from gm_core.gain_coding import GainCoding, restate_coded
from gm_core.gain_map import GainMapSpec, merge_hdr

SPEC = GainMapSpec()
LOG2 = GainCoding("log2", -3.0, 5.0)


def test_linear_coding_is_the_gain_map_itself():
    gain_map = torch.rand(1, 3, 4, 4)
    assert torch.equal(GainCoding().to_gain_map(gain_map, spec=SPEC), gain_map)
    assert torch.equal(GainCoding().from_gain_map(gain_map, spec=SPEC), gain_map)


@pytest.mark.parametrize(("coded", "gain"), [(0.0, 1 / 8), (0.375, 1.0), (1.0, 32.0)])
def test_log2_coding_golden_gains(coded, gain):
    gain_map = LOG2.to_gain_map(torch.tensor([coded]), spec=SPEC)
    assert_close(1 + gain_map * SPEC.qmax, torch.tensor([gain]))


@given(coded=st.floats(0, 1, width=32))
def test_log2_round_trip_keeps_gains_below_one(coded):
    picture = torch.tensor([coded])
    gain_map = LOG2.to_gain_map(picture, spec=SPEC)
    assert_close(LOG2.from_gain_map(gain_map, spec=SPEC), picture, rtol=0, atol=1e-5)
    assert (gain_map < 0).item() == (coded < 0.375)


@given(gain_map=st.floats(-1, 2, width=32))
def test_any_gain_map_is_coded_within_the_picture(gain_map):
    for coding in (GainCoding(), LOG2):
        coded = coding.from_gain_map(torch.tensor([gain_map]), spec=SPEC)
        assert 0 <= coded.item() <= 1


@pytest.mark.parametrize("coding", [GainCoding(), LOG2])
def test_half_precision_comes_out_float32_and_input_survives(coding):
    coded = torch.rand(1, 3, 4, 4).half() * 2 - 0.5
    before = coded.clone()
    assert coding.to_gain_map(coded, spec=SPEC).dtype == torch.float32
    assert coding.from_gain_map(coded, spec=SPEC).dtype == torch.float32
    assert torch.equal(coded, before)


def test_coding_passes_gradients():
    coded = torch.rand(1, 3, 4, 4, requires_grad=True)
    LOG2.from_gain_map(LOG2.to_gain_map(coded * 0.98 + 0.01, spec=SPEC), spec=SPEC).sum().backward()
    assert_close(coded.grad, torch.full_like(coded, 0.98), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "arguments", [("gamma",), ("log2",), ("log2", 5.0, -3.0), ("log2", 0.0, 1e3), ("log2", 0.0, float("nan"))]
)
def test_unusable_codings_are_refused(arguments):
    with pytest.raises(GainMapError):
        GainCoding(*arguments)


@pytest.mark.parametrize(
    "spec", [GainMapSpec(qmax=49.0), GainMapSpec(qmax=49.0, gamma=2.4), GainMapSpec(qmax=49.0, offset=1 / 32)]
)
@pytest.mark.parametrize("coding", [GainCoding(), LOG2])
def test_a_stored_map_gives_the_same_hdr_under_other_constants(spec, coding):
    sdr, coded = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    wanted = GainMapSpec(qmax=999.0)
    restated = restate_coded(coded=coded, sdr=sdr, coding=coding, spec=spec, wanted=wanted)
    expected = merge_hdr(sdr=sdr, gain_map=coding.to_gain_map(coded, spec=spec), spec=spec)
    assert_close(merge_hdr(sdr=sdr, gain_map=restated, spec=wanted), expected, rtol=1e-4, atol=1e-4)


def test_linear_coding_refuses_a_log2_range():
    with pytest.raises(GainMapError, match="linear encoding has none"):
        GainCoding("linear", -3.0, 5.0)
