"""`make types`: pyright as pyproject.toml asks for it, with the types of the ComfyUI that this runs in."""

from __future__ import annotations

import os
import subprocess
import sys

from .host import ROOT, current_host


def main() -> None:
    # pyright searches the path of its Python, where ComfyUI, which is no package, is not otherwise.
    environment = {**os.environ, "PYTHONPATH": str(current_host().comfyui)}
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    sys.exit(subprocess.run(command, cwd=ROOT, env=environment).returncode)


if __name__ == "__main__":
    main()
