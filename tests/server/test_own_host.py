"""COMFYUI_PATH and COMFYUI_PYTHON: a ComfyUI of the user's own, or an error that says what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.host import ROOT, own_host, own_python
from scripts.install import InstallError


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "main.py").touch()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    return tmp_path


def test_a_folder_without_comfyui_is_refused(comfyui: Path) -> None:
    (comfyui / "main.py").unlink()
    with pytest.raises(InstallError, match="holds no ComfyUI"):
        own_host(tests=False)


def test_a_path_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that names nobody's home folder."""
    monkeypatch.setenv("COMFYUI_PATH", "~nobody-of-that-name/ComfyUI")
    with pytest.raises(InstallError, match="holds no ComfyUI"):
        own_host(tests=False)


@pytest.mark.parametrize(
    ("python", "reason"),
    [("/nowhere/python", "does not start"), ("/", "does not start"), ("/bin/false", "exit code 1")],
)
def test_a_python_that_does_not_run_is_named(
    comfyui: Path, monkeypatch: pytest.MonkeyPatch, python: str, reason: str
) -> None:
    monkeypatch.setenv("COMFYUI_PYTHON", python)
    with pytest.raises(InstallError, match=reason):
        own_host(tests=False)


def test_a_python_is_looked_up_in_path(comfyui: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """os.execve, which starts it, does not."""
    monkeypatch.setenv("COMFYUI_PYTHON", "sh")
    assert own_python(comfyui).is_absolute()


@pytest.mark.parametrize("cache", ["/proc/nowhere", "~nobody-of-that-name/cache"])
def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setenv("GMHDR_CACHE", cache)
    done = subprocess.run([sys.executable, "-m", "scripts.host"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "GMHDR_CACHE" in done.stderr and "Traceback" not in done.stderr
