"""Captions to cross-attention states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training.base_model import load_text
from training.data.cache import ContentCache, network_hash
from training.data.samples import content_key


class CaptionEncoder:
    """A frozen CLIP text encoder: last hidden state after the final layer norm, unmasked unless asked.

    Args:
        tokenizer, encoder: as in Stable Diffusion 1.x.
        mask_padding: hide padding tokens from the encoder, as published for training.
        cache: keeps the states of captions seen before.
    """

    def __init__(
        self, tokenizer: Any, encoder: Any, *, mask_padding: bool, cache: ContentCache | None
    ) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.mask_padding = mask_padding
        self.cache = cache

    def __call__(self, captions: Sequence[str], device: torch.device) -> Tensor:
        """[B, tokens, width] float32."""
        if self.cache is None:
            return self._encode(list(captions), device)
        return torch.cat([self._remembered(self.cache, caption, device) for caption in captions])

    def as_at_inference(self) -> CaptionEncoder:
        """What the sampler nodes and the published pipelines make of a prompt: nothing is masked."""
        if not self.mask_padding:
            return self
        return CaptionEncoder(self.tokenizer, self.encoder, mask_padding=False, cache=None)

    def _remembered(self, cache: ContentCache, caption: str, device: torch.device) -> Tensor:
        key = content_key(caption)
        stored = cache.get(key)
        if stored is None:
            # One at a time and rounded as stored: a state must not depend on when it was computed.
            stored = {"states": self._encode([caption], device).half()}
            cache.put(key, stored)
        return stored["states"].to(device, torch.float32)

    @torch.no_grad()
    def _encode(self, captions: list[str], device: torch.device) -> Tensor:
        tokens = self.tokenizer(
            captions,
            max_length=self.tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.to(device) if self.mask_padding else None
        return self.encoder(tokens.input_ids.to(device), attention_mask=mask).last_hidden_state.float()


class ConstantContext:
    """The same context for every sample: one zero token for models without text.

    Args:
        width: cross-attention width of the UNet.
    """

    def __init__(self, width: int) -> None:
        self.state = torch.zeros(1, 1, width)

    def __call__(self, captions: Sequence[str], device: torch.device) -> Tensor:
        """[B, 1, width] float32."""
        return self.state.to(device).expand(len(captions), -1, -1)

    def as_at_inference(self) -> ConstantContext:
        """The same."""
        return self


def open_captions(
    mode: str, model: str, *, width: int, mask_padding: bool, cache_root: Any, device: torch.device
) -> CaptionEncoder | ConstantContext:
    """What `text` asks for; `empty` is a caption encoder that the trainer feeds empty captions."""
    if mode == "none":
        return ConstantContext(width)
    tokenizer, encoder = load_text(model)
    cache = None
    if cache_root is not None:
        cache = ContentCache(cache_root / "text", network_hash(encoder, mask_padding))
    return CaptionEncoder(tokenizer, encoder.to(device), mask_padding=mask_padding, cache=cache)
