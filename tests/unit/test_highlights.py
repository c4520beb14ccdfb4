"""What the highlight net may change, and what it must leave alone."""

import pytest
import torch
from torch.testing import assert_close

from gm_core.errors import ModelFileError
from gm_core.gain_coding import GainCoding
from gm_core.tone.apply import full_size_map, gain_with_highlights
from gm_core.tone.clipping import WHITE, even_whiteness, over, white_share
from gm_core.tone.curves import KNOTS, ToneCurves
from gm_core.tone.highlights import (
    BOLDNESS,
    CLUES,
    WHITE_CLUE,
    HighlightNet,
    bolder,
    highlight_clues,
    highlight_share,
)
from gm_core.tone.look import look_at
from gm_core.tone.net import ToneNet
from gm_core.tone.reading import highlight_stops

CODING = GainCoding(encoding="log2", log2_min=-3.0, log2_max=5.0)


def lively_net(seed: int = 0) -> HighlightNet:
    """A net that does not start at "none"."""
    torch.manual_seed(seed)
    net = HighlightNet()
    torch.nn.init.normal_(net.leave.weight)
    return net.eval().requires_grad_(False)


def tone_net(highlights: HighlightNet | None) -> ToneNet:
    torch.manual_seed(1)
    net = ToneNet(width=8).eval().requires_grad_(False)
    net.highlights = highlights
    return net


def lamp(height: int = 90, width: int = 130) -> torch.Tensor:
    """A white disc before a grey wall that falls off."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distance = (rows - height / 2).square() + (columns - width / 2).square()
    return torch.where(distance < 200, 1.0, 0.7 - 0.4 * columns / width).expand(1, 3, -1, -1)


def full_map(sdr: torch.Tensor, highlights: HighlightNet | None) -> torch.Tensor:
    painted = torch.full((len(sdr), 3, 32, 48), 0.5)
    return full_size_map(painted, sdr, coding=CODING, net=tone_net(highlights))


def clues_of(sdr: torch.Tensor, curves: ToneCurves) -> torch.Tensor:
    look = look_at(sdr)
    return highlight_clues(look, curves.gain(look).mean(dim=1, keepdim=True))


def test_only_white_pixels_change():
    sdr = lamp()
    changed = (full_map(sdr, lively_net()) - full_map(sdr, None)).abs().amax(dim=1, keepdim=True)
    white = white_share(sdr) > 0
    assert changed[white].max() > 0.01
    assert changed[~white].max() == 0


def test_white_gains_no_colour():
    change = full_map(lamp(), lively_net()) - full_map(lamp(), None)
    assert_close(change, change.mean(dim=1, keepdim=True).expand_as(change), rtol=0, atol=1e-5)


@pytest.mark.parametrize("colour", [(1.0, 1.0, 1.0), (0.9, 0.95, 1.0), (0.6, 0.8, 1.0)])
@pytest.mark.parametrize("bright", [-9.0, 0.0])
def test_no_dark_rim_around_white(colour, bright):
    """However much a net takes away, a pale surface that brightens to white never darkens on the way."""
    steep = ToneCurves(4 * torch.linspace(0, 1, KNOTS)[None] ** 8, torch.linspace(0, 0.5, KNOTS)[None])
    sdr = torch.linspace(0.7, 1, 300).view(1, 1, 1, -1) * torch.tensor(colour).view(1, 3, 1, 1)
    stops = gain_with_highlights(steep, sdr, torch.full((1, 1, 1, 300), bright))
    light = (sdr**2.2 * torch.exp2(stops)).amax(dim=1)
    assert (light.diff() >= -1e-3 * light[..., 1:]).all()


@pytest.mark.parametrize(("stops", "share"), [(-1.0, 0), (0.1, 0), (0.15, 0.5), (0.2, 1), (3.0, 1)])
def test_white_of_a_picture_that_lost_no_light_is_no_lamp(stops, share):
    curves = ToneCurves(torch.zeros(1, KNOTS), torch.linspace(-stops, stops, KNOTS)[None])
    net, sdr = lively_net(), lamp()
    clues = clues_of(sdr, curves)
    judged = bolder(net(clues), clues[:, WHITE_CLUE, None])
    assert judged.abs().max() > 0.01
    assert_close(highlight_stops(net, clues, curves), share * judged)


def test_boldness_keeps_the_mean_of_what_is_white():
    stops, white = torch.randn(2, 1, 32, 40), torch.rand(2, 1, 32, 40).round()
    bold = bolder(stops, white)
    mean = lambda values: (white * values).sum(dim=(1, 2, 3)) / white.sum(dim=(1, 2, 3))  # noqa: E731
    assert_close(mean(bold), mean(stops))
    assert_close(bold.diff(), BOLDNESS * stops.diff())


def test_boldness_needs_no_white():
    assert bolder(torch.randn(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).isfinite().all()


def test_an_untrained_net_changes_nothing():
    assert_close(full_map(lamp(), HighlightNet()), full_map(lamp(), None))


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (40, 3), (65, 64), (100, 700), (700, 100), (1, 9000)])
def test_any_picture_has_clues(size):
    sdr = torch.rand(2, 3, *size)
    clues = clues_of(sdr, ToneCurves(torch.zeros(2, KNOTS), torch.zeros(2, KNOTS)))
    assert clues.shape[:2] == (2, CLUES) and min(clues.shape[-2:]) == 32
    assert lively_net()(clues).shape == (2, 1, *clues.shape[-2:])


def test_white_comes_gradually():
    shares = white_share(torch.linspace(0.9, WHITE, 50).view(1, 1, 1, -1).expand(1, 3, 1, -1))[0, 0, 0]
    assert shares[0] == 0 and shares[-1] == 1
    assert shares.diff().max() < 0.1


def test_it_travels_with_the_tone_net():
    net = tone_net(lively_net())
    again = ToneNet.from_weights(net.state_dict(), "model.safetensors")
    clues = torch.rand(1, CLUES, 32, 40)
    assert net.highlights is not None and again.highlights is not None
    assert_close(again.highlights(clues), net.highlights(clues))


def test_wrong_weights_are_refused_by_file_name():
    weights = {**tone_net(lively_net()).state_dict(), "highlights.leave.weight": torch.zeros(3)}
    with pytest.raises(ModelFileError, match=r"model\.safetensors.*tone net"):
        ToneNet.from_weights(weights, "model.safetensors")


def test_a_deep_colour_is_no_lamp_and_becomes_one_gradually():
    """One channel is clipped all along, the others rise: no edge where a blue sky has no more blue."""
    rising = torch.linspace(0, 1, 200).view(1, 1, 1, -1)
    share = highlight_share(torch.cat([rising, rising, torch.ones_like(rising)], dim=1))[0, 0, 0]
    assert share[0] == 0 and share[-1] == 1
    assert 0 <= share.diff().min() and share.diff().max() < 0.01


def test_highlights_count_in_grey_as_far_as_it_is_white():
    grey = torch.linspace(0.8, 1, 100).view(1, 1, 1, -1)
    assert_close(highlight_share(grey.expand(1, 3, 1, -1)), over(grey))


def test_one_code_more_or_less_makes_no_blocks_in_a_sky():
    """JPEG leaves blocks of one code's difference; as the net's stops they would be fourteen times that."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(250, 255, (1, 1, 64, 64), generator=generator) / 255
    sdr = blocks.repeat_interleave(8, -1).repeat_interleave(8, -2).expand(1, 3, -1, -1)
    change = full_map(sdr, lively_net()) - full_map(sdr, None)
    steps = change.diff(dim=-1).abs()[..., 7::8]
    assert change.abs().mean() > 15 * steps.mean() > 0


@pytest.mark.parametrize("wall", [0.1, 0.5, 0.9])
def test_a_small_lamp_before_a_wall_is_white_to_its_edge(wall):
    """Also of 3 pixels, which in the small look are blended with the wall into something almost white."""
    look = torch.full((1, 1, 160, 160), wall)
    look[..., 81:84, 81:84] = 1
    assert_close(even_whiteness(look, 4), torch.ones(1, 1, 40, 40))
