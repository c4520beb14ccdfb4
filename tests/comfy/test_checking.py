"""What no widget of a node can have is refused by name, also where ComfyUI itself lets it through."""

from __future__ import annotations

import pytest
import torch

PICTURE = torch.rand(1, 8, 8, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("node_id", "inputs", "message"),
    [
        ("GMHDRRecombine", {"sdr": PICTURE, "gain_map": PICTURE, "encoding": "log"}, "encoding is 'log'"),
        ("GMHDRSaveEXR", {"hdr": PICTURE, "bit_depth": "16"}, "bit_depth is .16.; expected one of: float"),
        ("GMHDREncodeSignal", {"hdr": PICTURE, "white_nits": 0}, "white_nits is 0; expected a number from 1"),
        ("GMHDREncodeSignal", {"hdr": PICTURE, "white_nits": float("nan")}, "white_nits is nan"),
        ("GMHDRPreview", {"hdr": PICTURE, "exposure": "-3"}, "exposure is '-3'; expected a number"),
        ("GMHDRSaveEXR", {"hdr": PICTURE, "filename_prefix": 7}, "filename_prefix: expected text, found int"),
        ("GMHDRPreview", {"hdr": PICTURE, "operator": None}, "operator is None; expected one of: reinhard"),
        ("GMHDRLoadUNet", {"unet_name": None}, "unet_name is None; expected one of: built-in"),
        ("GMHDRSaveJXL", {"hdr": PICTURE, "effort": 4.5}, "effort is 4.5; expected a whole number"),
        ("GMHDRSaveAVIF", {"hdr": PICTURE, "lossless": "false"}, "lossless is 'false'; expected true or"),
    ],
)
def test_a_value_that_is_none_of_the_widgets_is_named(host, node_id, inputs, message) -> None:
    with pytest.raises(host.module("gm_core.errors").GainMapError, match=message):
        host.call(node_id, **inputs)


def test_a_whole_number_may_come_as_a_float(host) -> None:
    """As nodes that compute hand it on; torch takes no float for a number of steps."""
    model, vae = host.call("GMHDRLoadUNet").args
    inputs = {"gm_model": model, "vae": vae, "image": PICTURE}
    ints, floats = (
        host.call("GMHDRUpconvertSampler", **inputs, steps=kind(2), working_side=kind(64)).args[0]["samples"]
        for kind in (int, float)
    )
    assert torch.equal(ints, floats)


def test_a_choice_of_an_api_prompt_is_checked_when_the_graph_runs(host) -> None:
    source = {"width": 8, "height": 8, "batch_size": 1, "color": 0}
    shown = {"hdr": ["1", 0], "exposure": 0.0, "operator": "aces", "primaries": "bt709"}
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": source},
        "2": {"class_type": "GMHDRPreview", "inputs": shown},
    }
    with pytest.raises(Exception, match="operator is 'aces'; expected one of: reinhard"):
        host.run(graph)


def test_every_node_checks_its_widgets(host) -> None:
    ours = [cls for key, cls in host.nodes.NODE_CLASS_MAPPINGS.items() if key.startswith("GMHDR")]
    assert [cls.__name__ for cls in ours if not hasattr(cls.execute, "__wrapped__")] == []
