"""Files that are whole under their names, whoever else writes them and wherever a process is killed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gm_core.codecs.files import Content, write_atomic
from training.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


def replace_file(path: Path, data: Content) -> None:
    """Write a file whole, in place of an earlier one, which stays where that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".gm-hdr-{secrets.token_hex(8)}.partial")
    try:
        write_atomic(staged, data)
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder until the block or this process, however it may, ends.

    Raises: ConfigError when another process is in such a block.
    """
    with (folder / LOCK).open("a") as file:
        # Not flock: what this process forks would hold it on after a kill.
        if fcntl is not None:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise ConfigError(
                    f"another run is writing into {folder}; wait for it, end it, or choose another output_dir"
                ) from error
            except OSError:
                # A file system without locks.
                pass
        yield
