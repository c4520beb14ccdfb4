"""What a Stage 1 model makes of pictures: strips, and how well the maps explain them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from training.config import Stage1Config
from training.data.decode import decode_sdr, read_bytes
from training.data.sources import pictures_below
from training.errors import ConfigError
from training.pictures import from_image, strip
from training.stage1.losses import reconstruction_loss
from training.stage1.model import Stage1Model
from training.trackers import Trackers
from training.validation_pictures import first_usable, show_results

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
        show_results(strips, self.config.output_dir, step, trackers)
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

    def load(file: Path) -> Tensor:
        picture = decode_sdr(read_bytes(file), min_side=STRIDE)
        scale = min(1.0, config.resolution / min(picture.size))
        return from_image(picture.resize((round(picture.width * scale), round(picture.height * scale))))

    return first_usable(((str(file), file) for file in files), load, MAX_PICTURES)
