"""Every recipe is a configuration that the command in its name accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.cli import parse_config
from training.config import COMMANDS

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"
NAMED = sorted(path for path in RECIPES.glob("*.yaml") if path.stem.split("_")[0] in COMMANDS)


@pytest.mark.parametrize("recipe", NAMED, ids=lambda path: path.stem)
def test_the_command_accepts_it(recipe: Path) -> None:
    command = recipe.stem.split("_")[0]
    config = parse_config(command, COMMANDS[command], ["--config", str(recipe)])
    assert config.preset == ("paper" if recipe.stem.endswith("paper") else "improved")


def test_both_stages_have_recipes_for_one_gpu_and_for_eight() -> None:
    wanted = {f"{stage}_coco_{size}" for stage in ("stage1", "stage2") for size in ("24gb", "8gpu")}
    assert wanted <= {path.stem for path in NAMED}
