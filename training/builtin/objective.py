"""What the GM UNet is trained for: latents that decode to the right HDR picture.

Three errors are added. The error of the latents keeps them on the decoder's ground. The error of the HDR
picture, at a quarter of the size, in perceptually uniform units and after the best exposure, is what a viewer
sees; its logarithm is taken per picture, as PSNR does: a picture whose tone curve can't be known must not
drown those that can be got exactly right. The error of highlights counts their light, however few they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, mse_loss, smooth_l1_loss

from gm_core.gain_map import GainMapSpec
from gm_core.metrics import pu21_encode
from gm_core.tone.knots import hat_position

from .loop import quick_networks
from .pool import Batch, LatentPool
from .samples import LOG2_MAX, LOG2_MIN
from .unet import noisy_latents, predict_x0, sample_timesteps

GAMMA, OFFSET = GainMapSpec.gamma, GainMapSpec.offset
WHITE_NITS, TOP = 100.0, math.log2(10.0)
"""SDR white in the metric, and log2 of the brightest value it tells apart (1,000 cd/m2)."""
BRIGHT = 0.95
"""SDR value of the brightest channel from which a pixel may be clipped."""
BRIGHTEST = 4.0
"""Stops beyond which a highlight's light no longer counts for more."""
HIGHLIGHT_WEIGHT = 0.5
"""Weight in dB of a squared error of the highlights; 1.0 is the light of SDR white."""
PU_FLOOR = 2.0
"""PU21 units of error below which a picture is as good as right."""


class SmallDecoder(nn.Module):
    """Gain-map latents `[B,4,h,w]` to gain in stops `[B,3,2h,2w]`: the decoder's low frequencies at a small
    part of its cost. Fitted to the cache before training and then frozen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(4, 96, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(96, 96, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(96, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, latent: Tensor) -> Tensor:
        return self.net(latent) * (LOG2_MAX - LOG2_MIN) + LOG2_MIN


class PerceptualScale(nn.Module):
    """PU21 of log2 luminance by table, differentiable: stops above SDR white to PU21 units."""

    LOW, HIGH, STEPS = -9.0, 5.0, 560
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        stops = torch.linspace(self.LOW, self.HIGH, self.STEPS + 1, dtype=torch.float64)
        self.register_buffer("table", pu21_encode(WHITE_NITS * torch.exp2(stops)).float())

    def forward(self, stops: Tensor) -> Tensor:
        below, share = hat_position((stops - self.LOW) / (self.HIGH - self.LOW), self.STEPS + 1)
        return torch.lerp(self.table[below], self.table[below + 1], share)


def log_hdr(sdr: Tensor, gain: Tensor) -> Tensor:
    """log2 of Eq. (1)'s HDR from the display-encoded picture and a gain in stops, at least -9."""
    hdr = (sdr**GAMMA + OFFSET) * torch.exp2(gain.clamp(-6, 9)) - OFFSET
    return hdr.clamp(min=2.0**-9).log2()


def picture_error(scale: PerceptualScale, sdr: Tensor, gain: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared PU21 error in dB of each picture's HDR, after its best exposure.

    Args:
        scale: the perceptual scale.
        sdr: `[B,3,h,w]` display-encoded, [0,1].
        gain: `[B,3,h,w]` predicted gain, stops.
        wanted: `[B,3,h,w]` true gain, stops.

    Returns:
        `[B]`, lower is better; 48 dB minus it is about the PU21-PSNR.
    """
    predicted, truth = log_hdr(sdr, gain), log_hdr(sdr, wanted)
    # Where white lies is the camera's secret: here, at the brightest tenth of the picture.
    truth = truth - truth.amax(dim=1).flatten(1).quantile(0.9, dim=1).view(-1, 1, 1, 1)
    weight = torch.sigmoid(2 * (truth + 5)) * torch.sigmoid(2 * (TOP - truth))
    dims = (1, 2, 3)
    total = lambda values: values.sum(dims, keepdim=True)  # noqa: E731
    shift = total(weight * (truth - predicted)) / total(weight).clamp(min=1)
    target = scale(truth.clamp(max=TOP))
    error = lambda stops: scale((predicted + stops).clamp(max=TOP)) - target  # noqa: E731
    slope = (error(shift + 0.1) - error(shift)) / 0.1
    newton = total(error(shift) * slope) / total(slope.square()).clamp(min=1)
    squared = error(shift - newton.clamp(-0.7, 0.7)).square().mean(dim=dims)
    return 10 * torch.log10(squared + PU_FLOOR**2)


def highlight_error(sdr: Tensor, gain: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of the light gained where the SDR picture is near white, `[B]`; 0 if it is not.

    In dB a few lamps weigh nothing, and the safest guess for them is no gain. For viewers they are the HDR.
    In light, not in stops: what lies beyond white is anyone's guess, and the mean light of all guesses is
    that of the truth, while the mean of their stops is a dull picture.
    """
    bright = (sdr.amax(dim=1, keepdim=True) > BRIGHT).to(sdr.dtype)
    light = [torch.exp2(stops.clamp(LOG2_MIN, BRIGHTEST)) for stops in (gain, wanted)]
    squared = (light[0] - light[1]).square().mean(dim=1, keepdim=True)
    return (bright * squared).sum(dim=(1, 2, 3)) / bright.sum(dim=(1, 2, 3)).clamp(min=1)


def latent_error(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Error of latents `[B,4,h,w]` at full size (Huber), at a quarter of it and of their mean (both squared).

    Guided upsampling forgives errors of single latent pixels; it cannot forgive a wrong tone or tint.
    """
    coarse = mse_loss(avg_pool2d(predicted, 4), avg_pool2d(wanted, 4))
    means = mse_loss(predicted.mean(dim=(2, 3)), wanted.mean(dim=(2, 3)))
    return smooth_l1_loss(predicted, wanted, beta=0.1) + 5 * coarse + 5 * means


def fit_small_decoder(
    latents: Tensor, gains: Tensor, *, steps: int, generator: torch.Generator
) -> SmallDecoder:
    """A frozen decoder for true latents `[N,4,h,w]` and gains `[N,3,2h,2w]` in stops."""
    decoder = SmallDecoder()
    optimiser = torch.optim.Adam(decoder.parameters(), lr=2e-3)
    for step in range(steps):
        chosen = torch.randint(len(latents), (64,), generator=generator)
        wanted = gains[chosen].float().clamp(LOG2_MIN, LOG2_MAX)
        noise = 0.05 * torch.randn(latents[chosen].shape, generator=generator)
        loss = mse_loss(decoder(latents[chosen].float() + noise), wanted)
        optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return decoder.requires_grad_(False).eval()


class Objective:
    """Loss of a UNet on a batch."""

    def __init__(
        self, pool: LatentPool, *, first_step_share: float, picture_weight: float, decoder_steps: int
    ) -> None:
        self.generator = pool.generator
        self.first_step_share, self.picture_weight = first_step_share, picture_weight
        sizes = [shard["sdr"].shape[-1] for shard in pool.shards.values()]
        chosen = [s for s in pool.shards.values() if s["sdr"].shape[-1] == min(sizes)][:40]
        self.decoder = fit_small_decoder(
            torch.cat([s["gain_map"] for s in chosen]),
            torch.cat([s["gain_small"] for s in chosen]),
            steps=decoder_steps,
            generator=self.generator,
        )
        self.scale = PerceptualScale()

    def __call__(self, unet: torch.nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, and the part of it that is the picture's error in dB."""
        t = sample_timesteps(len(batch.sdr), self.generator, first_step_share=self.first_step_share)
        noise = torch.randn(batch.sdr.shape, generator=self.generator)
        with quick_networks():
            predicted = predict_x0(unet, noisy_latents(batch.gain_map, t, noise), t, batch.sdr)
        seen = self.decoder(predicted.float())
        decibels = picture_error(self.scale, batch.sdr_small, seen, batch.gain_small).mean()
        highlights = highlight_error(batch.sdr_small, seen, batch.gain_small).mean()
        picture = decibels + HIGHLIGHT_WEIGHT * highlights
        loss = latent_error(predicted.float(), batch.gain_map) + self.picture_weight * picture
        return loss, decibels.detach()
