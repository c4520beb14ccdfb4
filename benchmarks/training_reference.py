"""What Stage 2 is compared with: the loop body of diffusers' text-to-image fine-tuning example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from training.base_model import frozen, load_scheduler, load_text, load_unet, load_vae


class ReferenceStep:
    """Encode pictures and captions, add noise, predict it, step AdamW: one call is one step.

    Args:
        base: pipeline folder.
        resolution, batch: of the random pictures.
    """

    def __init__(self, base: Path, accelerator: Accelerator, resolution: int, batch: int) -> None:
        self.accelerator = accelerator
        device = accelerator.device
        self.vae: Any = load_vae(str(base)).to(device)
        tokenizer, encoder = load_text(str(base))
        self.encoder: Any = encoder.to(device)
        self.scheduler: Any = load_scheduler(str(base))
        unet: Any = load_unet(str(base)).train()
        if resolution >= 512:
            unet.enable_gradient_checkpointing()
        self.parameters = list(unet.parameters())
        self.unet, self.optimiser = accelerator.prepare(
            unet.to(device), torch.optim.AdamW(self.parameters, lr=1e-4)
        )
        self.pictures = torch.rand(batch, 3, resolution, resolution, device=device) * 2 - 1
        captions = ["a bright window"] * batch
        length = tokenizer.model_max_length
        self.ids = tokenizer(
            captions, max_length=length, padding="max_length", return_tensors="pt"
        ).input_ids.to(device)

    def __call__(self) -> None:
        with torch.no_grad():
            latents = self.vae.encode(self.pictures).latent_dist.sample() * self.vae.config["scaling_factor"]
            states = self.encoder(self.ids).last_hidden_state
        noise = torch.randn_like(latents)
        steps = self.scheduler.config["num_train_timesteps"]
        timesteps = torch.randint(0, steps, (len(latents),), device=latents.device)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        predicted = self.unet(noisy, timesteps, encoder_hidden_states=states).sample
        loss = torch.nn.functional.mse_loss(predicted.float(), noise.float())
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()


def write_sd15(base: Path) -> None:
    """Replace the miniature networks by random ones of Stable Diffusion 1.5's size."""
    make_vae: Any = AutoencoderKL
    make_vae(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    ).save_pretrained(base / "vae")
    UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8).save_pretrained(base / "unet")
    config = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=188,
        eos_token_id=189,
        pad_token_id=189,
    )
    frozen(CLIPTextModel(config)).save_pretrained(base / "text_encoder")
