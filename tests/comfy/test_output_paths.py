"""Prefixes come from workflows, workflows from strangers: nothing outside the output folder is written."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

PIXEL = torch.ones(1, 1, 1, 3)


@pytest.fixture
def save_as(save):
    def run(prefix):
        (path,), _ = save("GMHDRSaveRadiance", PIXEL, filename_prefix=prefix)
        return path

    return run


def everything(folder):
    return {path for path in folder.rglob("*") if "temp" not in path.parts}


HOSTILE = (
    "../x",
    "/etc/x",
    "C:\\x",
    "\\\\srv\\x",
    "a/../../x",
    "..\\x",
    "a\0b",
    "a\nb",
    "a//b",
    "con",
    "hdr/NUL.txt",
    "a:b",
    "%date:yyyy/MM%/x",
    "x" * 300,
    "ä" * 150,
    "folder./x",
)


@pytest.mark.parametrize("prefix", HOSTILE)
def test_hostile_prefixes_are_refused_and_leave_nothing(host, save_as, prefix) -> None:
    before = everything(host.base)
    with pytest.raises(ValueError, match="filename_prefix"):
        save_as(prefix)
    assert everything(host.base) == before


def test_the_date_of_core_savers_is_answered_with_ours(save_as) -> None:
    with pytest.raises(ValueError, match="%year%-%month%-%day%"):
        save_as("%date:yyyy-MM-dd%/x")
    assert "%" not in str(save_as("%year%-%month%-%day%/x"))


UNFILLED = (
    *("%date%", "%seed%", "%KSampler.seed%", "%Empty Latent Image.width%", "%Year%", "50%_%date%", "%bätch%"),
    *("%batch_num%/x", "%date:yyyy/MM%/x", "%year%%date%"),
)


@pytest.mark.parametrize("prefix", UNFILLED)
def test_names_between_percent_signs_that_nobody_fills_in_are_refused(save_as, prefix) -> None:
    with pytest.raises(ValueError, match="would not be filled in.*%year%-%month%-%day%"):
        save_as(prefix)


@pytest.mark.parametrize(
    "prefix", ["50%", "50% of 100%", "5%_6%", "%", "%%", "100%/x", "1%2%3%", "50%_%width%", "1%a%width%b%"]
)
def test_other_percent_signs_stay(save_as, prefix) -> None:
    assert prefix.split("/")[0].replace("%width%", "1") in str(save_as(prefix))


ORDINARY = (
    *("photo", "a b/c", "ünï/🌅 dawn", "sub\\folder\\x"),
    *("%year%/%width%x%height%", "%hour%%minute%%second%_%batch_num%"),
)


@pytest.mark.parametrize("prefix", ORDINARY)
def test_ordinary_prefixes(save_as, output, prefix) -> None:
    path = save_as(prefix)
    assert path.is_file() and path.is_relative_to(output) and "%" not in str(path)


@pytest.mark.parametrize("prefix", ["tray/", "tray\\", "tray//"[:-1], ""])
def test_a_trailing_slash_names_a_folder_and_overwrites_nothing(save_as, prefix) -> None:
    first, second = save_as(prefix), save_as(prefix)
    assert first != second and first.is_file() and second.is_file()
    assert first.name.startswith("ComfyUI_")


def test_links_out_of_the_output_folder_are_refused(save_as, output, tmp_path) -> None:
    (output / "escape").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="link leads out"):
        save_as("escape/x")
    with pytest.raises(ValueError, match="link leads out"):
        save_as("escape/new/x")
    assert not list(tmp_path.iterdir())


def test_parallel_saves_never_collide(save_as) -> None:
    with ThreadPoolExecutor(16) as pool:
        paths = list(pool.map(lambda _: save_as("race/x"), range(100)))
    assert len(set(paths)) == 100 and all(path.stat().st_size for path in paths)


def test_a_full_disk_leaves_nothing(host, save_as, output, monkeypatch) -> None:
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(host.module("gm_core.errors").ImageWriteError, match="No space left"):
        save_as("full/x")
    assert list((output / "full").iterdir()) == []


def test_a_folder_that_is_a_file_is_named(host, save_as, output) -> None:
    (output / "taken").write_text("x")
    with pytest.raises(host.module("gm_core.errors").ImageWriteError, match="taken"):
        save_as("taken/x")
