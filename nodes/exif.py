"""Prompt and workflow as an Exif block of any size, for containers that have no limit."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

PROMPT, FIRST_EXTRA = 0x0110, 0x010F


def exif_block(metadata: Mapping[str, str]) -> bytes | None:
    """JSON texts by name -> `prompt:<json>` in tag 0x0110, the others in 0x010F downwards, as core does.

    None if there is nothing to store.
    """
    if not metadata:
        return None
    exif = Image.Exif()
    others = [name for name in metadata if name != "prompt"]
    tags = {name: FIRST_EXTRA - index for index, name in enumerate(others)} | {"prompt": PROMPT}
    for name, text in metadata.items():
        exif[tags[name]] = f"{name}:{text}"
    return exif.tobytes()
