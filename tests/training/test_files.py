"""Files of the trainer: an earlier one is lost to nothing but a whole new one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gm_core.errors import ImageWriteError
from training.files import replace_file


def test_a_full_disk_keeps_the_file_that_was_to_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file(tmp_path / "hdr.exr", b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ImageWriteError, match="No space left"):
        replace_file(tmp_path / "hdr.exr", b"after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("hdr.exr", b"before")]
    monkeypatch.undo()
    replace_file(tmp_path / "hdr.exr", b"after")
    assert (tmp_path / "hdr.exr").read_bytes() == b"after"
