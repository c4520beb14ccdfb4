"""Finding pictures, and bringing whatever Pillow reads into the form ComfyUI's LoadImage understands."""

from __future__ import annotations

import io
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
WHITE = (255, 255, 255, 255)


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
    """The file itself, or every picture in a folder and below it, but for an output folder inside it."""
    if source.is_file():
        return [source]
    found = (path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    inside = source in output.parents
    return sorted(
        path for path in found if not path.name.startswith(".") and not (inside and output in path.parents)
    )


def plan(photos: Sequence[Path], source: Path, output: Path) -> list[Job]:
    """One job per picture; pictures that share a stem keep their suffix in the name: photo_png.exr.

    Raises:
        PhotoError: a picture would be overwritten.
    """
    root = source if source.is_dir() else source.parent
    stems = [photo.relative_to(root).with_suffix("") for photo in photos]
    shared = Counter(str(stem).casefold() for stem in stems)
    jobs = []
    for photo, stem in zip(photos, stems, strict=True):
        clash = shared[str(stem).casefold()] > 1
        name = f"{stem.name}_{photo.suffix.lstrip('.')}" if clash else stem.name
        jobs.append(Job(photo=photo, target=output / stem.with_name(name)))
    overwritten = {path for job in jobs for path in job.files().values()} & set(photos)
    if overwritten:
        raise PhotoError(f"OUT is where the pictures are: {min(overwritten)} would be overwritten.")
    return jobs


def prepare(photo: Path, destination: Path) -> None:
    """Writes a picture upright, opaque, in 8-bit sRGB.

    Raises:
        PhotoError: not a picture, damaged, too large, or not SDR.
    """
    try:
        with Image.open(photo) as opened:
            image = to_rgb(ImageOps.exif_transpose(opened))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PhotoError(f"cannot be read as a picture: {error or type(error).__name__}") from error
    image.save(destination, format="PNG", compress_level=1)


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise PhotoError("holds floating-point pixels; SDR pictures of 8 or 16 bits are converted")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65535) / 257 + 0.5).astype(np.uint8))
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    if image.mode not in ("RGB", "CMYK", "L"):
        image = image.convert("RGB")
    return to_srgb(image, profile) if profile else image.convert("RGB")


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Converts from an embedded profile; one that is damaged or does not fit is ignored, as browsers do."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if ImageCms.getProfileDescription(source).startswith("sRGB"):
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):
        return image.convert("RGB")
    assert converted is not None
    return converted


def publish(source: Path, target: Path) -> None:
    """Copies a finished file so that the target is at any moment absent, old or complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(source, partial)
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
