"""HDR10 video: what other programs find in the files, and what happens when it goes wrong."""

from __future__ import annotations

import json
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.codecs.readers import ffprobe
from tests.comfy.pictures import PROMPT, WORKFLOW

av = pytest.importorskip("av")


def frames(count=3, height=64, width=96, peak=8.0):
    ramp = torch.linspace(0, 1, width).expand(count, height, width) ** 2 * peak
    return (ramp * torch.arange(1, count + 1).reshape(-1, 1, 1) / count)[..., None].repeat(1, 1, 1, 3)


@pytest.fixture
def save_video(save):
    def run(hdr, **inputs):
        (path,), warnings = save("GMHDRSaveVideo", hdr, **inputs)
        return path, warnings

    return run


@pytest.fixture
def error(host):
    return host.module("gm_core.errors").ImageWriteError


@pytest.mark.parametrize(("codec", "tag"), [("hevc", "hvc1"), ("av1", "av01")])
def test_players_find_hdr10(save_video, codec, tag) -> None:
    path, warnings = save_video(frames(), codec=codec, fps=23.976)
    probe = ffprobe(path)
    stream = probe["streams"][0]
    assert (stream["codec_tag_string"], stream["pix_fmt"]) == (tag, "yuv420p10le")
    assert (stream["color_primaries"], stream["color_transfer"]) == ("bt2020", "smpte2084")
    assert Fraction(stream["r_frame_rate"]) == Fraction(24000, 1001)
    sides = {side["side_data_type"]: side for side in probe["frames"][0]["side_data_list"]}
    assert sides["Content light level metadata"]["max_content"] == pytest.approx(8 * 203, abs=1)
    assert "Mastering display metadata" in sides and not warnings


def test_frames_come_back_in_order_at_their_luminance(host, save_video) -> None:
    hdr = frames()
    path, _ = save_video(hdr)
    back = list(host.module("gm_core.codecs.video").decode_frames(path))
    assert len(back) == 3
    for picture, expected in zip(back, hdr, strict=True):
        np.testing.assert_allclose(picture.hdr, expected.numpy(), rtol=0.05, atol=0.02)


def test_luma_of_sdr_white_as_pyav_decodes_it(save_video) -> None:
    path, _ = save_video(torch.ones(1, 64, 64, 3))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    luma = np.frombuffer(frame.planes[0], "<u2")[:64]
    assert luma == pytest.approx(64 + 876 * 0.5806, abs=2)


def test_luma_follows_the_luminance_of_white(save_video) -> None:
    """100 nits are 0.5081 of PQ (BT.2408)."""
    path, _ = save_video(torch.ones(1, 64, 64, 3), white_nits=100.0)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert np.frombuffer(frame.planes[0], "<u2")[:64] == pytest.approx(64 + 876 * 0.5081, abs=2)


def test_a_larger_crf_makes_a_smaller_file(save_video) -> None:
    noise = torch.rand(2, 256, 256, 3, generator=torch.Generator().manual_seed(0))
    fine, coarse = (save_video(noise, crf=crf)[0].stat().st_size for crf in (5, 45))
    assert coarse < 0.5 * fine


def test_the_browser_is_told_that_it_moves(host) -> None:
    assert host.call("GMHDRSaveVideo", hdr=frames(1)).ui["animated"] == (True,)


def test_workflow_is_embedded_unless_disabled(host, save_video, hidden, monkeypatch) -> None:
    path, _ = save_video(frames(), hidden=hidden)
    with av.open(str(path)) as container:
        assert json.loads(container.metadata["prompt"]) == PROMPT
        assert json.loads(container.metadata["workflow"]) == WORKFLOW
    long = {key: {"long": "x" * 100000} for key in hidden}
    data = save_video(frames(), hidden=long)[0].read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    monkeypatch.setattr(host.args, "disable_metadata", True)
    assert b"class_type" not in save_video(frames(), hidden=hidden)[0].read_bytes()


def test_replaced_values_are_reported_by_frame(save_video) -> None:
    hdr = frames()
    hdr[1, 0, 0, 0] = float("nan")
    _, warnings = save_video(hdr)
    assert warnings == ["frame 1: 1 NaN -> 0"]


def test_odd_sizes_and_impossible_options_are_explained(save_video, error) -> None:
    with pytest.raises(error, match="hdr is 95x64.*even width and height"):
        save_video(frames(width=95))
    with pytest.raises(error, match="crf is 60; hevc takes 0 to 51"):
        save_video(frames(), crf=60)


@pytest.mark.parametrize("step", [2, 5])
def test_cancel_while_measuring_or_encoding_leaves_no_file(
    comfy, save_video, output, cancel_at, step
) -> None:
    cancel_at(step)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        save_video(frames(4), filename_prefix="cancel_video/x")
    assert not list((output / "cancel_video").iterdir())


def test_memory_does_not_grow_with_the_number_of_frames(save_video) -> None:
    def peak(count):
        hdr = torch.zeros(1, 64, 64, 3).expand(count, -1, -1, -1)
        tracemalloc.start()
        save_video(hdr)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(48) < peak(6) + 2**20


def test_existing_videos_are_kept(save_video) -> None:
    first, _ = save_video(frames(1), filename_prefix="keep/x")
    second, _ = save_video(frames(1), filename_prefix="keep/x")
    assert first != second and first.stat().st_size and second.stat().st_size


@pytest.mark.parametrize(
    ("fps", "exact"),
    [(23.976, "24000/1001"), (23.98, "24000/1001"), (29.97, "30000/1001"), (59.94, "60000/1001")]
    + [(24.0, "24"), (25.0, "25"), (1.0, "1"), (12.5, "25/2"), (0.1, "1/10")],
)
def test_frame_rates(host, fps, exact) -> None:
    assert host.module("nodes.saving_video").frame_rate(fps) == Fraction(exact)


@pytest.mark.parametrize("codec", ["hevc", "av1"])
def test_a_size_that_the_encoder_refuses_is_an_error_that_leaves_no_file(
    save_video, error, output, codec
) -> None:
    with pytest.raises(error, match=f"frames are 14x64; {codec} takes sides of at least"):
        save_video(frames(2, 64, 14), codec=codec, filename_prefix=f"tiny/{codec}")
    assert not list((output / "tiny").iterdir())
