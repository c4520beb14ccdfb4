import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator
from torch.testing import assert_close

from gm_core.errors import GainMapError, ModelFileError
from gm_core.gain_coding import GainCoding
from gm_core.tone.apply import full_size_map
from gm_core.tone.curves import KNOTS, ToneCurves, fit_curves
from gm_core.tone.knots import smoothed
from gm_core.tone.net import PhoneNet, ToneNet
from gm_core.tone.reading import tone_consensus
from gm_core.tone.statistics import STATISTICS, picture_statistics

CODING = GainCoding(encoding="log2", log2_min=-3.0, log2_max=5.0)


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth colours with every value in them."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)


def random_net(seed: int = 0) -> ToneNet:
    torch.manual_seed(seed)
    return ToneNet(width=16).eval().requires_grad_(False)


def net_with_phones(verdict: float) -> ToneNet:
    """A net with one for phones, whose judge always gives the same verdict."""
    net = random_net()
    net.phones = PhoneNet(width=16).eval().requires_grad_(False)
    net.phones.judge[-1].weight.zero_()
    net.phones.judge[-1].bias.fill_(verdict)
    return net


def curves(seed: int) -> ToneCurves:
    generator = torch.Generator().manual_seed(seed)
    return ToneCurves(*(torch.randn(1, KNOTS, generator=generator) for _ in range(2)))


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (96, 96), (500, 333)])
def test_any_picture_has_finite_statistics(size):
    statistics = picture_statistics(picture(*size))
    assert statistics.shape == (1, STATISTICS)
    assert torch.isfinite(statistics).all() and statistics.abs().max() < 20


def test_statistics_do_not_know_left_from_right():
    sdr = picture(96, 128)
    assert_close(picture_statistics(sdr), picture_statistics(sdr.flip(-1)), rtol=1e-4, atol=1e-4)


def test_batch_row_equals_single_picture():
    batch = torch.cat([picture(120, 100, seed) for seed in range(3)])
    assert_close(picture_statistics(batch)[1:2], picture_statistics(batch[1:2]))


@given(seed=st.integers(0, 1000))
def test_fit_finds_the_curves_that_made_a_map(seed):
    sdr, made_by = picture(64, 64, seed), curves(seed)
    gain = made_by.gain(sdr)
    assert (fit_curves(sdr, gain).gain(sdr) - gain).square().mean().sqrt() < 0.1


@given(seed=st.integers(0, 1000))
def test_rising_curves_never_darken_brighter_greys(seed):
    greys = torch.linspace(0, 1, 200).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    before, after = curves(seed).gain(greys)[0, 0, 0], curves(seed).rising().gain(greys)[0, 0, 0]
    assert (after[100:].diff() >= -1e-5).all() and after[100:].min() >= -1e-5
    assert (after >= before - 1e-5).all()
    assert_close(after[:87], before[:87])


@given(seed=st.integers(0, 1000), turns=st.booleans())
def test_smooth_curves_are_scipy_s_monotone_cubic(seed, turns):
    values = (
        torch.rand(2, KNOTS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5 * turns
    )
    values = values.round(decimals=1).cumsum(dim=1)
    at = np.linspace(0, 1, 8 * (KNOTS - 1) + 1)
    wanted = PchipInterpolator(at[::8], values.numpy(), axis=1)(at)
    assert_close(smoothed(values, 8), torch.from_numpy(wanted), rtol=0, atol=1e-12)


@given(seed=st.integers(0, 1000))
def test_smoothed_curves_darken_no_brighter_grey_and_keep_their_knots(seed):
    rising = curves(seed).rising()
    greys = torch.linspace(0, 1, 16 * (KNOTS - 1) + 1).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    gain = rising.smoothed().gain(greys)[0, 0, 0]
    assert (gain[128:].diff() >= -1e-5).all()
    assert_close(gain[::16], rising.gain(greys)[0, 0, 0, ::16], rtol=0, atol=1e-5)


@given(seed=st.integers(0, 1000))
def test_cautious_gain_is_never_more_and_the_same_for_greys_and_below_white(seed):
    sdr, made_by = picture(40, 40, seed), curves(seed)
    plain, cautious = made_by.gain(sdr), made_by.cautious_gain(sdr)
    assert (cautious <= plain + 1e-5).all()
    assert_close(cautious[sdr < 0.85], plain[sdr < 0.85])
    grey = sdr[:, :1].expand(-1, 3, -1, -1)
    assert_close(made_by.cautious_gain(grey), made_by.gain(grey), rtol=0, atol=1e-4)


def test_a_channel_that_clips_alone_gains_less_than_white():
    steep = ToneCurves(torch.linspace(0, 1, KNOTS)[None] ** 8, torch.zeros(1, KNOTS))
    blue = steep.cautious_gain(torch.tensor([0.5, 0.6, 1.0]).view(1, 3, 1, 1))[0, 2]
    white = steep.cautious_gain(torch.ones(1, 3, 1, 1))[0, 2]
    assert blue < 0.3 * white


def corrected(sdr: torch.Tensor, coded: torch.Tensor, **options) -> torch.Tensor:
    return full_size_map(coded, sdr, coding=CODING, net=random_net(), **options)


def test_full_strength_lies_between_the_map_and_the_net_s_curves():
    sdr = picture(64, 64)
    painted, inferred = curves(1), random_net()(picture_statistics(sdr))
    wanted = tone_consensus(painted, inferred).rising().smoothed().cautious_gain(sdr)
    gain = corrected(sdr, (painted.gain(sdr) - CODING.log2_min) / 8) * 8 + CODING.log2_min
    assert_close(gain, wanted, rtol=0, atol=0.15)


def test_equal_tones_gain_equally_wherever_they_are():
    """What a map paints into one place is noise of its latent, unless all such tones are painted so."""
    sdr = picture(64, 64).repeat(1, 1, 1, 2)
    coded = torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    left, right = corrected(sdr, coded).chunk(2, dim=-1)
    assert_close(left, right)


@given(seed=st.integers(0, 100))
def test_greys_stay_grey(seed):
    grey = picture(40, 56, seed)[:, :1].expand(-1, 3, -1, -1)
    tinted = picture(40, 56, seed + 1)
    gain = corrected(grey, tinted)
    assert_close(gain, gain.mean(dim=1, keepdim=True).expand_as(gain), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_picture_of_half_precision_is_one_of_the_same_values(dtype):
    sdr, coded = picture(40, 56).to(dtype), torch.full((1, 3, 32, 48), 0.4)
    assert_close(corrected(sdr, coded), corrected(sdr.float(), coded))


def test_strength_zero_changes_nothing():
    sdr, coded = picture(32, 48), torch.full((1, 3, 32, 48), 0.4)
    assert_close(corrected(sdr, coded, strength=0.0), coded)


def test_a_linear_map_has_no_stops_to_correct():
    sdr = picture(32, 32)
    with pytest.raises(GainMapError, match="linear"):
        full_size_map(sdr, sdr, net=random_net(), coding=GainCoding())


def test_weights_come_back_as_the_same_net():
    net, statistics = random_net(), picture_statistics(picture(50, 50))
    again = ToneNet.from_weights(net.state_dict(), "model.safetensors")
    assert_close(again(statistics).by_channel, net(statistics).by_channel)


def test_the_judge_says_how_much_of_the_phones_net_to_believe():
    statistics = picture_statistics(picture(50, 50))
    never, always, half = (net_with_phones(verdict) for verdict in (-30.0, 30.0, 0.0))
    phones = always.phones
    assert phones is not None
    own = phones.layers(statistics).split(KNOTS, dim=1)
    assert_close(never(statistics).by_channel, random_net()(statistics).by_channel)
    assert_close([always(statistics).by_channel, always(statistics).by_largest], list(own))
    assert_close(half(statistics).by_largest, (never(statistics).by_largest + own[1]) / 2)


def test_the_phones_net_travels_with_the_tone_net():
    net, statistics = net_with_phones(1.0), picture_statistics(picture(50, 50))
    again = ToneNet.from_weights(net.state_dict(), "model.safetensors")
    assert_close(again(statistics).by_largest, net(statistics).by_largest)


def test_wrong_weights_are_refused_by_file_name():
    weights = {**random_net().state_dict(), "layers.3.weight": torch.zeros(3, 3)}
    with pytest.raises(ModelFileError, match=r"model\.safetensors.*tone net"):
        ToneNet.from_weights(weights, "model.safetensors")
