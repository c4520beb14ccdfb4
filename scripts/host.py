"""The ComfyUI that the demo, the converter, the benchmarks and the tests run in.

    python3 -m scripts.host                       builds it if needed and prints where it is
    python3 -m scripts.host [--tests] run ARGS    the same, then runs its Python with ARGS

COMFYUI_PATH names a ComfyUI of your own instead, COMFYUI_PYTHON the Python it runs in; nothing is installed
then. GMHDR_CACHE says where the host is built (default ~/.cache/gm-hdr). Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import install
from .cache import CacheError, build_once, cache_root, fingerprint, locked, mark_complete
from .console import CommandError

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Host:
    """A ComfyUI source tree and the Python that runs it."""

    comfyui: Path
    python: Path


def own_host(*, tests: bool) -> Host | None:
    """The user's ComfyUI, if COMFYUI_PATH names one.

    Raises:
        InstallError: there is no ComfyUI, or its Python lacks what is needed.
    """
    path = os.environ.get("COMFYUI_PATH")
    if not path:
        return None
    comfyui = Path(os.path.expanduser(path)).resolve()
    if not (comfyui / "main.py").is_file():
        raise install.InstallError(
            f"COMFYUI_PATH={path} holds no ComfyUI: {comfyui / 'main.py'} does not exist."
        )
    python = own_python(comfyui)
    require(python, "torch, aiohttp, OpenEXR", ROOT / "requirements.txt")
    if tests:
        require(python, "pytest, hypothesis, imagecodecs", install.TEST_LOCK)
    return Host(comfyui=comfyui, python=python)


def require(python: Path, modules: str, requirements: Path) -> None:
    try:
        check = subprocess.run([python, "-c", f"import {modules}"], capture_output=True, text=True)
    except OSError as error:
        raise install.InstallError(f"COMFYUI_PYTHON={python} does not start: {error.strerror}.") from error
    if check.returncode:
        reason = check.stderr.strip().split("\n")[-1] or f"exit code {check.returncode}"
        raise install.InstallError(
            f"{python} lacks something: {reason}\nSet COMFYUI_PYTHON to the Python that your ComfyUI uses, "
            f"and install there:\n    {python} -m pip install -r {requirements}"
        )


def own_python(comfyui: Path) -> Path:
    candidates = [comfyui / name / "bin" / "python" for name in ("venv", ".venv")]
    if named := os.environ.get("COMFYUI_PYTHON"):
        named = os.path.expanduser(named)
        return Path(shutil.which(named) or named)
    return next((path for path in candidates if path.exists()), Path(sys.executable))


def cached_host(*, tests: bool) -> Host:
    """The host in the cache, built or completed first where that is needed."""
    sources = [Path(install.__file__), install.HOST_LOCK, install.TORCH_FIXUPS]
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    folder = cache_root() / f"host-{fingerprint(sources, version, platform.machine(), sys.base_prefix)}"
    build_once(folder, install.install_host)
    if tests:
        marker = folder / f".tests-{fingerprint([install.TEST_LOCK])}"
        if not marker.exists():
            with locked(folder.with_name(folder.name + ".lock")):
                # Another process may have done it meanwhile.
                if not marker.exists():
                    install.install_test_requirements(folder)
                    mark_complete(marker)
    return Host(comfyui=folder / "ComfyUI", python=install.venv_python(folder))


def ensure_host(*, tests: bool = False) -> Host:
    return own_host(tests=tests) or cached_host(tests=tests)


def current_host() -> Host:
    """The host that this process was started in by `run`."""
    path = os.environ.get("COMFYUI_PATH")
    if not path:
        sys.exit("Start this with: python3 -m scripts.host run -m ... (or by make)")
    return Host(comfyui=Path(path), python=Path(sys.executable))


def run_in(host: Host, arguments: Sequence[str]) -> None:
    """Replaces this process by the host's Python, whose programs come first in PATH."""
    path = os.pathsep.join([str(host.python.parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "COMFYUI_PATH": str(host.comfyui), "PATH": path}
    os.execve(host.python, [str(host.python), *arguments], environment)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tests", action="store_true", help="also install what the tests need")
    parser.add_argument("command", nargs="?", choices=["run"])
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    try:
        host = ensure_host(tests=options.tests)
    except (CacheError, install.InstallError, CommandError) as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{error}\nThe cache {cache_root()} could not be used; GMHDR_CACHE names another folder.")
    except KeyboardInterrupt:
        sys.exit("Interrupted. The next run starts over with what was not finished.")
    if options.command == "run":
        run_in(host, options.arguments)
    print(f"ComfyUI: {host.comfyui}\nPython:  {host.python}")


if __name__ == "__main__":
    main()
