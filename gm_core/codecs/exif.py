"""The Exif block that carries a ComfyUI workflow in a picture, in the tags that ComfyUI itself uses."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

# One JPEG segment holds 65533 bytes; the rest is left for the block's own structure.
MAX_JPEG_BYTES = 65000
_PROMPT, _FIRST_EXTRA = 0x0110, 0x010F


def exif_block(metadata: Mapping[str, str]) -> bytes | None:
    """JSON texts by name as `prompt:<json>` in tag 0x0110, the others in tags 0x010F downwards.

    None if there is nothing to store. The block may be larger than a JPEG can hold: see `MAX_JPEG_BYTES`.
    """
    if not metadata:
        return None
    exif = Image.Exif()
    others = [name for name in metadata if name != "prompt"]
    tags = {name: _FIRST_EXTRA - index for index, name in enumerate(others)} | {"prompt": _PROMPT}
    for name, text in metadata.items():
        exif[tags[name]] = f"{name}:{text}"
    return exif.tobytes()
