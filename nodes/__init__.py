"""The ComfyUI nodes of GM-HDR."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    conditioning,
    decoding,
    dual_sampling,
    editing,
    images,
    loaders,
    loading,
    loading_gain_map,
    loading_video,
    preparing,
    sampling,
    saving_avif,
    saving_exr,
    saving_gain_map,
    saving_jxl,
    saving_png,
    saving_radiance,
    saving_ultrahdr,
    saving_video,
    signals,
    statistics,
)

MODULES = (
    loaders,
    loading,
    loading_gain_map,
    loading_video,
    preparing,
    sampling,
    dual_sampling,
    conditioning,
    decoding,
    images,
    editing,
    statistics,
    signals,
    saving_ultrahdr,
    saving_exr,
    saving_radiance,
    saving_png,
    saving_avif,
    saving_jxl,
    saving_video,
    saving_gain_map,
)


class GainMapExtension(ComfyExtension):
    """All nodes of the pack, for ComfyUI's loader."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [node for module in MODULES for node in module.NODES]
