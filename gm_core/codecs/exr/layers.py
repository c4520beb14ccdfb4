"""What our OpenEXR files hold beside the HDR picture: the names that writers and the reader agree on."""

from __future__ import annotations

from ...gain_map import GainMapSpec

SDR_LAYER = "sdr"
"""The display-encoded SDR picture, stored linear."""
GAIN_MAP_LAYER = "gainmap"
"""The map of Eq. (1) that turns the SDR layer into the picture."""


def equation_attributes(spec: GainMapSpec) -> dict[str, float]:
    """Header entries with the constants of Eq. (1) that the gain map in the file is meant for."""
    return {"gm.qmax": spec.qmax, "gm.gamma": spec.gamma, "gm.offset": spec.offset}
