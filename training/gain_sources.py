"""Where a triple's gain map comes from: a Stage 1 VAE, the closed form of its objective, or ground truth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gm_core.gain_coding import GainCoding, restate_coded
from gm_core.gain_map import GainMapSpec, extract_gain_map
from gm_core.model_info import GainMapModelInfo
from gm_core.tonemap import analytic_gain_map
from training.base_model import load_vae
from training.config import TriplesConfig
from training.data.cache import network_hash
from training.data.crop import Crop, apply_crop
from training.data.rows import Row
from training.data.samples import check_shapes, read_truth
from training.errors import RejectedSample
from training.pictures import to_numpy
from training.stage1.adapter import find_adapter, merge_adapter, stated_info
from training.stage1.model import Stage1Model

logger = logging.getLogger(__name__)

# Padded sides are multiples of this, so that pictures of similar shape share a batch.
STRIDE = 64


@dataclass(frozen=True)
class Picture:
    """An SDR picture at working size.

    Args:
        sdr: [3,h,w] in [0,1], padded to multiples of STRIDE.
        size: (height, width) of the source.
        working: (height, width) without the padding.
        hdr: [3,h,w] ground truth, linear BT.2020, padded alike.
    """

    sdr: Tensor
    size: tuple[int, int]
    working: tuple[int, int]
    hdr: Tensor | None = None


class GainSource(Protocol):
    """Makes coded gain maps [h,w,3] in [0,1] of pictures of one padded size."""

    identity: str
    operator: str

    def prepare(self, picture: Image.Image, row: Row) -> Picture:
        """Bring a picture to working size; runs in threads. Raises: RejectedSample."""
        ...

    def __call__(self, pictures: Sequence[Picture]) -> list[NDArray[np.float32]]:
        """One map per picture, without the padding."""
        ...


class AnalyticSource:
    """The closed form of Stage 1's objective: what an ideal VAE would say without exposure damage."""

    identity = "analytic"
    operator = "fix_mulog_tmo"

    def __init__(self, spec: GainMapSpec, coding: GainCoding, resolution: int) -> None:
        self.spec = spec
        self.coding = coding
        self.resolution = resolution

    def prepare(self, picture: Image.Image, row: Row) -> Picture:
        return working_picture(picture, self.resolution)

    def __call__(self, pictures: Sequence[Picture]) -> list[NDArray[np.float32]]:
        gain_map = self.gain_map(pictures)
        return unpadded(self.coding.from_gain_map(gain_map, spec=self.spec), pictures)

    def gain_map(self, pictures: Sequence[Picture]) -> Tensor:
        """[B,3,h,w], Eq. (1)'s."""
        return analytic_gain_map(torch.stack([picture.sdr for picture in pictures]), spec=self.spec)


class TruthSource(AnalyticSource):
    """The gain map that Eq. (1) needs to reach a row's ground-truth HDR."""

    identity = "ground truth"
    operator = "none"

    def prepare(self, picture: Image.Image, row: Row) -> Picture:
        if row.hdr is None:
            raise RejectedSample("missing_hdr", f"row {row.key} has no ground truth")
        truth = read_truth(row.hdr)
        check_shapes((picture.height, picture.width), truth.shape[:2], "hdr")
        return working_picture(picture, self.resolution, truth)

    def gain_map(self, pictures: Sequence[Picture]) -> Tensor:
        sdr = torch.stack([picture.sdr for picture in pictures])
        hdr = torch.stack([picture.hdr for picture in pictures])  # type: ignore[misc]
        return extract_gain_map(sdr=sdr, hdr=hdr, spec=self.spec, darken=True)


class VAESource:
    """The trained Stage 1 VAE, posterior mean.

    Its maps are brought to the qmax and coding of the triples where the adapter says what it was trained
    with; adapters of the original code do not, and are taken to mean the same.
    """

    operator = "stage1"

    def __init__(self, config: TriplesConfig, accelerator: Accelerator) -> None:
        assert config.pretrained_model_name_or_path is not None
        vae = load_vae(config.pretrained_model_name_or_path)
        self.wanted = self.learned = GainMapModelInfo(spec=config.spec, coding=config.coding)
        if config.vae_adapter is None:
            logger.warning("no vae_adapter: the maps come from the untrained base VAE")
        else:
            file = find_adapter(Path(config.vae_adapter))
            merge_adapter(vae, file)
            self.learned = stated_info(file) or self.wanted
        conversion = () if self.learned == self.wanted else (self.learned,)
        self.identity = f"vae {network_hash(vae, *conversion)[:16]}"
        self.device = accelerator.device
        self.autocast = accelerator.autocast
        self.resolution = config.resolution
        self.model = Stage1Model(
            vae, spec=config.spec, coding=config.coding, operator="fix_mulog_tmo", clamp_peak=False
        ).to(self.device)

    def prepare(self, picture: Image.Image, row: Row) -> Picture:
        return working_picture(picture, self.resolution)

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Picture]) -> list[NDArray[np.float32]]:
        sdr = torch.stack([picture.sdr for picture in pictures]).to(self.device)
        with self.autocast():
            coded = self.model.coded_map(sdr)
        return unpadded(self._restated(coded, sdr).cpu(), pictures)

    def _restated(self, coded: Tensor, sdr: Tensor) -> Tensor:
        learned, wanted = self.learned, self.wanted
        if learned == wanted:
            return coded
        gain_map = restate_coded(
            coded=coded, sdr=sdr, coding=learned.coding, spec=learned.spec, wanted=wanted.spec
        )
        return wanted.coding.from_gain_map(gain_map, spec=wanted.spec)


def open_gain_source(config: TriplesConfig, accelerator: Accelerator) -> GainSource:
    """The source that `gain_source` names. Raises: ConfigError or ModelFileError for unusable models."""
    if config.gain_source == "vae":
        return VAESource(config, accelerator)
    kind = AnalyticSource if config.gain_source == "analytic" else TruthSource
    return kind(config.spec, config.coding, config.resolution)


def working_picture(
    picture: Image.Image, resolution: int, truth: NDArray[np.float32] | None = None
) -> Picture:
    """Shrink to a short side of `resolution` (never enlarge), pad by repeating the border."""
    scale = min(1.0, resolution / min(picture.size))
    working = (max(1, round(picture.height * scale)), max(1, round(picture.width * scale)))
    whole = Crop(0, 0, 1, 1, working)
    hdr = None if truth is None else _padded(apply_crop(truth, whole))
    return Picture(_padded(apply_crop(picture, whole)), (picture.height, picture.width), working, hdr)


def unpadded(coded: Tensor, pictures: Sequence[Picture]) -> list[NDArray[np.float32]]:
    """[B,3,h,w] to one [h,w,3] array per picture at its working size."""
    return [
        to_numpy(value[:, : picture.working[0], : picture.working[1]])
        for value, picture in zip(coded, pictures, strict=True)
    ]


def _padded(pixels: Tensor) -> Tensor:
    height, width = pixels.shape[1:]
    padding = (0, -width % STRIDE, 0, -height % STRIDE)
    return torch.nn.functional.pad(pixels[None], padding, mode="replicate")[0]
