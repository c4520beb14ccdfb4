"""The ComfyUI nodes of GM-HDR."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    decoding,
    dual_sampling,
    images,
    loaders,
    loading,
    sampling,
    saving_exr,
    saving_gain_map,
    saving_radiance,
    saving_ultrahdr,
)

MODULES = (
    loaders,
    loading,
    sampling,
    decoding,
    dual_sampling,
    images,
    saving_ultrahdr,
    saving_exr,
    saving_radiance,
    saving_gain_map,
)


class GainMapExtension(ComfyExtension):
    """All nodes of the pack, for ComfyUI's loader."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [node for module in MODULES for node in module.NODES]
