"""Checkpoints: whole or absent, and damage is noticed."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path

import pytest
from safetensors import SafetensorError

from training.checkpoint import ORDER, CheckpointStore, find_damage
from training.errors import CheckpointError


def write_weights(folder: Path) -> None:
    (folder / "unet").mkdir()
    (folder / "unet" / "weights").write_bytes(b"weights")
    (folder / "state.json").write_text("{}")


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 10):
        store.save(step, write_weights)
    return store


def test_the_latest_is_the_one_written_last(store: CheckpointStore) -> None:
    latest = store.latest()
    assert latest is not None and latest.name == "checkpoint-00000010"


def test_a_run_that_went_back_goes_on_from_its_own_checkpoints(store: CheckpointStore) -> None:
    store.limit = 2
    store.save(3, write_weights)
    latest = store.latest()
    assert latest is not None and latest.name == "checkpoint-00000003"
    store.save(4, write_weights)
    assert [path.name for path in store.all()] == ["checkpoint-00000003", "checkpoint-00000004"]


def test_a_checkpoint_is_written_where_folders_cannot_be_opened_nor_files_to_be_read_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    opened, read_only = os.open, set()

    def refuse_folders(path: Path, flags: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        descriptor = opened(path, flags)
        (read_only.add if flags == os.O_RDONLY else read_only.discard)(descriptor)
        return descriptor

    def refuse_read_only(descriptor: int) -> None:
        if descriptor in read_only:
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(os, "open", refuse_folders)
    monkeypatch.setattr(os, "fsync", refuse_read_only)
    store = CheckpointStore(tmp_path)
    assert store.save(1, write_weights) == store.latest()


@pytest.mark.parametrize("damage", ["flip", "remove", "truncate", "manifest"])
def test_a_damaged_newest_falls_back_and_says_so(
    store: CheckpointStore, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    newest = store.root / "checkpoint-00000010"
    file = newest / "unet" / "weights"
    if damage == "flip":
        file.write_bytes(b"Weights")
    elif damage == "remove":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(b"")
    else:
        (newest / "manifest.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        latest = store.latest()
    assert latest is not None and latest.name == "checkpoint-00000002"
    assert "falling back" in caplog.text and newest.name in caplog.text


def test_where_all_are_damaged_no_run_begins_again(store: CheckpointStore, tmp_path: Path) -> None:
    for path in store.all():
        (path / "state.json").unlink()
    with pytest.raises(CheckpointError, match="none of the 3 checkpoints in .* is whole"):
        store.resolve("latest")
    assert CheckpointStore(tmp_path / "new").resolve("latest") is None


def test_a_damaged_checkpoint_named_by_the_user_is_refused(store: CheckpointStore) -> None:
    (store.root / "checkpoint-00000002" / "state.json").write_text("[]")
    with pytest.raises(CheckpointError, match="damaged"):
        store.resolve("checkpoint-00000002")
    with pytest.raises(CheckpointError, match="does not exist"):
        store.resolve("checkpoint-3")


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left")],
)
def test_a_full_disk_loses_nothing_older(store: CheckpointStore, failure: Exception) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_bytes(b"half")
        raise failure

    before = {path.name: find_damage(path) for path in store.all()}
    with pytest.raises(CheckpointError, match="older checkpoints are untouched"):
        store.save(11, fail)
    assert {path.name: find_damage(path) for path in store.all()} == before
    assert [path.name for path in store.root.iterdir() if "partial" in path.name] == []


def test_a_killed_write_is_never_taken_for_a_checkpoint(store: CheckpointStore) -> None:
    partial = store.root / ".checkpoint-00000011.partial"
    partial.mkdir()
    (partial / "state.json").write_text("{}")
    assert store.resolve("latest") == store.root / "checkpoint-00000010"
    store.save(12, write_weights)
    assert not partial.exists()


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, limit=2)
    for step in range(1, 6):
        store.save(step, write_weights)
    assert [path.name for path in store.all()] == ["checkpoint-00000004", "checkpoint-00000005"]


def test_a_whole_checkpoint_does_not_give_way_to_one_whose_age_is_unreadable(store: CheckpointStore) -> None:
    (store.root / "checkpoint-00000002" / ORDER).write_text("rot")
    store.limit = 1
    store.save(11, write_weights)
    assert store.latest() == store.root / "checkpoint-00000011"


def test_a_kill_while_the_checkpoint_of_the_same_step_is_replaced_leaves_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path, limit=1)
    store.save(10, write_weights)

    def killed(folder: Path, **_: object) -> None:
        if folder.is_dir():
            (folder / "state.json").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        store.save(10, write_weights)
    assert store.latest() == tmp_path / "checkpoint-00000010"
    store.save(11, write_weights)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000011"]


def test_an_old_checkpoint_that_cannot_be_removed_does_not_end_the_run(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def busy(path: Path, **_: object) -> None:
        if path.name == "checkpoint-00000001":
            raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    monkeypatch.setattr(shutil, "rmtree", busy)
    store.limit = 1
    assert store.save(11, write_weights) == store.latest()
    assert "checkpoint-00000001 is one too many, but cannot be removed" in caplog.text
