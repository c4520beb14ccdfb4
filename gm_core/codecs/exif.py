"""The Exif block that carries a ComfyUI workflow in a picture, in the tags that ComfyUI itself uses."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image, TiffTags

# One JPEG segment holds 65533 bytes; the rest is left for the block's own structure.
MAX_JPEG_BYTES = 65000
_PROMPT, _FIRST_EXTRA = 0x0110, 0x010F
# Tags for numbers, such as FillOrder, take no text.
_EXTRAS = tuple(
    tag for tag in range(_FIRST_EXTRA, 0, -1) if TiffTags.lookup(tag).type in (None, TiffTags.ASCII)
)


def exif_block(metadata: Mapping[str, str]) -> bytes | None:
    """JSON texts by name as `prompt:<json>` in tag 0x0110, the others in tags 0x010F downwards.

    Of the others, the first 200 or so are stored; no workflow has as many. None if there is nothing to store.
    The block may be larger than a JPEG can hold: see `MAX_JPEG_BYTES`.
    """
    if not metadata:
        return None
    exif = Image.Exif()
    others = [name for name in metadata if name != "prompt"]
    tags = dict(zip(others, _EXTRAS, strict=False)) | {"prompt": _PROMPT}
    for name in metadata:
        if name in tags:
            exif[tags[name]] = f"{name}:{metadata[name]}"
    return exif.tobytes()
