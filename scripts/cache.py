"""Folders that are either complete or rebuilt: what an interrupted build left is never used."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .console import Step

COMPLETE = ".complete"


class CacheError(RuntimeError):
    """Nothing says where the cache is to be."""


def cache_root() -> Path:
    """GMHDR_CACHE, or a folder in the home folder.

    Raises:
        CacheError: the home folder is not known, as that of a container's numbered user.
    """
    try:
        return Path(os.environ.get("GMHDR_CACHE") or "~/.cache/gm-hdr").expanduser().resolve()
    except RuntimeError as error:
        raise CacheError(f"{error} Set GMHDR_CACHE to the folder for the cache.") from error


def fingerprint(files: Sequence[Path], *words: str) -> str:
    digest = hashlib.sha256("\n".join(words).encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a file lock, which the system releases when this process and those it started have ended.

    A killed build may leave a pip behind that still writes: it inherits the lock, and the next build waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        os.set_inheritable(handle.fileno(), True)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with Step(f"Waiting for another process that builds {path.stem}"):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def mark_complete(marker: Path) -> None:
    """Writes the marker so that it exists only once everything before it is on disk."""
    os.sync()
    marker.touch()


def build_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Builds a folder at its final place (virtual environments do not move) unless that was done before."""
    marker = folder / COMPLETE
    if marker.exists():
        return
    with locked(folder.with_name(folder.name + ".lock")):
        if marker.exists():
            return
        if folder.exists():
            with Step(f"Removing the unfinished {folder}"):
                shutil.rmtree(folder)
        folder.mkdir(parents=True)
        build(folder)
        mark_complete(marker)
