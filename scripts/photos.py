"""Finding pictures, and bringing whatever Pillow reads into the form ComfyUI's LoadImage understands."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from gm_core.codecs.pillow_srgb import to_srgb8
from gm_core.codecs.signal import HLG, PQ
from gm_core.errors import ImageReadError

HEIC = {".heic", ".heif"}
"""Photos of phones, which Pillow cannot read: they are named, not left out in silence."""
SUFFIXES = HEIC | {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
RESULT_MARK = b"GMHDRMerge"
HEADER_BYTES = 1 << 16
CURVE_TAGS = {"PNG": (b"cICP", slice(1, 2)), "AVIF": (b"colrnclx", slice(2, 4))}
"""Where a file tells of its tone curve: after this tag, in these bytes."""


class PhotoError(RuntimeError):
    """A file is no picture that can be converted; the message says why."""


@dataclass(frozen=True)
class Job:
    """A picture, and where its files go: `target` plus .exr, .jpg and _gm.png."""

    photo: Path
    target: Path

    def files(self) -> dict[str, Path]:
        """Class of the saving node -> final path."""
        suffixes = {"GMHDRSaveEXR": ".exr", "GMHDRSaveUltraHDR": ".jpg", "GMHDRSaveGainMap": "_gm.png"}
        return {node: self.target.with_name(self.target.name + suffix) for node, suffix in suffixes.items()}


def find_photos(source: Path, output: Path) -> list[Path]:
    """The file itself, or every picture in a folder and below it, but for hidden ones and the output folder.

    Links to folders are not followed. What cannot be read, also a folder, is listed too: it is named later.
    """
    if not source.is_dir():
        return [source]
    found: list[Path] = []

    def add_unreadable(error: OSError) -> None:
        found.append(Path(error.filename))

    for folder, below, names in os.walk(source, onerror=add_unreadable):
        below[:] = [name for name in below if not name.startswith(".") and Path(folder, name) != output]
        shown = (Path(folder, name) for name in names if not name.startswith("."))
        found += [path for path in shown if path.suffix.lower() in SUFFIXES]
    return sorted(found)


def plan(photos: Sequence[Path], source: Path, output: Path) -> list[Job]:
    """One job per picture; pictures that share a stem keep their suffix in the name: photo_png.exr.

    Raises:
        PhotoError: a file that is not an earlier result would be overwritten.
    """
    root = source if source.is_dir() else source.parent
    if output == root:
        raise PhotoError(f"OUT={output} is where the pictures are: choose another folder.")
    stems = [photo.relative_to(root).with_suffix("") for photo in photos]
    shared = Counter(str(stem).casefold() for stem in stems)
    taken = set(shared)
    jobs = []
    for photo, stem in zip(photos, stems, strict=True):
        if shared[str(stem).casefold()] > 1:
            stem = free_name(stem, photo.suffix, taken)
        jobs.append(Job(photo=photo, target=output / stem))
    targets = {path for job in jobs for path in job.files().values()}
    foreign = targets & set(photos) | {path for path in targets if not is_absent_or_result(path)}
    if foreign:
        raise PhotoError(f"{min(foreign)} would be overwritten: choose another folder for OUT.")
    return jobs


def free_name(stem: Path, suffix: str, taken: set[str]) -> Path:
    """The stem with its suffix as often as nothing else is called so; what is returned is taken."""
    while str(stem).casefold() in taken:
        stem = stem.with_name(f"{stem.name}_{suffix.lstrip('.')}")
    taken.add(str(stem).casefold())
    return stem


def is_absent_or_result(path: Path) -> bool:
    """Whether there is no such file, or one that tells of the nodes that wrote it."""
    if not path.exists():
        return True
    with path.open("rb") as file:
        return RESULT_MARK in file.read(HEADER_BYTES)


def prepare(photo: Path, destination: Path) -> None:
    """Writes a picture upright, opaque, in 8-bit sRGB.

    Raises:
        PhotoError: not a picture, damaged, too large, or not SDR.
    """
    try:
        if photo.exists() and not photo.is_file() and not photo.is_dir():
            raise PhotoError("is neither a file nor a folder")
        with Image.open(photo) as opened:
            if is_hdr(photo, opened.format):
                raise PhotoError("is an HDR picture already (PQ or HLG): open it with Load HDR Image")
            image = to_srgb8(opened)
    except PhotoError:
        raise
    except ImageReadError as error:
        raise PhotoError(str(error)) from error
    except Exception as error:
        # Pillow documents no closed list of what a damaged picture raises.
        hint = "HEIC is not read, save it as JPEG or PNG" if photo.suffix.lower() in HEIC else ""
        raise PhotoError(f"cannot be read as a picture: {hint or error or type(error).__name__}") from error
    image.save(destination, format="PNG", compress_level=1)


def is_hdr(photo: Path, kind: str | None) -> bool:
    """Whether a PNG or AVIF states the PQ or HLG curve by its number, which Pillow does not look at."""
    if kind not in CURVE_TAGS:
        return False
    tag, transfer = CURVE_TAGS[kind]
    with photo.open("rb") as file:
        _, found, numbers = file.read(HEADER_BYTES).partition(tag)
    return bool(found) and int.from_bytes(numbers[transfer], "big") in (PQ, HLG)


def publish(source: Path, target: Path) -> None:
    """Copies a finished file so that the target is at any moment absent, old or complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not made of the target's name, which may already be as long as names can be.
    partial = target.with_name(f".gm-hdr.{os.getpid()}.part")
    try:
        shutil.copyfile(source, partial)
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
