"""GM-HDR: gain-map HDR for ComfyUI."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> ComfyExtension:
    """Called by ComfyUI; the import waits until then, so that the folder imports without ComfyUI."""
    from .nodes import GainMapExtension

    return GainMapExtension()
