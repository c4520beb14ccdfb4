import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gm_core import schedule
from gm_core.errors import GainMapError

T = torch.tensor([1, 21, 500, 961, 981, 999])
X0, NOISE = torch.randn(2, 6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
ZERO_TERMINAL = torch.linspace(1, 0, 1000)


def test_alphas_are_those_of_stable_diffusion():
    expected = torch.tensor([0.998296, 0.980381, 0.276332, 0.007282, 0.005775, 0.004660])
    assert_close(schedule.alphas_cumprod()[T], expected, rtol=0, atol=1e-6)


def test_sigma_range_is_that_of_stable_diffusion():
    table = schedule.sigmas()
    assert table[0].item() == pytest.approx(0.0292, abs=1e-4)
    assert table[-1].item() == pytest.approx(14.6146, abs=1e-3)


def test_timestep_of_a_table_level_is_its_index():
    assert torch.equal(schedule.timestep_of(schedule.sigmas()[T]), T)
    assert torch.equal(schedule.timestep_of(torch.tensor([1e-3, 1e3])), torch.tensor([0, 999]))


def test_predictions_invert_the_forward_process():
    x_t = schedule.add_noise(X0, NOISE, T)
    assert_close(schedule.x0_from_eps(x_t, NOISE, T), X0, rtol=1e-4, atol=1e-4)
    assert_close(schedule.x0_from_v(x_t, schedule.v_target(X0, NOISE, T), T), X0, rtol=1e-4, atol=1e-5)


def test_forward_process_matches_sigma_view():
    x_t = schedule.add_noise(X0, NOISE, T)
    sigma = schedule.sigmas()[T].view(-1, 1, 1, 1)
    assert_close(x_t * (1 + sigma**2).sqrt(), X0 + sigma * NOISE, rtol=1e-4, atol=1e-4)


def test_latents_keep_their_dtype_and_survive():
    x0, noise = X0.half(), NOISE.half()
    before = x0.clone()
    assert schedule.add_noise(x0, noise, T).dtype == torch.float16
    assert torch.equal(x0, before)


@pytest.mark.parametrize(
    ("steps", "spacing", "first", "last"),
    [
        (50, "leading", [981, 961, 941], 1),
        (75, "linspace", [999, 986, 972], 13),
        (100, "linspace", [999, 989, 979], 10),
        (4, "trailing", [999, 749, 499], 249),
    ],
)
def test_timesteps_of_published_runs(steps, spacing, first, last):
    timesteps = schedule.sampling_timesteps(steps, spacing)
    assert len(timesteps) == steps
    assert timesteps[:3].tolist() == first and timesteps[-1] == last


def test_timesteps_of_any_number_of_steps_are_rounded_as_diffusers_rounds_them():
    for steps in range(1, 1000):
        linspace = np.linspace(0, 999, steps + 1).round()[::-1][:-1]
        assert schedule.sampling_timesteps(steps, "linspace").tolist() == linspace.tolist()
        # For some numbers numpy's range has one element too many.
        trailing = np.arange(1000, 0, -1000 / steps)[:steps].round() - 1
        assert schedule.sampling_timesteps(steps, "trailing").tolist() == trailing.tolist()


def test_sampling_sigmas_fall_to_zero():
    levels = schedule.sampling_sigmas(30, "linspace")
    assert len(levels) == 31 and levels[-1] == 0 and (levels.diff() < 0).all()


@pytest.mark.parametrize(("steps", "spacing"), [(0, "leading"), (1000, "leading"), (5, "karras")])
def test_unknown_spacings_are_refused(steps, spacing):
    with pytest.raises(GainMapError):
        schedule.sampling_timesteps(steps, spacing)


def test_min_snr_weights():
    ratio = schedule.snr(T)
    capped = ratio.clamp(max=5)
    assert_close(schedule.min_snr_weight(T), capped / ratio)
    assert_close(schedule.min_snr_weight(T, prediction="v"), capped / (ratio + 1))
    assert_close(schedule.min_snr_weight(T, prediction="x0"), capped)


@pytest.mark.parametrize(("prediction", "at_zero"), [("eps", 1.0), ("v", 0.0), ("x0", 0.0)])
def test_min_snr_weights_are_finite_at_zero_snr(prediction, at_zero):
    weight = schedule.min_snr_weight(torch.tensor([500, 999]), prediction=prediction, alphas=ZERO_TERMINAL)
    assert weight.isfinite().all() and weight[1] == at_zero


def test_min_snr_names_an_unknown_prediction():
    with pytest.raises(GainMapError, match="flow"):
        schedule.min_snr_weight(T, prediction="flow")
