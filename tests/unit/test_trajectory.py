import math

import pytest
import torch
from torch.testing import assert_close

from gm_core.errors import GainMapError
from gm_core.trajectory import ConstantCondition, Trajectory


def latent(value: float) -> torch.Tensor:
    return torch.full((1, 4, 2, 2), float(value))


def recorded(*calls: tuple[float, float]) -> Trajectory:
    trajectory = Trajectory()
    for sigma, value in calls:
        trajectory.record(sigma, latent(value))
    return trajectory


def test_replay_returns_every_call_in_order():
    reader = recorded((10.0, 1), (5.0, 2), (5.0, 3), (1.0, 4)).reader()
    assert [reader.next(sigma)[0, 0, 0, 0].item() for sigma in (10.0, 5.0, 5.0, 1.0)] == [1, 2, 3, 4]


def test_two_readers_do_not_share_their_place():
    trajectory = recorded((10.0, 1), (5.0, 2))
    trajectory.reader().next(10.0)
    assert_close(trajectory.reader().next(10.0), latent(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_record_copies_and_goes_to_float32_in_ram(dtype):
    trajectory, x0 = Trajectory(), latent(0.5).to(dtype)
    trajectory.record(torch.tensor([3.0, 3.0]), x0)
    x0.zero_()
    assert_close(trajectory.reader().next(torch.tensor([3.0])), latent(0.5))


def test_other_levels_are_interpolated_in_log_sigma():
    trajectory = recorded((16.0, 0.0), (4.0, 1.0), (1.0, 2.0))
    assert_close(trajectory.at(0, 8.0), latent(0.5))
    assert_close(trajectory.at(7, math.sqrt(4.0)), latent(1.5))
    assert_close(trajectory.at(7, 16.0 * 4.0**-0.25), latent(0.25))


@pytest.mark.parametrize(("sigma", "value"), [(99.0, 0.0), (0.5, 2.0), (0.0, 2.0)])
def test_levels_outside_the_record_take_the_nearest_end(sigma, value):
    assert_close(recorded((16.0, 0.0), (4.0, 1.0), (1.0, 2.0)).at(9, sigma), latent(value))


def test_of_repeated_levels_the_last_call_counts_when_out_of_step():
    assert_close(recorded((5.0, 1.0), (5.0, 2.0), (1.0, 3.0)).at(9, 5.0), latent(2.0))


def test_a_recorded_zero_level_does_not_break_the_logarithm():
    assert_close(recorded((5.0, 1.0), (0.0, 2.0)).at(9, 1.0), latent(2.0))


def test_replaying_nothing_is_an_error():
    with pytest.raises(GainMapError, match="trajectory is empty"):
        Trajectory().reader().next(1.0)


def test_a_constant_condition_never_changes():
    condition = ConstantCondition(latent(1))
    assert condition.next(10.0) is condition.next(0.1)
