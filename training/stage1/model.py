"""The Stage 1 network: SDR picture to gain map to HDR and back to the SDR picture it has to explain."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from gm_core.gain_coding import GainCoding
from gm_core.gain_map import GainMapSpec, merge_hdr
from gm_core.tonemap import STAGE1_OPERATORS, gamut_reduce


class Explained(NamedTuple):
    """[B,3,H,W] each: Eq. (1)'s map; linear BT.2020, 1.0 = SDR white; what hdr looks like when reduced."""

    gain_map: Tensor
    hdr: Tensor
    sdr: Tensor


class Stage1Model(nn.Module):
    """Encoder, decoder, Eq. (1), compression and gamut reduction: one forward, which DDP and autocast see.

    Args:
        vae: with the adapter installed.
        operator: brightness-aware compression, a name in STAGE1_OPERATORS.
        clamp_peak: clamp HDR to qmax + 1, as published.
    """

    def __init__(
        self, vae: AutoencoderKL, *, spec: GainMapSpec, coding: GainCoding, operator: str, clamp_peak: bool
    ) -> None:
        super().__init__()
        self.vae = vae
        self.spec = spec
        self.coding = coding
        self.compress = STAGE1_OPERATORS[operator]
        self.clamp_peak = clamp_peak

    def forward(self, sdr: Tensor, noise: Tensor | None = None) -> Explained:
        """Explain pictures.

        Args:
            sdr: [B,3,H,W] in [0,1], sides multiples of 8.
            noise: [B,4,H/8,W/8] to sample the posterior with; None takes its mean.
        """
        coded = self.coded_map(sdr, noise)
        with torch.autocast(sdr.device.type, enabled=False):
            gain_map = self.coding.to_gain_map(coded, spec=self.spec)
            return self.explain(sdr, gain_map)

    def coded_map(self, sdr: Tensor, noise: Tensor | None = None) -> Tensor:
        """[B,3,H,W] in (0,1): the sigmoid of the raw decoder output."""
        posterior = self.vae.encode(sdr * 2 - 1, return_dict=False)[0]
        latent = posterior.mean if noise is None else posterior.mean + posterior.std * noise
        decode: Any = self.vae.decode
        return torch.sigmoid(decode(latent, return_dict=False)[0].float())

    def explain(self, sdr: Tensor, gain_map: Tensor) -> Explained:
        """Eq. (1), then compression, then the gamut reduction: the published order."""
        hdr = merge_hdr(sdr=sdr, gain_map=gain_map, spec=self.spec)
        if self.clamp_peak:
            hdr = hdr.clamp(max=self.spec.qmax + 1)
        return Explained(gain_map, hdr, gamut_reduce(self.compress(hdr, qmax=self.spec.qmax)))
