"""The built-in model without a host: SDR picture in, HDR out. The same steps as the nodes, for evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from gm_core.gain_map import merge_hdr
from gm_core.model_info import METADATA_PREFIX, GainMapModelInfo
from gm_core.resample import resize_to_working
from gm_core.sampling import Denoiser, sample_gain_map
from gm_core.schedule import sampling_sigmas
from gm_core.shipped import UNET_FILE, VAE_FILE
from gm_core.tone.apply import finished_gain_map
from gm_core.tone.net import ToneNet
from gm_core.unet_keys import to_diffusers
from training.tensor_files import read_tensors

from .autoencoder import TinyAutoencoder
from .unet import make_unet, text_context


@dataclass(frozen=True)
class BuiltinModel:
    """Autoencoder, GM UNet, what the UNet's file says of itself, and its tone net if it has one."""

    unet: UNet2DConditionModel
    autoencoder: TinyAutoencoder
    info: GainMapModelInfo
    tone_net: ToneNet | None = None

    @classmethod
    def load(cls, folder: Path) -> BuiltinModel:
        """Reads the two shipped files."""
        stored, metadata = read_tensors(folder / UNET_FILE)
        info = GainMapModelInfo.from_metadata(metadata)
        weights = {key: value.float() for key, value in stored.items()}
        tone_net = ToneNet.pop_from(weights, UNET_FILE)
        unet = make_unet().eval()
        own = {key: value for key, value in weights.items() if not key.startswith(METADATA_PREFIX)}
        unet.load_state_dict(to_diffusers(own))
        return cls(unet, TinyAutoencoder().load_exported(folder / VAE_FILE).eval(), info, tone_net)

    @torch.no_grad()
    def coded_gain_map(self, sdr: Tensor, *, steps: int = 0, seed: int = 0) -> Tensor:
        """The model's small coded map `[B,3,h,w]` in [0,1] for an SDR picture `[B,3,H,W]`."""
        condition = self.autoencoder.encoder(resize_to_working(sdr, self.info.working_side))
        noise = torch.randn(condition.shape, generator=torch.Generator().manual_seed(seed))
        sigmas = sampling_sigmas(self.info.steps_for(steps), "trailing")
        network = lambda x, t: self.unet(x, t, text_context(len(x))).sample  # noqa: E731
        latent = sample_gain_map(Denoiser(network, self.info.prediction), condition, noise, sigmas)
        return self.autoencoder.decoder(latent).clamp(0, 1)

    @torch.no_grad()
    def gain_map(self, sdr: Tensor, *, steps: int = 0, seed: int = 0) -> Tensor:
        """The gain map `[B,3,H,W]` of Eq. (1) for an SDR picture of that size."""
        small = self.coded_gain_map(sdr, steps=steps, seed=seed)
        return finished_gain_map(small, sdr, self.info, net=self.tone_net)

    def __call__(self, sdr: Tensor, *, steps: int = 0, seed: int = 0) -> Tensor:
        """HDR `[B,3,H,W]`, linear with 1.0 = SDR white, for a display-encoded SDR picture in [0,1]."""
        return merge_hdr(sdr=sdr, gain_map=self.gain_map(sdr, steps=steps, seed=seed), spec=self.info.spec)
