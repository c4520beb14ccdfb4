from functools import partial

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch.testing import assert_close

from gm_core.errors import GainMapError
from gm_core.sampling import SOLVERS, Denoiser, sample_dual, sample_gain_map
from gm_core.schedule import add_noise, alphas_cumprod, sampling_sigmas, sampling_timesteps, sigmas, v_target

SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NOISE = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(3))


def network(channels: int, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A smooth stand-in for a UNet that mixes channels and depends on the timestep."""
    weight = torch.linspace(-0.6, 0.7, 4 * channels).reshape(4, channels, 1, 1)
    return torch.tanh(torch.conv2d(x, weight) + (t / 1000).view(-1, 1, 1, 1))


sdr_network, gm_network = partial(network, 4), partial(network, 8)


def literal_dual(scheduler_class, timesteps: torch.Tensor, **config) -> tuple[torch.Tensor, torch.Tensor]:
    """The paper's loop, written in its own terms on diffusers' schedulers."""
    sdr_scheduler, gm_scheduler = (scheduler_class(**SD15, **config) for _ in range(2))
    for scheduler in (sdr_scheduler, gm_scheduler):
        scheduler.set_timesteps(len(timesteps))
        assert scheduler.timesteps.tolist() == timesteps.tolist()
    abar = alphas_cumprod()
    sdr = gm = NOISE
    for t in timesteps:
        eps = sdr_network(sdr, t.expand(2))
        x0 = (sdr - (1 - abar[t]).sqrt() * eps) / abar[t].sqrt()
        sdr = sdr_scheduler.step(eps, t, sdr).prev_sample
        gm_eps = gm_network(torch.cat([x0, gm], 1), t.expand(2))
        gm = gm_scheduler.step(gm_eps, t, gm).prev_sample
    return sdr, gm


def dual(sampler: str, spacing: str, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    levels = sampling_sigmas(steps, spacing)
    return sample_dual(Denoiser(sdr_network), Denoiser(gm_network), NOISE, levels, sampler=sampler)


def test_ddim_equals_the_loop_of_the_paper():
    expected = literal_dual(
        DDIMScheduler, sampling_timesteps(20), clip_sample=False, set_alpha_to_one=True, steps_offset=1
    )
    assert_close(dual("ddim", "leading", 20), expected, rtol=1e-4, atol=1e-4)


def test_dpm_solver_equals_the_loop_of_the_paper():
    expected = literal_dual(DPMSolverMultistepScheduler, sampling_timesteps(20, "linspace"))
    assert_close(dual("dpmpp_2m", "linspace", 20), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", SOLVERS)
def test_a_perfect_denoiser_is_returned_exactly(sampler):
    truth = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(4))
    out = sample_gain_map(
        lambda x, sigma, condition: truth, truth, NOISE, sampling_sigmas(7), sampler=sampler
    )
    assert_close(out, truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", SOLVERS)
def test_dual_gain_map_with_a_finished_sdr_is_the_single_one(sampler):
    finished = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(4))
    levels, gm_model = sampling_sigmas(6, "linspace"), Denoiser(gm_network)
    _, gm = sample_dual(lambda x, sigma: finished, gm_model, NOISE, levels, sampler=sampler)
    assert_close(gm, sample_gain_map(gm_model, finished, NOISE, levels, sampler=sampler))


@pytest.mark.parametrize("sampler", SOLVERS)
def test_a_batch_row_equals_its_single_run(sampler):
    levels, models = sampling_sigmas(6, "linspace"), (Denoiser(sdr_network), Denoiser(gm_network))
    batch = sample_dual(*models, NOISE, levels, sampler=sampler)
    single = sample_dual(*models, NOISE[1:], levels, sampler=sampler)
    for rows, row in zip(batch, single, strict=True):
        assert_close(rows[1:], row)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_denoiser_reads_every_prediction(prediction):
    x0 = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(4))
    t = torch.tensor([300, 800])
    said = {"eps": NOISE, "v": v_target(x0, NOISE, t), "x0": x0}[prediction]
    seen = []

    def unet(x_t, timestep):
        seen.append((x_t, timestep))
        return said

    sigma = sigmas()[t]
    found = Denoiser(unet, prediction)(x0 + sigma.view(-1, 1, 1, 1) * NOISE, sigma)
    assert_close(found, x0, rtol=1e-4, atol=1e-4)
    assert_close(seen[0][0], add_noise(x0, NOISE, t), rtol=1e-4, atol=1e-4)
    assert torch.equal(seen[0][1], t)


def test_denoiser_asks_at_the_timesteps_of_its_own_schedule():
    """Noise levels 3, 2 and 1: alpha products of 0.1, 0.2 and 0.5."""
    seen = []
    denoiser = Denoiser(lambda x, t: seen.append(t.tolist()) or x, alphas=torch.tensor([0.5, 0.2, 0.1]))
    denoiser(NOISE, torch.tensor([3.0, 1.0]))
    assert seen == [pytest.approx([2, 0])]


def test_unknown_names_and_rising_sigmas_are_refused():
    with pytest.raises(GainMapError, match="heun"):
        dual("heun", "leading", 5)
    for levels in ([1.0, 2.0], [2.0, 2.0, 0.0]):
        with pytest.raises(GainMapError, match="falling"):
            sample_gain_map(Denoiser(gm_network), NOISE, NOISE, torch.tensor(levels))
    with pytest.raises(GainMapError, match="flow"):
        Denoiser(sdr_network, "flow")
