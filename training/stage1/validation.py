"""What a Stage 1 model makes of pictures: strips, and how well the maps explain them."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from training.config import Stage1Config
from training.data.decode import decode_sdr, read_bytes
from training.data.sources import pictures_below
from training.errors import ConfigError, RejectedSample
from training.files import replace_file
from training.pictures import from_image, png, stack_rows, strip
from training.stage1.losses import reconstruction_loss
from training.stage1.model import Stage1Model
from training.trackers import Trackers

logger = logging.getLogger(__name__)

MAX_PICTURES = 8
STRIDE = 8


class Stage1Validation:
    """Pictures of `validation_image_dir`, any format, any size, undamaged."""

    def __init__(self, config: Stage1Config) -> None:
        self.config = config
        self.pictures = load_pictures(config) if config.validation_steps else []

    @torch.no_grad()
    def run(
        self, step: int, model: Stage1Model, trackers: Trackers, device: torch.device
    ) -> dict[str, float]:
        """Write `validation/step-<n>.png` and return the figures."""
        if not self.pictures:
            return {}
        strips, losses, peaks = [], [], []
        for sdr in self.pictures:
            gain_map, hdr, explained = explain_picture(model, sdr.to(device))
            strips.append(strip(sdr[0], gain_map[0], hdr[0], "bt2020"))
            losses.append(float(reconstruction_loss(explained, sdr.to(device), "l2")))
            peaks.append(float(hdr.amax()))
        sheet = stack_rows(strips)
        folder = Path(self.config.output_dir) / "validation"
        replace_file(folder / f"step-{step:08d}.png", png(sheet))
        trackers.picture(step, "validation", sheet)
        return {"val_reconstruction": sum(losses) / len(losses), "val_peak": sum(peaks) / len(peaks)}


def explain_picture(model: Stage1Model, sdr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gain map, HDR and explained SDR [1,3,H,W] of one picture of any size."""
    height, width = sdr.shape[2:]
    padding = (0, -width % STRIDE, 0, -height % STRIDE)
    explained = model(torch.nn.functional.pad(sdr, padding, mode="replicate"))
    gain_map, hdr, back = (value[..., :height, :width] for value in explained)
    return gain_map, hdr, back


def load_pictures(config: Stage1Config) -> list[Tensor]:
    """The first pictures of the validation folder [1,3,H,W], their short side at most the resolution."""
    if config.validation_image_dir is None:
        return []
    folder = Path(config.validation_image_dir)
    files = pictures_below(folder)
    if not files:
        raise ConfigError(f"validation_image_dir {folder} holds no pictures")
    loaded: list[Tensor] = []
    for file in files:
        if len(loaded) == MAX_PICTURES:
            break
        try:
            picture = decode_sdr(read_bytes(file), min_side=STRIDE)
        except RejectedSample as reject:
            logger.warning("validation picture %s left out: %s", file, reject)
            continue
        scale = min(1.0, config.resolution / min(picture.size))
        loaded.append(
            from_image(picture.resize((round(picture.width * scale), round(picture.height * scale))))
        )
    return loaded
