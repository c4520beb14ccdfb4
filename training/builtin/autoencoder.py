"""The tiny autoencoder of the built-in model: TAESD's layout, so stock ComfyUI loads the exported file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gm_core.vae_keys import join_taesd, split_taesd


def conv(channels_in: int, channels_out: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, **options)  # type: ignore[arg-type]


class Block(nn.Module):
    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        c = channels
        self.conv = nn.Sequential(conv(c, c), nn.ReLU(), conv(c, c), nn.ReLU(), conv(c, c))
        self.fuse = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def make_encoder() -> nn.Sequential:
    """Picture `[B,3,H,W]` in [0,1] to scaled SD1.5 latent `[B,4,H/8,W/8]`."""
    layers: list[nn.Module] = [conv(3, 64), Block()]
    for _ in range(3):
        layers += [conv(64, 64, stride=2, bias=False), Block(), Block(), Block()]
    return nn.Sequential(*layers, conv(64, 4))


def make_decoder() -> nn.Sequential:
    """Scaled SD1.5 latent `[B,4,h,w]` to picture `[B,3,8h,8w]`, about [0,1] (not clamped)."""
    layers: list[nn.Module] = [Clamp(), conv(4, 64), nn.ReLU()]
    for _ in range(3):
        layers += [Block(), Block(), Block(), nn.Upsample(scale_factor=2), conv(64, 64, bias=False)]
    return nn.Sequential(*layers, Block(), conv(64, 3))


class TinyAutoencoder(nn.Module):
    """Encoder and decoder side by side; latents are SD1.5 latents in scaled units."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = make_encoder(), make_decoder()

    def load_teacher(self, folder: str | Path) -> TinyAutoencoder:
        """Starts from the two files of TAESD (MIT): `taesd_encoder` and `taesd_decoder.safetensors`."""
        for name, part in (("encoder", self.encoder), ("decoder", self.decoder)):
            weights = load_file(Path(folder) / f"taesd_{name}.safetensors")
            part.load_state_dict({key: value.float() for key, value in weights.items()})
        return self

    def load_exported(self, path: str | Path) -> TinyAutoencoder:
        """Reads back what `state_for_comfyui` wrote."""
        for part, weights in zip((self.encoder, self.decoder), split_taesd(load_file(path)), strict=True):
            part.load_state_dict({key: value.float() for key, value in weights.items()})
        return self

    def state_for_comfyui(self) -> dict[str, Tensor]:
        """One file that ComfyUI's VAE loader detects as TAESD in the SD1.5 latent space."""
        encoder, decoder = (
            {key: value.half().contiguous() for key, value in part.state_dict().items()}
            for part in (self.encoder, self.decoder)
        )
        return join_taesd(encoder, decoder)
