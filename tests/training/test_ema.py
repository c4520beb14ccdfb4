"""The moving average against its closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.ema import ExponentialMovingAverage


def test_it_equals_the_weighted_sum_of_all_weights_so_far() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    ema = ExponentialMovingAverage({"w": parameter}, decay=0.5)
    values, decays = [2.0, -1.0, 4.0, 8.0], [min(0.5, (1 + n) / (10 + n)) for n in range(4)]
    for value in values:
        parameter.data.fill_(value)
        ema.update()
    expected = 1.0
    for value, decay in zip(values, decays, strict=True):
        expected = decay * expected + (1 - decay) * value
    assert torch.allclose(ema.shadow["w"], torch.tensor([expected]))


def test_the_ramp_ends_at_the_decay() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    ema = ExponentialMovingAverage({"w": parameter}, decay=0.9)
    ema.updates = 10**6
    parameter.data.fill_(1.0)
    ema.update()
    assert torch.allclose(ema.shadow["w"], torch.tensor([0.1]))


def test_it_is_kept_in_float32_and_continues_from_what_was_saved() -> None:
    parameter = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    ema = ExponentialMovingAverage({"w": parameter}, decay=0.9999)
    # In bfloat16 so small a step would be lost.
    ema.load({"w": torch.tensor([0.9])}, 10**6)
    ema.update()
    assert torch.allclose(ema.shadow["w"], torch.tensor([0.90001]), atol=1e-7) and ema.updates == 10**6 + 1


def test_the_weights_come_back_when_validation_fails() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    ema = ExponentialMovingAverage({"w": parameter}, decay=0.9)
    parameter.data.fill_(1.0)
    with pytest.raises(OSError, match="disk"), ema.swapped_in():
        raise OSError("disk")
    assert parameter.item() == 1


def test_swapping_in_gives_the_weights_back_bit_exact() -> None:
    parameter = nn.Parameter(torch.randn(5, generator=torch.Generator().manual_seed(0)))
    ema = ExponentialMovingAverage({"w": parameter}, decay=0.9)
    parameter.data.mul_(3)
    trained = parameter.detach().clone()
    with ema.swapped_in():
        assert torch.equal(parameter.detach(), ema.shadow["w"])
    assert torch.equal(parameter.detach(), trained)


def test_only_what_is_given_is_averaged() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].requires_grad_(False)
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert set(ExponentialMovingAverage(trained, 0.9).shadow) == {"1.weight", "1.bias"}
