"""`python -m training smoke`: every stage on a model in miniature, as a self-test of the installation.

The recipe `recipes/smoke.yaml` holds one section of settings per command; the stages hand their outputs on
as a user would. Takes about a minute on two CPU cores and needs neither network nor data.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from training.cli import run_command
from training.errors import ConfigError
from training.processes import is_alone
from training.tiny import make_base_model, make_photos

logger = logging.getLogger(__name__)

RECIPE = Path(__file__).parent / "recipes" / "smoke.yaml"
PHOTOS = 8


def main(argv: Sequence[str]) -> int:
    """Run all stages in a folder; returns the exit code.

    Raises: ConfigError under a launcher of several processes, and when a command reports failure.
    """
    if not is_alone():
        raise ConfigError("smoke runs in one process; start it as `python -m training smoke`")
    parser = argparse.ArgumentParser(prog="python -m training smoke", description=__doc__)
    parser.add_argument("--output_dir", type=Path, help="keep everything here (default: a temporary folder)")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="settings per command")
    options = parser.parse_args(argv)
    folder = options.output_dir or Path(tempfile.mkdtemp(prefix="gm-hdr-smoke-"))
    try:
        run_all(folder, options.recipe)
    finally:
        if options.output_dir is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def run_all(folder: Path, recipe: Path) -> None:
    """Make a model and photos in `folder`, then run the recipe's commands in order.

    Raises: ConfigError when a command reports failure.
    """
    make_base_model(folder / "base")
    make_photos(folder / "photos", PHOTOS)
    for command, settings in yaml.safe_load(recipe.read_text(encoding="utf-8")).items():
        started = time.perf_counter()
        code = run_command(command, as_flags(settings, folder))
        if code:
            raise ConfigError(f"{command} ended with exit code {code}")
        logger.info("%s took %.1f s", command, time.perf_counter() - started)


def as_flags(settings: dict[str, Any], folder: Path) -> list[str]:
    """Command-line flags of a section; `$WORK` in a value is the folder."""
    flags: list[str] = []
    for name, value in settings.items():
        if isinstance(value, bool):
            flags.append(f"--{name}={'true' if value else 'false'}")
            continue
        values = value if isinstance(value, list) else [value]
        flags += [f"--{name}", *(str(item).replace("$WORK", str(folder)) for item in values)]
    return flags
