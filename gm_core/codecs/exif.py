"""The Exif block that carries a ComfyUI workflow in a JPEG, in the tags that ComfyUI itself uses."""

from __future__ import annotations

import json
from collections.abc import Mapping

from PIL import Image

# One JPEG segment holds 65533 bytes; the rest is left for the block's own structure.
MAX_BYTES = 65000
_PROMPT, _FIRST_EXTRA = 0x0110, 0x010F


def workflow_exif(prompt: object | None, extra: Mapping[str, object]) -> bytes | None:
    """Exif with `prompt:<json>` in tag 0x0110 and `<name>:<json>` in tags 0x010F downwards.

    Returns None where there is nothing to store, or where it does not fit one JPEG segment: then write it
    beside the picture.
    """
    exif = Image.Exif()
    if prompt is not None:
        exif[_PROMPT] = f"prompt:{json.dumps(prompt)}"
    for index, (name, value) in enumerate(extra.items()):
        exif[_FIRST_EXTRA - index] = f"{name}:{json.dumps(value)}"
    if not len(exif):
        return None
    block = exif.tobytes()
    return block if len(block) <= MAX_BYTES else None
