"""Where savers may write, and what they report to the browser.

File names arrive from workflows, and workflows from strangers: nothing outside ComfyUI's output folder is
ever written, whatever the prefix says.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io, ui

from ..gm_core.codecs.files import Content, claim_numbered
from ..gm_core.color import convert_primaries, finite
from ..gm_core.errors import ImageWriteError
from ..gm_core.model_info import METADATA_PREFIX
from ..gm_core.tonemap import reinhard
from .batches import picture_by_picture
from .engine.host import metadata_enabled

log = logging.getLogger(__name__)

DEFAULT_STEM = "ComfyUI"
LONGEST_STEM = 200
PREVIEW_SIDE = 1024
OWN_ENTRIES = ("gm.", METADATA_PREFIX)
"""How the names begin that the pack itself writes into files, and reads."""
FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')
FILLED = re.compile("%(width|height|year|month|day|hour|minute|second)%")
BATCH_NUMBER = "%batch_num%"
# A word, a date, or a node and its widget between percent signs; other percent signs are just that.
PLACEHOLDER = re.compile(r"%([^\W\d_]\w*|date:[^%]*|[^%/\s][^%/]*\.\w+)%")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Destination:
    """A folder below ComfyUI's output folder, and the beginning of the file names in it."""

    folder: Path
    stem: str
    subfolder: str

    def claim(self, number: int, suffix: str, data: Content) -> ui.SavedResult:
        """Writes one file under a free number; `number` is the picture's place in its batch."""
        stem = self.stem.replace(BATCH_NUMBER, str(number))
        path = claim_numbered(self.folder, stem, suffix, data)
        return ui.SavedResult(path.name, self.subfolder, io.FolderType.output)


@dataclass
class SavedFiles:
    """Files written by one run of a saver, and what had to be replaced in them."""

    results: list[ui.SavedResult] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def destination(prefix: str, width: int, height: int) -> Destination:
    """ComfyUI's filename_prefix -> a folder that exists inside the output folder.

    Raises:
        ImageWriteError: the prefix leaves the output folder, also through a link, or is no portable name.
    """
    prefix = checked_prefix(prefix)
    output = Path(folder_paths.get_output_directory()).resolve()
    target = (output / prefix).parent.resolve()
    if not target.is_relative_to(output):
        raise ImageWriteError(
            f"filename_prefix {prefix!r}: a link leads out of ComfyUI's output folder to {target}."
        )
    try:
        folder, stem, _, subfolder, _ = folder_paths.get_save_image_path(prefix, str(output), width, height)
    except OSError as error:
        raise ImageWriteError(f"filename_prefix {prefix!r}: {target}: {error.strerror}.") from error
    return Destination(Path(folder), stem, subfolder.replace(os.sep, "/"))


def checked_prefix(prefix: str) -> str:
    """The prefix with forward slashes; one that ends in a slash names a folder.

    Raises:
        ImageWriteError: absolute, climbing upwards, with names that some file systems refuse, or with
            `%names%` that nobody fills in.
    """
    path = prefix.strip().replace("\\", "/")
    if path == "" or path.endswith("/"):
        path += DEFAULT_STEM
    if token := unfilled(path):
        raise ImageWriteError(
            f"filename_prefix {prefix!r}: {token} would not be filled in. Write the date as "
            "%year%-%month%-%day%; there are also %width%, %height%, %hour%, %minute%, %second% and, in "
            "the file name but not in its folder, %batch_num%."
        )
    if FORBIDDEN.search(path):
        raise ImageWriteError(
            f'filename_prefix {prefix!r}: remove control characters and any of < > : " | ? *'
        )
    parts = path.split("/")
    if path.startswith("/") or "" in parts or ".." in parts:
        raise ImageWriteError(
            f"filename_prefix {prefix!r}: give a path inside ComfyUI's output folder, such as 'hdr/photo'."
        )
    for part in parts:
        if RESERVED.fullmatch(part) or part.endswith((".", " ")):
            raise ImageWriteError(f"filename_prefix {prefix!r}: {part!r} is not a file name on every system.")
        if len(part.encode()) > LONGEST_STEM:
            raise ImageWriteError(
                f"filename_prefix {prefix!r}: {len(part)} characters in one name are too many."
            )
    return path


def unfilled(path: str) -> str:
    """The first `%name%` that would be left as it stands; empty if there is none.

    ComfyUI's page fills in `%date:...%` and `%Node.widget%`, for the savers of core alone.
    """
    folder, _, stem = FILLED.sub(" ", path).rpartition("/")
    found = PLACEHOLDER.search(f"{folder}/{stem.replace(BATCH_NUMBER, ' ')}")
    return found.group() if found else ""


def workflow_metadata(hidden: Any, fits: Callable[[str], bool] = lambda name: True) -> dict[str, str]:
    """Prompt and workflow as JSON text by name, empty under --disable-metadata.

    Other nodes may add entries. One that cannot be stored is left out, and the log says so: no picture is
    lost over it.

    fits: whether the format can hold an entry of that name.
    """
    if hidden is None or not metadata_enabled():
        return {}
    found = {**(hidden.extra_pnginfo or {}), "prompt": hidden.prompt}
    kept = {}
    for name, value in found.items():
        try:
            if value is not None:
                kept[name] = entry_text(name, value, fits)
        except (TypeError, ValueError, RecursionError) as error:
            log.warning("Metadata entry %.80r is left out of the file: %s", name, error)
    return kept


def entry_text(name: Any, value: Any, fits: Callable[[str], bool]) -> str:
    """An entry's value as JSON; raises TypeError, ValueError or RecursionError when no file can hold it."""
    if not isinstance(name, str) or not fits(name):
        raise ValueError("the format holds no entry of that name.")
    if name.startswith(OWN_ENTRIES):
        raise ValueError(f"GM-HDR keeps names that begin with {' or '.join(OWN_ENTRIES)} for itself.")
    return json.dumps(value)


def preview(hdr: torch.Tensor, primaries: str) -> list[Mapping[str, Any]]:
    """Temporary SDR pictures of linear [B,3,H,W], for files that browsers do not show."""
    shrink = min(1.0, PREVIEW_SIDE / max(hdr.shape[-2:]))
    size = [max(1, round(side * shrink)) for side in hdr.shape[-2:]]

    def shown(picture: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.interpolate(picture, size=size, mode="area")
        return reinhard(convert_primaries(finite(small), primaries, "bt709"))

    return ui.PreviewImage(picture_by_picture(shown, hdr)).as_dict()["images"]


def report(
    saved: SavedFiles, shown_first: Sequence[Mapping[str, Any]] = (), *, animated: bool = False
) -> io.NodeOutput:
    """What the browser is told: previews and files, whether they are films, and warnings as text, which
    `web/texts.js` shows on the node.

    Without warnings the text is an empty list: for lists of pictures, core joins the reports of the runs and
    expects the same entries in each.
    """
    shown: dict[str, Any] = {"images": [*shown_first, *saved.results], "text": saved.warnings}
    if animated:
        shown["animated"] = (True,)
    return io.NodeOutput(ui=shown)
