"""Load HDR Video: what Save HDR Video wrote comes back, and what is no HDR video is refused with reasons."""

from __future__ import annotations

import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.codecs.readers import run_ffmpeg

av = pytest.importorskip("av")
HEIGHT, WIDTH = 64, 96


def frames(count=4, peak=8.0):
    ramp = torch.linspace(0, 1, WIDTH).expand(count, HEIGHT, WIDTH) ** 2 * peak
    colour = torch.tensor([1.0, 0.8, 0.6])
    return (ramp * torch.arange(1, count + 1).reshape(-1, 1, 1) / count)[..., None] * colour


@pytest.fixture(scope="module")
def saved(host):
    """Four frames from Save HDR Video, in the input folder."""
    shown = host.call("GMHDRSaveVideo", hdr=frames(), fps=23.976).ui["images"][0]
    path = host.base / "output" / shown["subfolder"] / shown["filename"]
    return shutil.copy(path, host.base / "input/saved.mp4").name


@pytest.fixture
def error(host):
    return host.module("gm_core.errors").ImageReadError


def write_video(path, *, transfer, values=0.5, count=2):
    """A plain HEVC video in BT.2020, every luma code the same share of the range."""
    with av.open(str(path), "w") as container:
        # Of so short a clip x265 leaves the decoding times to chance, unless it must not reorder.
        options = {"x265-params": "bframes=0:log-level=none"}
        stream = container.add_stream("libx265", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, transfer, 9
        for _ in range(count):
            frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p10le")
            for plane, code in zip(frame.planes, (64 + round(876 * values), 512, 512), strict=True):
                plane.update(np.full(plane.buffer_size // 2, code, "<u2"))
            frame.color_primaries, frame.color_trc, frame.colorspace = 9, transfer, 9
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_what_was_saved_comes_back(host, saved) -> None:
    hdr, fps = host.call("GMHDRLoadVideo", video=saved).args
    assert hdr.shape == (4, HEIGHT, WIDTH, 3) and hdr.dtype == torch.float32
    assert Fraction(fps).limit_denominator(2000) == Fraction(24000, 1001)
    torch.testing.assert_close(hdr, frames(), rtol=0.06, atol=0.03)


def test_a_range_of_frames(host, saved) -> None:
    whole = host.call("GMHDRLoadVideo", video=saved).args[0]
    part = host.call("GMHDRLoadVideo", video=saved, start_frame=1, frame_count=2).args[0]
    assert torch.equal(part, whole[1:3])
    assert len(host.call("GMHDRLoadVideo", video=saved, start_frame=2, frame_count=99).args[0]) == 2


def test_a_trimmed_video_gives_the_frames_it_shows(host, saved) -> None:
    source, trimmed = host.base / "input" / saved, host.base / "input/trimmed.mp4"
    run_ffmpeg("-y", "-ss", "0.07", "-i", str(source), "-c", "copy", str(trimmed))
    whole = host.call("GMHDRLoadVideo", video=saved).args[0]
    assert torch.equal(host.call("GMHDRLoadVideo", video="trimmed.mp4").args[0], whole[2:])
    assert torch.equal(host.call("GMHDRLoadVideo", video="trimmed.mp4", frame_count=1).args[0], whole[2:3])


def test_white_and_primaries_are_chosen(host, saved) -> None:
    usual = host.call("GMHDRLoadVideo", video=saved, convert_to="bt2020").args[0]
    brighter = host.call("GMHDRLoadVideo", video=saved, convert_to="bt2020", white_nits=101.5).args[0]
    torch.testing.assert_close(brighter, 2 * usual)
    assert not torch.allclose(usual, host.call("GMHDRLoadVideo", video=saved).args[0], atol=0.05)


def test_hlg_is_shown_on_its_reference_display(host) -> None:
    write_video(host.base / "input/hlg.mkv", transfer=18, values=0.75)
    hdr, fps = host.call("GMHDRLoadVideo", video="hlg.mkv").args
    # BT.2408: 75 % HLG is reference white, 203 cd/m2.
    torch.testing.assert_close(hdr, torch.ones(2, HEIGHT, WIDTH, 3), rtol=0.02, atol=0)
    assert fps == 25


@pytest.mark.parametrize(("transfer", "name"), [(1, "BT.709"), (14, "BT.2020 SDR")])
def test_sdr_video_is_refused_in_words(host, error, transfer, name) -> None:
    write_video(host.base / "input/sdr.mp4", transfer=transfer)
    with pytest.raises(error, match=f"sdr.mp4: its transfer curve is {name}; expected PQ or HLG"):
        host.call("GMHDRLoadVideo", video="sdr.mp4")


@pytest.mark.parametrize("share", [0.05, 0.6, 0.9])
def test_a_truncated_file_is_refused_by_name(host, saved, error, share) -> None:
    data = (host.base / "input" / saved).read_bytes()
    (host.base / "input/cut.mp4").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(error, match=r"cut\.mp4"):
        host.call("GMHDRLoadVideo", video="cut.mp4")


def test_a_picture_is_refused_by_name(host, error) -> None:
    (host.base / "input/no.mp4").write_bytes(b"#?RADIANCE\nnothing")
    with pytest.raises(error, match=r"no\.mp4"):
        host.call("GMHDRLoadVideo", video="no.mp4")


def test_too_much_for_the_memory_limit_is_refused_before_reading(host, error) -> None:
    module = host.module("nodes.loading_video")
    info = module.VideoInfo(3840, 2160, 1000, Fraction(24), 16)
    assert module.frames_to_read(info, 10, 80, 8.0, "x.mp4") == 80
    with pytest.raises(
        error, match="990 frames of 3840x2160 take 98.5 GB; memory_limit is 8 GB, enough for 80"
    ):
        module.frames_to_read(info, 10, 0, 8.0, "x.mp4")


def test_a_start_beyond_the_end_is_explained(host, saved, error) -> None:
    with pytest.raises(error, match="start_frame is 4; the video has 4 frames"):
        host.call("GMHDRLoadVideo", video=saved, start_frame=4)


def test_nothing_outside_the_folders_is_read(host) -> None:
    (host.base / "secret.mp4").write_bytes(b"x")
    assert "outside ComfyUI's" in host.node("GMHDRLoadVideo").validate_inputs(video="../secret.mp4")
    assert "no such file" in host.node("GMHDRLoadVideo").validate_inputs(video="nowhere.mp4")


def test_a_graph_from_file_to_file(host, saved) -> None:
    graph = {
        "1": {
            "class_type": "GMHDRLoadVideo",
            "inputs": {
                **{"video": saved, "start_frame": 0, "frame_count": 2, "memory_limit": 1.0},
                **{"white_nits": 203.0, "convert_to": "bt709"},
            },
        },
        "2": {
            "class_type": "GMHDRSaveVideo",
            "inputs": {
                **{"hdr": ["1", 0], "fps": ["1", 1], "filename_prefix": "again", "codec": "hevc", "crf": 14},
                **{"primaries": "bt709", "white_nits": 203.0},
            },
        },
    }
    assert host.run(graph)["2"]["images"][0]["filename"].endswith(".mp4")


def test_a_changed_file_or_setting_is_read_again(host, saved) -> None:
    node = host.node("GMHDRLoadVideo")
    assert node.fingerprint_inputs(video=saved, start_frame=0) == node.fingerprint_inputs(
        video=saved, start_frame=0
    )
    assert node.fingerprint_inputs(video=saved, start_frame=0) != node.fingerprint_inputs(
        video=saved, start_frame=1
    )
