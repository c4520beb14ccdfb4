"""The schedulers of `generate` and of Stage 2's validation at the ends of what base models state."""

from __future__ import annotations

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from gm_core.schedule import add_noise, v_target
from training.sampling import SCHEDULERS, make_scheduler, sample_gain_map

ZERO_TERMINAL_SNR = DDPMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
).alphas_cumprod


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_base_model_of_zero_terminal_snr_is_sampled(name: str) -> None:
    random = torch.Generator().manual_seed(0)
    wanted, noise = torch.randn(2, 1, 4, 4, 4, generator=random)
    assert ZERO_TERMINAL_SNR[-1] == 0

    def knows(seen: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The v of a network that knows the answer: it takes the rest of its input for noise."""
        abar = ZERO_TERMINAL_SNR.clamp(min=1e-7)[t.long()].view(-1, 1, 1, 1)
        rest = (seen[:, 4:] - abar.sqrt() * wanted) / (1 - abar).sqrt()
        return v_target(wanted, rest, t.long(), ZERO_TERMINAL_SNR)

    assert torch.equal(add_noise(wanted, noise, torch.tensor([999]), ZERO_TERMINAL_SNR), noise)
    scheduler = make_scheduler(name, ZERO_TERMINAL_SNR, "v")
    found = sample_gain_map(knows, torch.zeros_like(wanted), noise, scheduler, 20)
    assert torch.allclose(found, wanted, atol=0.1)
