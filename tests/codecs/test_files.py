"""Files appear complete or not at all, and no writer overwrites another's."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gm_core.codecs import files
from gm_core.codecs.files import claim_numbered, read_image, replace_file, write_atomic
from gm_core.codecs.sanitize import sanitize
from gm_core.errors import ImageReadError, ImageWriteError

ROOT = Path(__file__).parents[2]
WAYS = ("nameless", "named", "without hard links")


@pytest.fixture(params=WAYS)
def folder(request, tmp_path, monkeypatch) -> Path:
    """A folder on each kind of file system the writer distinguishes."""
    if request.param != "nameless":
        monkeypatch.setattr(files, "_open_nameless", lambda folder: None)
    if request.param == "without hard links":

        def refuse(*args, **kwargs):
            raise OSError(errno.EPERM, "no hard links")

        monkeypatch.setattr(os, "link", refuse)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_writes_bytes_and_writers(folder):
    write_atomic(folder / "a.bin", b"abc")
    write_atomic(folder / "b.bin", lambda file: file.write(b"def") and None)
    assert (folder / "a.bin").read_bytes() == b"abc"
    assert (folder / "b.bin").read_bytes() == b"def"
    assert names(folder) == ["a.bin", "b.bin"]


def test_never_overwrites(folder):
    (folder / "a.bin").write_bytes(b"old")
    with pytest.raises(FileExistsError, match=r"a\.bin"):
        write_atomic(folder / "a.bin", b"new")
    assert (folder / "a.bin").read_bytes() == b"old"
    assert names(folder) == ["a.bin"]


def test_a_replaced_file_stays_until_the_new_one_is_whole(folder):
    def full(file):
        file.write(b"aft")
        raise OSError(errno.ENOSPC, "No space left on device")

    replace_file(folder / "a.bin", b"before")
    with pytest.raises(ImageWriteError, match="No space left"):
        replace_file(folder / "a.bin", full)
    assert (folder / "a.bin").read_bytes() == b"before"
    replace_file(folder / "a.bin", b"after")
    assert (folder / "a.bin").read_bytes() == b"after"
    assert names(folder) == ["a.bin"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "I/O")]
)
def test_a_failing_disk_leaves_nothing_and_says_so(folder, error):
    def writer(file):
        file.write(b"x" * 100000)
        raise error

    with pytest.raises(ImageWriteError, match=str(error.strerror)):
        write_atomic(folder / "a.bin", writer)
    assert names(folder) == []


def test_a_failing_encoder_leaves_nothing(folder):
    def writer(file):
        file.write(b"x")
        raise RuntimeError("encoder")

    with pytest.raises(RuntimeError, match="encoder"):
        claim_numbered(folder, "a", ".bin", writer)
    assert names(folder) == []


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(ImageWriteError, match="nowhere"):
        write_atomic(tmp_path / "nowhere" / "a.bin", b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ImageWriteError, match="Permission denied"):
        claim_numbered(tmp_path, "a", ".bin", b"x")


def test_files_follow_the_umask(folder):
    write_atomic(folder / "a.bin", b"x")
    mask = os.umask(0)
    os.umask(mask)
    assert (folder / "a.bin").stat().st_mode & 0o777 == 0o666 & ~mask


def test_numbers_continue_the_listing(folder):
    (folder / "pic_00041_.exr").touch()
    (folder / "pic2_00077_.exr").touch()
    assert claim_numbered(folder, "pic", ".exr", b"x").name == "pic_00042_.exr"
    assert claim_numbered(folder, "pic", ".exr", b"x").name == "pic_00043_.exr"


def test_sixteen_writers_get_sixteen_files(folder):
    contents = [bytes([index]) * 5000 for index in range(16)]
    with ThreadPoolExecutor(16) as pool:
        paths = list(pool.map(lambda data: claim_numbered(folder, "pic", ".bin", data), contents))
    assert len(set(paths)) == 16
    assert [path.read_bytes() for path in paths] == contents
    assert len(names(folder)) == 16


KILLED = """
import os, signal, sys
from gm_core.codecs.files import write_atomic
def writer(file):
    file.write(b"x" * 100000); file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
write_atomic(sys.argv[1], writer)
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="nameless files are a Linux feature")
def test_a_killed_writer_leaves_nothing(tmp_path):
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.bin")], check=False, cwd=ROOT)
    assert ended.returncode == -signal.SIGKILL
    assert names(tmp_path) == []


def test_reading_names_the_file(tmp_path):
    path = tmp_path / "picture.exr"
    path.write_bytes(b"not a picture")
    with pytest.raises(ImageReadError, match=r"picture\.exr"):
        read_image(path)
    with pytest.raises(ImageReadError, match="No such file"):
        read_image(tmp_path / "absent.exr")


def test_sanitize_counts_and_replaces():
    hdr = np.array([[[np.nan, np.inf, -np.inf], [-1, 5, 0.5]]], np.float32)
    clean, counts = sanitize(hdr)
    assert (counts.nan, counts.infinite, counts.negative, counts.total) == (1, 2, 1, 4)
    np.testing.assert_array_equal(clean, [[[0, 5, 0], [0, 5, 0.5]]])
    kept, counts = sanitize(hdr, peak=9.0, keep_negative=True)
    assert counts.negative == 0
    np.testing.assert_array_equal(kept, [[[0, 9, 0], [-1, 5, 0.5]]])
    assert np.isnan(hdr[0, 0, 0])


def test_sanitize_returns_a_clean_picture_itself():
    hdr = np.ones((2, 2, 3), np.float32)
    clean, counts = sanitize(hdr)
    assert clean is hdr and counts.total == 0 and str(counts) == "nothing replaced"


def test_sanitize_strict():
    with pytest.raises(ImageWriteError, match="1 NaN"):
        sanitize(np.array([np.nan]), strict=True)
