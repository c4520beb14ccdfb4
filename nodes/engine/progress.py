"""One progress bar over both passes, with previews of both branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher

Callback = Callable[[int, torch.Tensor, torch.Tensor, int], None]
"""What core's samplers call after a step: its number, x0, x, and the number of steps."""


class DualProgress:
    """Callbacks for the two sampling passes of one node."""

    def __init__(self, sdr_steps: int, gain_map_steps: int) -> None:
        self.sdr_steps = sdr_steps
        self.total = sdr_steps + gain_map_steps
        self.bar = comfy.utils.ProgressBar(self.total)
        self.sdr_x0: torch.Tensor | None = None

    def sdr(self, model: ModelPatcher) -> Callback:
        """Shows the SDR picture as stock samplers do."""
        previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

        def callback(step: int, x0: torch.Tensor, x: torch.Tensor, total_steps: int) -> None:
            self.sdr_x0 = x0
            # dpm_adaptive takes more steps than there are noise levels.
            self._show(min(step + 1, self.sdr_steps), previewer, x0)

        return callback

    def gain_map(self, model: ModelPatcher) -> Callback:
        """Shows the finished SDR picture and, beside it, the gain map as it develops."""
        previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

        def callback(step: int, x0: torch.Tensor, x: torch.Tensor, total_steps: int) -> None:
            self._show(self.sdr_steps + step + 1, previewer, beside(self.sdr_x0, x0))

        return callback

    def _show(self, done: int, previewer: Any, x0: torch.Tensor) -> None:
        image = previewer.decode_latent_to_preview_image("JPEG", x0) if previewer else None
        self.bar.update_absolute(done, self.total, image)


def beside(sdr_x0: torch.Tensor | None, x0: torch.Tensor) -> torch.Tensor:
    """The first picture of both branches as one latent, twice as wide; a smaller gain map is enlarged."""
    if sdr_x0 is None:
        return x0
    gain_map = torch.nn.functional.interpolate(x0[:1], size=sdr_x0.shape[-2:])
    return torch.cat([sdr_x0[:1].to(x0), gain_map], dim=-1)
