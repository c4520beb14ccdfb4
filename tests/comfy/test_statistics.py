"""HDR Statistics: what the node says, shows and passes on."""

from __future__ import annotations

import pytest
import torch
from PIL import Image


def picture():
    hdr = torch.full((1, 10, 10, 3), 0.25)
    hdr[:, :2] = 8.0
    return hdr


def test_values_and_text(host) -> None:
    text, _, peak, stops, share = host.call("GMHDRStatistics", hdr=picture(), white_nits=100.0).args
    assert (peak, stops, share) == pytest.approx((800.0, 3.0, 0.2), abs=1e-3)
    assert "Peak 800 nits" in text and "3.00 stops" in text and "20.00% of the pixels above" in text


def test_the_node_shows_text_and_histogram(host) -> None:
    output = host.call("GMHDRStatistics", hdr=picture())
    assert output.ui["text"] == (output.args[0],)
    shown = Image.open(host.base / "temp" / output.ui["images"][0]["filename"])
    assert shown.size == (800, 400)
    histogram = output.args[1]
    assert histogram.shape == (1, 400, 800, 3) and 0 <= histogram.min() < histogram.max() <= 1


def test_highlights_are_drawn_right_of_sdr_white(host) -> None:
    orange = torch.tensor([240, 170, 60]) / 255
    for hdr, expected in ((picture(), True), (picture() / 10, False)):
        histogram = host.call("GMHDRStatistics", hdr=hdr).args[1][0]
        columns = (histogram - orange).abs().amax(-1).lt(0.01).any(0).nonzero()
        assert bool(len(columns)) == expected
        assert all(column > 476 for column in columns.flatten().tolist())


def test_faulty_values_are_told(host) -> None:
    hdr = picture()
    hdr[0, 0, 0, 0], hdr[0, 0, 1, 0], hdr[0, 0, 2, 0] = float("nan"), float("inf"), -1.0
    text = host.call("GMHDRStatistics", hdr=hdr).args[0]
    assert "1 NaN, 1 infinite, 1 negative" in text and "1.00% of the pixels outside bt709" in text


def test_it_runs_in_a_graph_and_reports_to_the_browser(host) -> None:
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {
            "class_type": "GMHDRStatistics",
            "inputs": {"hdr": ["1", 0], "primaries": "bt709", "gamut": "bt709", "white_nits": 203.0},
        },
    }
    assert "Peak 0 nits" in host.run(graph)["2"]["text"][0]
