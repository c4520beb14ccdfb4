"""What both stages' validations share: the pictures they can use, and the sheet that shows the results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from gm_core.codecs.files import replace_file
from training.data.samples import MAX_REPLACEMENTS
from training.errors import ConfigError, RejectedSample
from training.pictures import png, stack_rows
from training.trackers import Trackers

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
CaseT = TypeVar("CaseT")


def first_usable(
    items: Iterable[tuple[str, ItemT]], load: Callable[[ItemT], CaseT], most: int
) -> list[CaseT]:
    """What `load` makes of the first `most` named items for which it does not raise RejectedSample.

    Raises: ConfigError when it does for all of them.
    """
    found: list[CaseT] = []
    for name, item in islice(items, most + MAX_REPLACEMENTS):
        if len(found) == most:
            break
        try:
            found.append(load(item))
        except RejectedSample as reject:
            logger.warning("validation picture %s left out: %s", name, reject)
    if not found:
        raise ConfigError("no validation picture can be used; the warnings above say why")
    return found


def show_results(strips: Sequence[Tensor], output_dir: str, step: int, trackers: Trackers) -> None:
    """Write strips [3,H,W] as `validation/step-<n>.png`, one below the other, and track them."""
    sheet = stack_rows(strips)
    folder = Path(output_dir) / "validation"
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / f"step-{step:08d}.png", png(sheet))
    trackers.picture(step, "validation", sheet)
