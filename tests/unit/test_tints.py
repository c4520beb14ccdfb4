"""Which colours the tint net may give clipped areas, and what it is told of those around."""

import pytest
import torch
from torch.testing import assert_close

from gm_core.gain_coding import GainCoding
from gm_core.tone.apply import full_size_map, gain_with_highlights
from gm_core.tone.clipping import NEAR_WHITE
from gm_core.tone.curves import KNOTS, ToneCurves
from gm_core.tone.look import look_at
from gm_core.tone.net import ToneNet
from gm_core.tone.reading import tint_stops
from gm_core.tone.tints import (
    ALONE,
    TINT_CLUES,
    TintNet,
    belief,
    carried_on,
    chroma,
    tint_clues,
    tinted_share,
)

CODING = GainCoding(encoding="log2", log2_min=-3.0, log2_max=5.0)
BLUE = torch.tensor([0.5, 0.7, 0.9]).view(1, 3, 1, 1)


def lively_net() -> TintNet:
    """A net that does not start at "none"."""
    torch.manual_seed(0)
    net = TintNet()
    torch.nn.init.normal_(net.leave.weight)
    return net.eval().requires_grad_(False)


def curves_rising_by(stops: float) -> ToneCurves:
    return ToneCurves(torch.zeros(1, KNOTS), torch.linspace(0, stops, KNOTS)[None])


def tone_net(tints: TintNet | None) -> ToneNet:
    """One whose curves rise to two stops, so that something was lost."""
    net = ToneNet(width=8).eval().requires_grad_(False)
    for parameter in net.layers[-1].parameters():
        parameter.zero_()
    net.layers[-1].bias[KNOTS:] = torch.linspace(0, 2, KNOTS)
    net.tints = tints
    return net


def sky(height: int = 90, width: int = 130) -> torch.Tensor:
    """Blue that brightens to white from left to right: blue clips first, red last."""
    return (BLUE * torch.linspace(0.6, 2.2, width)).clamp(max=1).expand(1, 3, height, width).contiguous()


def full_map(sdr: torch.Tensor, tints: TintNet | None) -> torch.Tensor:
    return full_size_map(torch.full((1, 3, 32, 48), 0.5), sdr, coding=CODING, net=tone_net(tints))


def clues_of(sdr: torch.Tensor) -> torch.Tensor:
    look = look_at(sdr)
    return tint_clues(look, torch.zeros_like(look))


def test_only_clipped_channels_change():
    sdr = sky()
    change = (full_map(sdr, lively_net()) - full_map(sdr, None)).abs()
    assert change[sdr <= NEAR_WHITE].max() == 0
    assert change[sdr == 1].max() > 0.01


def test_tints_come_gradually_where_the_other_channels_brighten():
    """Blue is clipped all along, the others rise: no step that would show as a ring."""
    rising = torch.linspace(0, 1, 200).view(1, 1, 1, -1)
    share = tinted_share(torch.cat([rising, rising, torch.ones_like(rising)], dim=1))[0, :, 0]
    assert (share[:, 0] == 0).all() and (share[:, -1] == 1).all()
    assert share[2].diff().amax() < 0.02


def test_an_untrained_net_changes_nothing():
    assert_close(full_map(sky(), TintNet()), full_map(sky(), None))


def test_no_channel_of_white_becomes_darker_than_just_short_of_white():
    """A tint makes the other channels brighter than its own; none loses the light that it surely had."""
    curves, white = curves_rising_by(2.0), torch.ones(1, 3, 1, 1)
    tint = torch.tensor([-3.0, 0.0, 3.0]).view(1, 3, 1, 1)
    stops = gain_with_highlights(curves, white, tint)
    short_of_white = curves.cautious_gain(NEAR_WHITE * white)
    assert_close(stops, torch.cat([short_of_white[:, :1], curves.gain(white)[:, 1:] + tint[:, 1:]], dim=1))


def test_tints_are_neither_brighter_nor_darker():
    stops = lively_net()(torch.rand(2, TINT_CLUES, 32, 40))
    assert stops.std(dim=1).max() > 0.01
    assert_close(stops.mean(dim=1), torch.zeros(2, 32, 40))


def test_white_of_a_picture_that_lost_no_light_has_no_tint():
    assert tint_stops(lively_net(), look_at(sky()), curves_rising_by(0.1)).abs().max() == 0
    assert tint_stops(lively_net(), look_at(sky()), curves_rising_by(2.0)).abs().max() > 0.01


def test_small_reflexes_take_less_of_the_colours_around_than_clipped_skies():
    """A window mirrored in a visor is no part of the orange suit below."""
    reflex = (BLUE * torch.ones(1, 3, 256, 256)).index_fill(1, torch.tensor([2]), 0.2)
    reflex[..., 128:132, 128:132] = 1
    assert_close(belief(clues_of(reflex))[..., 16, 16], torch.tensor([[ALONE]]), rtol=0, atol=0.05)
    assert_close(belief(clues_of(sky()))[..., -2:], torch.ones(1, 1, 32, 2))


def test_chroma_is_that_of_light():
    """Twice the light in every channel is the same colour, whatever gain leads there."""
    once = chroma(0.5 * BLUE, torch.zeros(1, 3, 1, 1))
    assert_close(chroma(BLUE, torch.zeros(1, 3, 1, 1)), once)
    assert_close(chroma(BLUE, torch.ones(1, 3, 1, 1)), once)
    assert once[0, 2] > 0 > once[0, 0]


@pytest.mark.parametrize("size", [(32, 32), (33, 70), (1, 9), (32, 512)])
def test_one_colour_is_carried_everywhere(size):
    weight = torch.zeros(1, 1, *size)
    weight[..., -1, -1] = 1
    assert_close(carried_on(BLUE.expand(1, 3, *size), weight), BLUE.expand(1, 3, *size), rtol=0, atol=1e-5)


def test_near_colours_are_carried_rather_than_far_ones():
    values, weight = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    values[..., :4], values[..., -4:] = -1, 1
    weight[..., :4], weight[..., -4:] = 1, 1
    row = carried_on(values, weight)[0, 0, 16]
    assert_close(row[:4], values[0, 0, 16, :4])
    assert row[8] < -0.2 and row[-9] > 0.2
    assert (row.diff() > -1e-5).all()


def test_where_no_colour_is_known_none_is_carried():
    assert carried_on(torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)).abs().max() == 0


def test_a_sky_clipped_in_part_tells_its_colour():
    """In the white end of the sky, what is carried on from the blue part is blue."""
    carried = clues_of(sky())[:, 8:17].unflatten(1, (3, 3))[..., 16, -1]
    assert (carried[:, 1:, 2] > 0.05).all() and (carried[:, 1:, 0] < -0.05).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (40, 3), (65, 64), (100, 700), (700, 100), (1, 9000)])
def test_any_picture_has_clues(size):
    clues = clues_of(torch.rand(2, 3, *size))
    assert clues.shape[:2] == (2, TINT_CLUES) and min(clues.shape[-2:]) == 32
    assert clues.isfinite().all()
    assert lively_net()(clues).shape == (2, 3, *clues.shape[-2:])


def test_it_travels_with_the_tone_net():
    again = ToneNet.from_weights(tone_net(lively_net()).state_dict(), "model.safetensors")
    clues = torch.rand(1, TINT_CLUES, 32, 40)
    assert again.tints is not None
    assert_close(again.tints(clues), lively_net()(clues))
