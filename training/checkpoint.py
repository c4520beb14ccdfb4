"""Checkpoints that survive kills, full disks and rot.

A checkpoint is a folder `checkpoint-<step>`. It is written under another name, every file is hashed
into `manifest.json` and flushed, and only then it is renamed: a folder with the final name is whole,
or was damaged afterwards, which the hashes reveal.

The newest is the one written last, not the one of the highest step: a run that went back to an earlier
checkpoint, or goes on with larger batches, counts from a lower step.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from training.errors import CheckpointError

logger = logging.getLogger(__name__)

PREFIX = "checkpoint-"
MANIFEST = "manifest.json"
# How many checkpoints of the run were written before; in the folder, since copies lose their times.
ORDER = "order.json"
_CHUNK = 1 << 24


class CheckpointStore:
    """The checkpoints of one run, in the order in which they were written.

    Args:
        root: the run's output folder.
        limit: how many to keep; None keeps all.
    """

    def __init__(self, root: Path, limit: int | None = None) -> None:
        self.root = root
        self.limit = limit

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Write `checkpoint-<step>` through `write(folder)`, then drop the oldest beyond the limit.

        Raises: CheckpointError when writing fails; older checkpoints are untouched then.
        """
        final = self.root / f"{PREFIX}{step:08d}"
        partial = self.root / f".{final.name}.partial"
        try:
            self._discard_partial()
            partial.mkdir(parents=True)
            write(partial)
            (partial / ORDER).write_text(str(self._next_order()), encoding="utf-8")
            _seal(partial)
            self._put_in_place(partial, final)
        except (OSError, SafetensorError) as error:
            self._discard_partial()
            raise CheckpointError(
                f"could not write {final}: {error}; older checkpoints are untouched: make room and resume"
            ) from error
        self._prune()
        return final

    def all(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        found = [path for path in self.root.glob(f"{PREFIX}*") if path.is_dir() and step_of(path) is not None]
        return sorted(found, key=lambda path: (order_of(path), step_of(path) or 0))

    def latest(self) -> Path | None:
        """The newest undamaged checkpoint; damaged newer ones are reported and passed over."""
        for path in reversed(self.all()):
            damage = find_damage(path)
            if damage is None:
                return path
            logger.warning("%s is damaged (%s); falling back to the one before", path, damage)
        return None

    def resolve(self, wanted: str | None) -> Path | None:
        """Turn `resume_from_checkpoint` into a folder: None, 'latest', or a path.

        'latest' is None only where there is no checkpoint at all: a run that began again beside damaged ones
        would write over what can still be saved of them.

        Raises: CheckpointError when a named checkpoint is absent or damaged, or all of them are.
        """
        if wanted is None:
            return None
        if wanted == "latest":
            newest = self.latest()
            if newest is None and self.all():
                raise CheckpointError(
                    f"none of the {len(self.all())} checkpoints in {self.root} is whole; bring a copy back, "
                    "or move them away (or choose another output_dir) to begin again"
                )
            return newest
        path = Path(wanted) if Path(wanted).is_dir() else self.root / wanted
        if not path.is_dir():
            raise CheckpointError(
                f"checkpoint {wanted} does not exist, nor does {path}; use 'latest' or a folder"
            )
        damage = find_damage(path)
        if damage is not None:
            raise CheckpointError(f"checkpoint {path} is damaged ({damage}); use 'latest' to fall back")
        return path

    def _put_in_place(self, partial: Path, final: Path) -> None:
        """Renames alone, the removal after them: a kill while gigabytes are removed costs neither of both."""
        before = self.root / f".{final.name}.before.partial"
        if final.exists():
            os.replace(final, before)
        os.replace(partial, final)
        _flush(self.root)
        shutil.rmtree(before, ignore_errors=True)

    def _next_order(self) -> int:
        known = [order for order in map(order_of, self.all()) if order < sys.maxsize]
        return max(known, default=-1) + 1

    def _discard_partial(self) -> None:
        for path in self.root.glob(f".{PREFIX}*.partial"):
            shutil.rmtree(path, ignore_errors=True)

    def _prune(self) -> None:
        if self.limit is not None:
            # What does not say when it was written counts as old here, or what is whole would give way to it.
            by_age = sorted(self.all(), key=lambda path: order_of(path) < sys.maxsize)
            for path in by_age[: -max(1, self.limit)]:
                try:
                    shutil.rmtree(path)
                except OSError as error:
                    # Of another owner, or read by someone on a network drive: no reason to end the run.
                    logger.warning("%s is one too many, but cannot be removed: %s", path, error)


def step_of(path: Path) -> int | None:
    """The step in a checkpoint's name, None for other names."""
    digits = path.name.removeprefix(PREFIX)
    return int(digits) if path.name.startswith(PREFIX) and digits.isdigit() else None


def order_of(path: Path) -> int:
    """How many checkpoints were written before this one; -1 where the folder does not say."""
    if not (path / ORDER).exists():
        return -1
    try:
        return int((path / ORDER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Looked at first, so that its damage is reported.
        return sys.maxsize


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint folder, None when every file matches its manifest."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in manifest.items():
            if _digest(path / name) != expected:
                return f"{name} differs from what was written"
    except OSError as error:
        return f"{Path(error.filename or MANIFEST).name} is missing or unreadable"
    except (ValueError, AttributeError):
        return f"{MANIFEST} is not readable"
    return None


def _seal(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {path.relative_to(folder).as_posix(): _digest(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (*files, folder / MANIFEST, *{path.parent for path in files}, folder):
        _flush(path)


def _digest(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def _flush(path: Path) -> None:
    if path.is_dir():
        # Windows opens no folders, and needs no flush of them.
        with suppress(PermissionError):
            _sync(path, os.O_RDONLY)
    else:
        # Windows flushes only what may be written.
        _sync(path, os.O_RDWR)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
