import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_core.errors import GainMapError
from gm_core.hdr_signal import SIGNALS, decode_signal, encode_signal, hlg_light, hlg_signal


def grey(value: float) -> torch.Tensor:
    return torch.full((1, 3, 1, 1), value)


@pytest.mark.parametrize(
    ("signal", "nits", "code"),
    [
        ("HDR PQ", 0.0, 0.0),
        ("HDR PQ", 100.0, 0.5081),
        ("HDR PQ", 203.0, 0.5806),
        ("HDR PQ", 1000.0, 0.7518),
        ("HDR PQ", 10000.0, 1.0),
        # BT.2408: HLG reference white is 75 % of the signal, 203 nits on a display of 1000 nits.
        ("HDR (HLG)", 203.0, 0.75),
        ("HDR (HLG)", 0.0, 0.0),
        ("HDR (HLG)", 1000.0, 1.0),
        # BT.2408: an 18 % grey card is 38 % of the signal, 26 nits.
        ("HDR (HLG)", 26.0, 0.38),
    ],
)
def test_golden_codes(signal, nits, code):
    coded = encode_signal(grey(nits / 203), signal, primaries="bt709")
    assert_close(coded, grey(code), rtol=0, atol=2e-3 if signal == "HDR (HLG)" else 1e-4)


@pytest.mark.parametrize("signal", SIGNALS)
@given(
    rgb=st.lists(st.floats(0, 4.5, width=32), min_size=3, max_size=3),
    white=st.sampled_from([100.0, 203.0]),
    primaries=st.sampled_from(["bt709", "bt2020"]),
)
def test_decoding_gives_back_what_the_signal_can_hold(signal, rgb, white, primaries):
    hdr = torch.tensor(rgb).reshape(1, 3, 1, 1)
    coded = encode_signal(hdr, signal, primaries=primaries, white_nits=white)
    back = decode_signal(coded, signal, primaries=primaries, white_nits=white)
    # A saturated colour may need more than HLG's full signal, which is then cut.
    if coded.max() < 1 or signal == "linear":
        assert_close(back, hdr, rtol=2e-3, atol=2e-3)


def test_hlg_of_one_channel_beyond_the_display_leaves_the_others():
    """Red of 2000 nits, green of 500: luminance 0.8644 of the display, scene green 0.5 x 0.8644^(-1/6)."""
    nits = torch.tensor([2000.0, 500.0, 0.0]).reshape(1, 3, 1, 1)
    assert_close(hlg_signal(nits).flatten(), torch.tensor([1.0, 0.876200, 0.0]), rtol=0, atol=1e-4)


@given(st.floats(0, 1, width=32))
def test_hlg_is_its_own_inverse_on_grey(code):
    assert_close(hlg_signal(hlg_light(grey(code))), grey(code), rtol=0, atol=2e-4)


def test_linear_keeps_everything_and_is_bt709():
    hdr = torch.tensor([[-0.5, 0.0, 90.0]]).reshape(1, 3, 1, 1)
    assert torch.equal(encode_signal(hdr, "linear", primaries="bt709"), hdr)
    red = encode_signal(torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1), "linear", primaries="bt2020")
    assert red[0, 0] > 1.6 and red[0, 1] < 0


def test_black_and_infinite_light_stay_finite():
    for signal in ("HDR PQ", "HDR (HLG)"):
        coded = encode_signal(
            torch.tensor([0.0, 1e30, -5.0]).reshape(3, 1, 1, 1).expand(3, 3, 1, 1), signal, primaries="bt2020"
        )
        assert torch.isfinite(coded).all() and coded.min() >= 0 and coded.max() <= 1


def test_an_unknown_signal_is_named():
    with pytest.raises(GainMapError, match="'S-Log'; expected one of HDR PQ"):
        encode_signal(grey(1), "S-Log", primaries="bt709")
