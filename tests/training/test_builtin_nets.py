"""The small nets of the built-in model: what they are asked for, and that they learn it."""

from collections.abc import Callable, Iterator

import pytest
import torch

from gm_core.tone.curves import KNOTS
from gm_core.tone.highlights import CLUES
from gm_core.tone.net import ToneNet
from gm_core.tone.statistics import STATISTICS
from gm_core.tone.tints import TINT_CLUES, TintNet
from training.builtin import cache, loop, samples, train_highlights, train_phones, train_tints, train_tone


def test_an_average_of_nets_answers_with_the_mean_of_their_answers():
    torch.manual_seed(0)
    nets = [ToneNet(width=width).eval() for width in (8, 16, 8)]
    statistics = torch.randn(5, STATISTICS)
    wanted = torch.stack([net(statistics).by_channel for net in nets]).mean(dim=0)
    assert torch.allclose(train_tone.average_of(nets).eval()(statistics).by_channel, wanted, atol=1e-5)


def test_a_wide_net_falls_into_the_nets_it_was_made_of():
    torch.manual_seed(0)
    nets, statistics = [ToneNet(width=8).eval() for _ in range(3)], torch.randn(5, STATISTICS)
    with torch.no_grad():  # Of the last biases only the mean is left.
        for net in nets:
            train_tone.linear_layers(net)[-1].bias.zero_()
    for part, net in zip(train_tone.parts_of(train_tone.average_of(nets), 3), nets, strict=True):
        assert torch.allclose(part.eval()(statistics).by_channel, net(statistics).by_channel, atol=1e-5)


def tone_rows_of(statistics: torch.Tensor, stops: float) -> cache.Rows:
    """Samples whose highlights gain `stops`."""
    sdr = torch.rand(len(statistics), 3, 1, train_tone.PIXELS)
    gain_map = torch.from_numpy(samples.code_gain((stops * (sdr > 0.7)).float().numpy()))
    return {
        "statistics": statistics,
        "sdr": (sdr * 255).to(torch.uint8),
        "gain_map": (gain_map * 255).to(torch.uint8),
    }


def steps(count: int) -> Callable[[float], Iterator[tuple[int, float]]]:
    """Training's clock that counts steps, for how many fit into a time depends on the machine."""
    return lambda minutes: ((step, step / count) for step in range(count))


def test_the_judge_learns_whose_pictures_are_phones(monkeypatch):
    """The phone's net says two stops, the other none; the first statistic tells who is right."""
    monkeypatch.setattr(loop, "timed_steps", steps(60))
    torch.manual_seed(0)
    statistics = torch.randn(2, 64, STATISTICS)
    statistics[0, :, 0], statistics[1, :, 0] = 3, -3
    net = train_tone.new_net(statistics.flatten(0, 1), width=8)
    answers = train_tone.new_net(statistics.flatten(0, 1), width=8)
    with torch.no_grad():
        train_tone.linear_layers(answers)[-1].bias[KNOTS + KNOTS * 3 // 4 :] = 2
    net.phones = train_phones.phone_net(answers)
    phones, others = (tone_rows_of(part, stops) for part, stops in zip(statistics, (2, 0), strict=True))
    train_phones.fit_judge(net, phones, others, minutes=1, lr=0.01)
    before = 2 * torch.sigmoid(torch.tensor(train_phones.SELDOM))
    believed = [net(rows["statistics"]).by_largest[:, -1].mean() for rows in (phones, others)]
    assert believed[1] < before < believed[0]


def test_the_judge_sees_pictures_that_no_net_learned():
    rows = {"sdr": torch.arange(10), "gain_map": torch.arange(10)}
    learned, unseen = train_phones.split(rows, 0.2)
    assert learned["sdr"].tolist() == list(range(8)) and unseen["gain_map"].tolist() == [8, 9]


def pictures_of(sdr: torch.Tensor, stops: torch.Tensor) -> cache.Rows:
    """SDR pictures `[N,3,128,128]` and their gain as a shard holds them."""
    coded = torch.from_numpy(samples.code_gain(stops.numpy()))
    return {"sdr": (sdr * 255).to(torch.uint8), "gain_map": (coded * 255).round().to(torch.uint8)}


def test_highlight_net_is_asked_for_what_the_tone_net_leaves_over():
    sdr, stops = torch.full((3, 3, 128, 128), 0.5), torch.full((3, 3, 128, 128), 0.5)
    sdr[1:, :, 40:80, 40:80], stops[1:, :, 40:80, 40:80] = 1.0, 2.5
    pictures = pictures_of(sdr, stops)
    tone_net = train_tone.new_net(torch.randn(8, STATISTICS), width=8).eval()  # one that starts at "no gain"
    pictures["statistics"] = torch.randn(3, STATISTICS)
    (white,) = train_highlights.showing_white(pictures)
    rows = train_highlights.highlight_rows(white, train_highlights.inferred_curves(tone_net))
    assert rows["clues"].shape == (2, CLUES, 32, 32)
    assert (rows["given"] == 0).all()
    assert rows["wanted"][:, 0, 10:20, 10:20].sub(2).abs().max() < 0.05  # beyond the half stop of exposure
    assert (rows["wanted"][:, :, :9] == 0).all()


def white_beside_blue() -> cache.Rows:
    """Blue on the left, white on the right that was blue, too: two stops of blue, one of red."""
    sdr, stops = torch.full((4, 3, 128, 128), 0.2), torch.zeros(4, 3, 128, 128)
    sdr[..., :64] = torch.tensor([0.4, 0.6, 0.8]).view(3, 1, 1)
    sdr[..., 64:], stops[..., 64:] = 1.0, torch.tensor([1.0, 1.5, 2.0]).view(3, 1, 1)
    return pictures_of(sdr, stops)


def test_tint_net_is_asked_by_how_much_channels_of_white_differ():
    rows = train_tints.tint_rows(white_beside_blue())
    assert rows["clues"].shape == (4, TINT_CLUES, 32, 32)
    assert (rows["white"][..., 16:] == 1).all() and (rows["white"][..., :16] == 0).all()
    wanted = torch.tensor([-0.5, 0.0, 0.5]).view(3, 1, 1)
    assert (rows["tint"][..., 16:].float() - wanted).abs().max() < 0.05


def test_tint_net_learns_that_white_beside_blue_is_blue(monkeypatch):
    monkeypatch.setattr(loop, "timed_steps", steps(40))
    torch.manual_seed(0)
    net, rows = TintNet(), train_tints.tint_rows(white_beside_blue())
    before = train_tints.loss_of(net, {name: column.float() for name, column in rows.items()})
    train_tints.fit(net, rows, minutes=1)
    found = net(rows["clues"].float())[..., 16:].mean(dim=(0, 2, 3))
    assert found[2] > found[1] > found[0]
    assert train_tints.loss_of(net, {name: column.float() for name, column in rows.items()}) < before


def test_best_curves_of_a_sample_leave_nothing_over_that_is_no_matter_of_place():
    sdr = torch.rand(2, 3, 128, 128)
    sdr[:, :, 40:80, 40:80] = 1.0
    gain = 2 * sdr + sdr.amax(dim=1, keepdim=True)
    rows = train_highlights.highlight_rows(pictures_of(sdr, gain), train_highlights.best_curves)
    assert rows["given"][:, :, 10:20, 10:20].sub(3).abs().max() < 0.1
    assert rows["wanted"][:, :, 10:20, 10:20].abs().max() < 0.1


def test_stops_beyond_displays_count_less():
    stops = torch.tensor([-1.0, 2.0, 3.0, 5.0])
    assert train_highlights.seen_on_displays(stops).tolist() == pytest.approx([-1, 2, 3, 3.6])


def test_no_minutes_are_no_steps():
    assert list(loop.timed_steps(0)) == []


def test_networks_compute_in_float32_where_the_cpu_has_no_bfloat16(monkeypatch):
    """It would take 60 times as long: torch has no fast convolution in bfloat16 for such CPUs."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with loop.quick_networks():
        computed = torch.nn.Conv2d(3, 4, 3)(torch.rand(1, 3, 8, 8))
    assert computed.dtype == loop.quick_type() == torch.float32
