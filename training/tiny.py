"""A Stable Diffusion 1.x model in miniature and photos to go with it, both from a fixed seed.

For the self-test, the test suite and the benchmarks: the same classes, names and code paths as the real
thing, a few hundred thousand random weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from gm_core.vae_keys import SD15_LATENT_SCALE
from training.base_model import sd15_scheduler
from training.random_streams import generator

TOKENS = 16
WIDTH = 32
CAPTIONS = ("a bright window", "sun over a field", "a lamp at night", "sky with clouds")


def make_base_model(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline folder with vae, unet, text_encoder, tokenizer and scheduler."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tiny_vae().save_pretrained(folder / "vae")
        tiny_unet().save_pretrained(folder / "unet")
        tokenizer = make_tokenizer(folder / "tokenizer")
        tiny_text_encoder(len(tokenizer)).save_pretrained(folder / "text_encoder")
    sd15_scheduler().save_pretrained(folder / "scheduler")
    return folder


def tiny_vae() -> AutoencoderKL:
    """Four levels as in Stable Diffusion (a factor of 8), 8 channels wide."""
    make: Any = AutoencoderKL
    return make(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=SD15_LATENT_SCALE,
    )


def tiny_unet() -> UNet2DConditionModel:
    """Two levels, 32 groups and 8 heads, which is what ComfyUI assumes of every such UNet."""
    make: Any = UNet2DConditionModel
    return make(
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
    )


def tiny_text_encoder(vocabulary: int) -> CLIPTextModel:
    """Two CLIP layers."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return CLIPTextModel(config)


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer that spells in letters."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({word: number for number, word in enumerate(words)}), encoding="utf-8")
    merges.write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(str(vocabulary), str(merges), model_max_length=TOKENS)
    tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def make_photos(folder: Path, count: int, *, side: int = 96, seed: int = 0) -> Path:
    """Write `count` PNG pictures of soft colours with bright spots, and a caption beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        height, width = (side, side + 32) if number % 2 else (side + 32, side)
        Image.fromarray(make_photo(height, width, seed=seed + number)).save(
            folder / f"photo_{number:03d}.png"
        )
        caption = f"{CAPTIONS[number % len(CAPTIONS)]} {number}"
        (folder / f"photo_{number:03d}.txt").write_text(caption, encoding="utf-8")
    return folder


def make_photo(height: int, width: int, *, seed: int) -> np.ndarray:
    """[H,W,3] uint8."""
    random = generator(seed, "photo", height * 10000 + width)
    coarse = torch.rand(1, 3, 4, 4, generator=random)
    soft = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    place = torch.rand(2, generator=random)
    spot = torch.exp(-80 * ((rows - place[0]) ** 2 + (columns - place[1]) ** 2))
    picture = (0.8 * soft[0] + spot).clamp(0, 1)
    return (picture * 255).round().to(torch.uint8).movedim(0, -1).numpy()
