"""Folders that belong to one run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


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
