"""Files that are whole under their names, whoever else writes them and wherever a process is killed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from gm_core.codecs.files import Content, write_atomic


def replace_file(path: Path, data: Content) -> None:
    """Write a file whole, in place of an earlier one, which stays where that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".gm-hdr-{secrets.token_hex(8)}.partial")
    try:
        write_atomic(staged, data)
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
