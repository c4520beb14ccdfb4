"""Training samples: rows decoded, cropped and flipped together; unusable rows give way to the next one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gm_core.codecs.files import read_image
from gm_core.codecs.formats import decode_image
from gm_core.color import convert_primaries
from gm_core.errors import GainMapError
from training.data.crop import Crop, apply_crop, plan_crop
from training.data.decode import decode_gain_map, decode_sdr, image_size, read_bytes
from training.data.plan import Draw, RankBatches
from training.data.rows import Reject, Row
from training.data.table import RowTable
from training.errors import DatasetError, RejectedSample

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# Rows tried in place of an unusable one before giving up on the data set.
MAX_REPLACEMENTS = 64
# A gain map or ground truth may differ from its picture's shape by rounding to its own resolution, not more.
MAX_ASPECT_ERROR = 0.03

SampleT = TypeVar("SampleT")
BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class Loaded(Generic[SampleT]):
    """A sample and the rows that were tried in vain before it."""

    sample: SampleT
    rejects: list[Reject] = field(default_factory=list)


@dataclass(frozen=True)
class Photo:
    """Stage 1 sample. sdr [3,H,W] in [0,1]; hdr [3,H,W] linear, 1.0 = SDR white, where it is known."""

    number: int
    sdr: Tensor
    hdr: Tensor | None


@dataclass(frozen=True)
class Triple:
    """Stage 2 sample. pixels: SDR and coded gain map [3,H,W] in [0,1]; absent when `moments` were cached."""

    number: int
    row: Row
    content: str
    pixels: tuple[Tensor, Tensor] | None
    moments: dict[str, Tensor] | None = None


@dataclass(frozen=True)
class CropRule:
    """How crops are drawn. `variants` limits the different crops of a picture, so that they can be cached."""

    seed: int
    center: bool
    flip: bool
    variants: int | None = None

    def crop(self, picture: tuple[int, int], draw: Draw) -> Crop:
        """The crop of one draw."""
        number = (
            draw.number if self.variants is None else draw.index * self.variants + draw.number % self.variants
        )
        return plan_crop(
            picture, draw.size, seed=self.seed, number=number, center=self.center, flip=self.flip
        )


class SampleDataset(Dataset[Loaded[SampleT]], Generic[SampleT]):
    """A row table and a function that makes a sample of a row and a draw.

    The function raises RejectedSample for rows that cannot be used; the next row takes their place.
    """

    def __init__(self, table: RowTable, load: Callable[[Row, Draw], SampleT]) -> None:
        self.table = table
        self.load = load

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, draw: Draw) -> Loaded[SampleT]:
        """Raises: DatasetError when no row near this one can be used."""
        rejects: list[Reject] = []
        for offset in range(min(MAX_REPLACEMENTS, len(self.table))):
            row = self.table[(draw.index + offset) % len(self.table)]
            if isinstance(row, Reject):
                rejects.append(row)
                continue
            try:
                return Loaded(self.load(row, draw), rejects)
            except RejectedSample as reject:
                rejects.append(Reject(row.key, reject.reason, reject.detail))
        raise DatasetError(f"{len(rejects)} rows in a row are unusable, the last one: {rejects[-1]}")

    def __getitems__(self, draws: list[Draw]) -> list[Loaded[SampleT]] | DatasetError:
        """A batch; its error as a value, since torch makes texts of those that are raised in workers."""
        try:
            return [self[draw] for draw in draws]
        except DatasetError as error:
            return error


def load_photo(rule: CropRule, row: Row, draw: Draw) -> Photo:
    """Decode and crop a picture, and its ground truth where it has one. Raises: RejectedSample."""
    picture = decode_sdr(read_bytes(row.image), min_side=8)
    crop = rule.crop((picture.height, picture.width), draw)
    return Photo(draw.number, apply_crop(picture, crop), _cropped_truth(row, picture, crop))


def load_triple(
    rule: CropRule, cached: Callable[[str], dict[str, Tensor] | None], row: Row, draw: Draw
) -> Triple:
    """Decode and crop a picture with its gain map, unless `cached(content)` knows their latents.

    Raises: RejectedSample.
    """
    if row.gain_map is None:
        raise RejectedSample(
            "missing_gainmap", f"row {row.key} has no gain map; `python -m training triples` makes them"
        )
    image, gain_map = read_bytes(row.image), read_bytes(row.gain_map)
    crop = rule.crop(image_size(image), draw)
    content = content_key(image, gain_map, crop.label(), repr((row.spec, row.coding)))
    moments = cached(content)
    if moments is not None:
        return Triple(draw.number, row, content, None, moments)
    picture, coded = decode_sdr(image, min_side=8), decode_gain_map(gain_map)
    check_shapes((picture.height, picture.width), coded.shape[:2])
    pixels = apply_crop(picture, crop), apply_crop(coded, crop).clamp_(0, 1)
    return Triple(draw.number, row, content, pixels)


def _cropped_truth(row: Row, picture: Image.Image, crop: Crop) -> Tensor | None:
    if row.hdr is None:
        return None
    truth = read_truth(row.hdr)
    check_shapes((picture.height, picture.width), truth.shape[:2], "hdr")
    return apply_crop(truth, crop)


def read_truth(source: bytes | Path) -> NDArray[np.float32]:
    """Ground truth [H,W,3], linear BT.2020 (Stage 1's primaries), 1.0 = SDR white.

    Raises: RejectedSample `unreadable_hdr`.
    """
    try:
        image = decode_image(source) if isinstance(source, bytes) else read_image(source)
    except GainMapError as error:
        raise RejectedSample("unreadable_hdr", str(error)[:200]) from error
    if not np.isfinite(image.hdr).all():
        # One of them is enough to make the loss, and with it all weights, NaN.
        raise RejectedSample("unreadable_hdr", "some pixels are NaN or infinite")
    linear = torch.from_numpy(image.hdr).movedim(-1, 0)[None]
    return convert_primaries(linear, image.primaries, "bt2020")[0].movedim(0, -1).clamp(min=0).numpy()


def check_shapes(picture: Sequence[int], other: Sequence[int], what: str = "gainmap") -> None:
    """Raises: RejectedSample `gainmap_size` or `hdr_size` when `other` is of another picture."""
    ratio = (picture[0] / picture[1]) / (other[0] / other[1])
    slack = MAX_ASPECT_ERROR + 1 / min(other)
    if not 1 / (1 + slack) <= ratio <= 1 + slack:
        raise RejectedSample(
            f"{what}_size", f"picture {picture[1]}x{picture[0]}, {what} {other[1]}x{other[0]}"
        )


def content_key(*parts: bytes | str) -> str:
    """Hash of everything that determines a sample's pixels."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest()


def make_loader(
    dataset: SampleDataset[SampleT], batches: RankBatches, workers: int
) -> Iterator[list[Loaded[SampleT]]]:
    """Lists of samples in the order of the plan; workers change the speed, nothing else.

    They start with the first list, so that whoever asks for it decides before what signals do.

    Raises: DatasetError with the first batch that has no usable row.
    """
    if workers:
        _allow_open_files()
    loader = DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]  # draws, not integers
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=_heed_parent_alone,
        pin_memory=False,
    )
    for batch in loader:
        if isinstance(batch, DatasetError):
            raise batch
        yield batch


def _allow_open_files() -> None:
    """Raise the limit on open files to what the system grants: workers hand over every tensor as one of them,
    and the usual 1024 are fewer than the pictures of a large batch in several parts.
    """
    if resource is not None:
        _, granted = resource.getrlimit(resource.RLIMIT_NOFILE)
        # What macOS grants, no end, it refuses to set.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (granted, granted))


def _as_it_is(batch: BatchT) -> BatchT:
    return batch


def _heed_parent_alone(worker: int) -> None:
    # Ctrl-C, launchers and schedulers signal every process; only the main process decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)


def _end_with(parent: int) -> None:
    # Not ignored: a parent that leaves in a hurry asks by SIGTERM too, and waits for the worker's end.
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
