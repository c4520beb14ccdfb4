"""Perspective crops with known HDR ground truth, cut out of equirectangular HDR panoramas.

A panorama sees every direction once, so one file gives thousands of different pictures; the split between
training and validation is therefore by scene (file), never by crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from training.errors import DatasetError

Array = np.ndarray


@dataclass(frozen=True)
class View:
    """Where a virtual camera looks: angles in degrees, `fov` across the picture's width."""

    yaw: float
    pitch: float
    roll: float
    fov: float


def find_panoramas(folder: Path) -> list[Path]:
    """The .hdr files of a folder, by name.

    Raises:
        DatasetError: there is none.
    """
    found = sorted(folder.glob("*.hdr"))
    if not found:
        raise DatasetError(
            f"{folder}: no panorama (*.hdr) found; see training/builtin/README.md for where to get them"
        )
    return found


def load_panorama(path: str | Path) -> Array:
    """Reads a Radiance .hdr (or any format OpenCV reads as float) as `[H,W,3]` linear BT.709 float32, RGB
    order.

    Raises:
        DatasetError: it is no such picture.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    if picture is None:
        raise DatasetError(f"{path}: not a readable HDR picture; bring equirectangular .hdr files")
    return np.maximum(np.ascontiguousarray(picture[..., ::-1], dtype=np.float32), 0.0)


def random_view(rng: np.random.Generator) -> View:
    """A photographer's habit: mostly level, sometimes up into the sky or lamps, normal to wide lenses."""
    return View(
        yaw=float(rng.uniform(0, 360)),
        pitch=float(np.clip(rng.normal(2, 22), -70, 75)),
        roll=float(rng.normal(0, 3)),
        fov=float(rng.uniform(40, 100)),
    )


def rotation(view: View) -> Array:
    """Camera-to-world rotation `[3,3]` of a view (x right, y down, z forward)."""
    yaw, pitch, roll = np.radians([view.yaw, view.pitch, view.roll])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def render_view(panorama: Array, view: View, height: int, width: int) -> Array:
    """Renders a view of a panorama `[H,W,3]` as `[height,width,3]`, same units, area-averaged where it
    shrinks.
    """
    focal = 0.5 * width / np.tan(np.radians(view.fov) / 2)
    columns, rows = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    rays = np.stack([columns, rows, np.full_like(columns, focal)], axis=-1) @ rotation(view).T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    source_height, source_width = panorama.shape[:2]
    longitude = np.arctan2(rays[..., 0], rays[..., 2]) / (2 * np.pi) + 0.5
    latitude = np.arcsin(np.clip(rays[..., 1], -1, 1)) / np.pi + 0.5
    map_x = (longitude * source_width - 0.5).astype(np.float32)
    map_y = (latitude * source_height - 0.5).astype(np.float32)
    crop = cv2.remap(panorama, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.maximum(crop, 0.0)
