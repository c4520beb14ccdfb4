import pytest
import torch

from gm_core.conditioning import condition_last, gm_unet_input
from gm_core.errors import GainMapError


def test_the_sdr_latent_comes_first():
    sdr, gm = torch.zeros(2, 4, 3, 3), torch.ones(2, 4, 3, 3)
    both = gm_unet_input(condition=sdr, noisy_gm=gm)
    assert torch.equal(both[:, :4], sdr) and torch.equal(both[:, 4:], gm)


def test_condition_last_serves_a_host_that_appends_the_condition():
    weight, sdr, gm = torch.randn(5, 8, 3, 3), torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 6)
    ours = torch.conv2d(gm_unet_input(condition=sdr, noisy_gm=gm), weight)
    host = torch.conv2d(torch.cat([gm, sdr], 1), condition_last(weight))
    torch.testing.assert_close(ours, host, rtol=1e-4, atol=1e-4)
    assert torch.equal(condition_last(condition_last(weight)), weight)


def test_latents_of_different_sizes_are_refused():
    with pytest.raises(GainMapError, match="condition is .* but noisy_gm is"):
        gm_unet_input(condition=torch.zeros(1, 4, 8, 8), noisy_gm=torch.zeros(1, 4, 8, 9))
