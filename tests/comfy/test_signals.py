"""Our HDR in ComfyUI's own conventions and back."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize(("space", "code"), [("HDR PQ", 0.5806), ("HDR (HLG)", 0.75), ("linear", 1.0)])
def test_sdr_white(host, space, code) -> None:
    signal = host.call("GMHDREncodeSignal", hdr=torch.ones(1, 4, 5, 3), color_space=space).args[0]
    torch.testing.assert_close(signal, torch.full((1, 4, 5, 3), code), rtol=0, atol=2e-3)


@pytest.mark.parametrize("space", ["HDR PQ", "HDR (HLG)", "linear"])
def test_round_trip(host, space) -> None:
    hdr = torch.rand(2, 8, 9, 3, generator=torch.Generator().manual_seed(0)) * 2
    for primaries in ("bt709", "bt2020"):
        signal = host.call("GMHDREncodeSignal", hdr=hdr, color_space=space, primaries=primaries).args[0]
        back = host.call("GMHDRDecodeSignal", signal=signal, color_space=space, convert_to=primaries).args[0]
        torch.testing.assert_close(back, hdr, rtol=2e-3, atol=2e-3)


def test_pq_codes_are_those_of_our_own_png(host) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    hdr = torch.rand(1, 8, 9, 3, generator=torch.Generator().manual_seed(1)) ** 3 * 20
    signal = host.call("GMHDREncodeSignal", hdr=hdr).args[0]
    entry = host.call("GMHDRSavePNG", hdr=hdr, filename_prefix="signal/x").ui["images"][0]
    codes = imagecodecs.png_decode((host.base / "output/signal" / entry["filename"]).read_bytes())
    torch.testing.assert_close(
        torch.from_numpy(codes.astype("float32") / 65535), signal[0], rtol=0, atol=2e-5
    )


@pytest.mark.parametrize("primaries", ["bt709", "p3", "bt2020", "acescg"])
@pytest.mark.parametrize("space", ["HDR PQ", "HDR (HLG)", "linear"])
def test_no_signal_holds_infinite_values(host, space, primaries) -> None:
    hdr = torch.ones(1, 1, 4, 3)
    hdr[0, 0, :3].fill_diagonal_(float("inf"))
    hdr[0, 0, 3] = torch.tensor([3e38, float("inf"), float("-inf")])
    options = {"color_space": space, "primaries": primaries}
    assert torch.isfinite(host.call("GMHDREncodeSignal", hdr=hdr, **options).args[0]).all()


@pytest.mark.parametrize("space", ["HDR PQ", "HDR (HLG)"])
def test_broken_values_do_not_reach_the_saver(host, space) -> None:
    hdr = torch.ones(1, 2, 2, 3)
    hdr[0, 0, 0, 0], hdr[0, 0, 1], hdr[0, 1, 0] = float("nan"), float("inf"), float("-inf")
    signal = host.call("GMHDREncodeSignal", hdr=hdr, color_space=space).args[0]
    assert torch.isfinite(signal).all() and signal.min() >= 0 and signal.max() <= 1
    assert (signal[0, 0, 1] == 1).all() and (signal[0, 1, 0] < 1e-6).all()


def test_pq_codes_follow_the_luminance_of_white(host) -> None:
    """100 nits are 0.5081 of PQ (BT.2408)."""
    white = torch.ones(1, 2, 2, 3)
    coded = host.call("GMHDREncodeSignal", hdr=white, color_space="HDR PQ", white_nits=100.0).args[0]
    torch.testing.assert_close(coded, torch.full_like(white, 0.5081), rtol=0, atol=1e-4)
