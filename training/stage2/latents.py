"""Triples to the two latents the UNet works on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from gm_core.gain_coding import GainCoding, restate_coded
from gm_core.gain_map import GainMapSpec
from training.data.cache import ContentCache
from training.data.rows import Row
from training.data.samples import Triple
from training.random_streams import normal


class LatentEncoder:
    """The stock VAE, frozen and in float32: a gain map loses visible steps in 16 bits.

    Args:
        vae: encodes both pictures of a triple.
        spec, coding: what the trained model's gain maps are to mean.
        match_spec: convert a row's map so that its HDR stays what it is under `spec`.
        sample: draw from the posterior (seeded by sample number) instead of taking its mean.
        cache: keeps posteriors by content; None computes them every time.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        *,
        spec: GainMapSpec,
        coding: GainCoding,
        match_spec: bool,
        sample: bool,
        seed: int,
        cache: ContentCache | None,
    ) -> None:
        self.vae = vae
        self.spec = spec
        self.coding = coding
        self.match_spec = match_spec
        self.sample = sample
        self.seed = seed
        self.cache = cache

    def __call__(self, triples: Sequence[Triple], device: torch.device) -> tuple[Tensor, Tensor]:
        """SDR and gain-map latents [B,4,h,w] in model space."""
        if self.cache is None:
            moments = self._computed(triples, device)
        else:
            # One by one and rounded as stored: a sample's latents depend on its content alone, so that
            # a resumed run, which finds more of them in the cache, sees the same numbers.
            moments = [triple.moments or self._remembered(self.cache, triple, device) for triple in triples]
        numbers = [triple.number for triple in triples]
        return self._latent(moments, "sdr", numbers, device), self._latent(
            moments, "gain_map", numbers, device
        )

    def coded_map(self, sdr: Tensor, stored: Tensor, row: Row) -> Tensor:
        """The map as the model is to see it, [3,H,W] in [0,1], from the one stored with the row."""
        wanted = self.spec if self.match_spec else row.spec
        gain_map = restate_coded(
            coded=stored[None], sdr=sdr[None], coding=row.coding, spec=row.spec, wanted=wanted
        )[0]
        return self.coding.from_gain_map(gain_map, spec=self.spec)

    def _remembered(self, cache: ContentCache, triple: Triple, device: torch.device) -> dict[str, Tensor]:
        moments = {name: value.half() for name, value in self._computed([triple], device)[0].items()}
        cache.put(triple.content, moments)
        return moments

    @torch.no_grad()
    def _computed(self, triples: Sequence[Triple], device: torch.device) -> list[dict[str, Tensor]]:
        pixels = [triple.pixels for triple in triples if triple.pixels is not None]
        sdr = [picture for picture, _ in pixels]
        coded = [self.coded_map(*pair, triple.row) for pair, triple in zip(pixels, triples, strict=True)]
        pictures = torch.stack(sdr + coded).to(device)
        posterior = self.vae.encode(pictures * 2 - 1, return_dict=False)[0]
        moments = torch.cat([posterior.mean, posterior.std], dim=1)
        pairs = zip(*moments.chunk(2), strict=True)
        return [{"sdr": of_sdr, "gain_map": of_map} for of_sdr, of_map in pairs]

    def _latent(
        self, moments: Sequence[dict[str, Tensor]], name: str, numbers: Sequence[int], device: torch.device
    ) -> Tensor:
        mean, spread = (
            torch.stack([entry[name] for entry in moments]).to(device, torch.float32).chunk(2, dim=1)
        )
        if self.sample:
            mean = mean + spread * normal(self.seed, f"posterior {name}", numbers, mean.shape[1:]).to(device)
        return mean * self.vae.config["scaling_factor"]
