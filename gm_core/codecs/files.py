"""Files on disk: complete or absent, numbered without races; reading by content."""

from __future__ import annotations

import errno
import itertools
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import ImageReadError, ImageWriteError
from .formats import decode_image
from .image import HDRImage

MAX_FILE_BYTES = 2**31
Content = bytes | Callable[[BinaryIO], None]
Publish = Callable[[Path], None]
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def write_atomic(path: str | os.PathLike[str], data: Content) -> None:
    """Write a file that appears under its name only when it is complete and flushed to the disk.

    data: the bytes, or a function that writes them into the seekable binary file it is given.

    Raises:
        FileExistsError: `path` exists; it is left as it is.
        ImageWriteError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    target = Path(path)
    with _staged(target.parent, data) as publish:
        try:
            publish(target)
        except FileExistsError:
            raise FileExistsError(
                errno.EEXIST, "the file exists and is not overwritten", str(target)
            ) from None


def replace_file(path: str | os.PathLike[str], data: Content) -> None:
    """Write a file as `write_atomic` does, in place of an earlier one, which stays where that fails.

    Raises:
        ImageWriteError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    target = Path(path)
    # Files without a name can only be given one that is free.
    aside = _hidden_name(target.parent)
    with _staged(target.parent, data) as publish:
        try:
            publish(aside)
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)


def claim_numbered(folder: str | os.PathLike[str], stem: str, ext: str, data: Content) -> Path:
    """Write `<stem>_<number>_<ext>` with the first free number, as ComfyUI numbers its outputs.

    Safe under any number of concurrent writers: a number is claimed by the file system, not by a
    directory listing. The listing only tells where to start.

    Raises:
        ImageWriteError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    directory = Path(folder)
    with _staged(directory, data) as publish:
        for number in itertools.count(_first_free(directory, stem)):
            target = directory / f"{stem}_{number:05}_{ext}"
            try:
                publish(target)
            except FileExistsError:
                continue
            return target
    raise AssertionError("unreachable: itertools.count does not end")


def read_image(path: str | os.PathLike[str]) -> HDRImage:
    """Read a picture by its content, whatever its name says.

    Raises:
        ImageReadError: the file is missing, too large, of no supported format, or damaged.
    """
    source = Path(path)
    try:
        size = source.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ImageReadError(f"{source}: {size} bytes; files above {MAX_FILE_BYTES} bytes are not read")
        data = source.read_bytes()
    except OSError as error:
        raise ImageReadError(f"{source}: {error.strerror or error}") from error
    try:
        return decode_image(data)
    except ImageReadError as error:
        raise ImageReadError(f"{source}: {error}") from error


def _first_free(folder: Path, stem: str) -> int:
    pattern = re.compile(re.escape(stem) + r"_(\d+)_")
    matches = (pattern.match(entry.name) for entry in os.scandir(folder)) if folder.is_dir() else ()
    return max((int(match.group(1)) for match in matches if match), default=0) + 1


@contextmanager
def _staged(folder: Path, data: Content) -> Iterator[Publish]:
    """The complete, flushed file without a final name; call the yielded function to give it one."""
    try:
        descriptor = _open_nameless(folder)
        staged = _named(folder, data) if descriptor is None else _nameless(descriptor, data)
        with staged as publish:
            yield publish
    except FileExistsError:
        raise
    except OSError as error:
        raise ImageWriteError(f"cannot write into {folder}: {error.strerror or error}") from error


def _fill(file: BinaryIO, data: Content) -> None:
    if callable(data):
        data(file)
    else:
        file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _open_nameless(folder: Path) -> int | None:
    """A file that has no name until it is linked, so that even a killed process leaves nothing (Linux)."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            return None
        raise


@contextmanager
def _nameless(descriptor: int, data: Content) -> Iterator[Publish]:
    with os.fdopen(descriptor, "w+b") as file:
        _fill(file, data)
        # src_dir_fd makes Python call linkat(), which alone can follow the /proc link to the file.
        yield lambda target: os.link(
            f"/proc/self/fd/{descriptor}", target, src_dir_fd=descriptor, follow_symlinks=True
        )


@contextmanager
def _named(folder: Path, data: Content) -> Iterator[Publish]:
    """A hidden temporary beside the target, for systems without nameless files."""
    temporary = _hidden_name(folder)
    try:
        with open(temporary, "x+b") as file:
            _fill(file, data)
        yield lambda target: _link_or_replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _hidden_name(folder: Path) -> Path:
    return folder / f".gm-hdr-{secrets.token_hex(8)}.tmp"


def _link_or_replace(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # No hard links (FAT, some network drives): claim the name, then replace the empty claim.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        os.replace(temporary, target)
