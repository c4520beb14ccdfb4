"""`make types`: pyright as pyproject.toml asks for it, with the types of the ComfyUI that this runs in."""

from __future__ import annotations

import os
import subprocess
import sys

from .host import ROOT, current_host


def main() -> None:
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    # pyright searches the path of its Python, where ComfyUI, which is no package, is not otherwise.
    beside_comfyui = {**os.environ, "PYTHONPATH": str(current_host().comfyui)}
    pack = subprocess.run(command, cwd=ROOT, env=beside_comfyui).returncode
    # By themselves, for they take scenes from our `tests`, which ComfyUI's package of that name would hide.
    benchmarks = subprocess.run([*command, "benchmarks"], cwd=ROOT).returncode
    sys.exit(pack or benchmarks)


if __name__ == "__main__":
    main()
