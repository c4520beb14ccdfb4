"""HDR10 video carries its pictures, its colour tags and its light levels."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gm_core.codecs.files import write_atomic
from gm_core.codecs.iso_boxes import read_boxes, write_box
from gm_core.codecs.pillow_srgb import upright
from gm_core.codecs.signal import PQ, pq_codes
from gm_core.codecs.video import decode_frames, describe_video, encode_hdr10
from gm_core.codecs.video.write import to_yuv420
from gm_core.errors import ImageReadError, ImageWriteError
from tests.codecs.readers import ffprobe, run_ffmpeg
from tests.codecs.scenes import case, pq, psnr

av = pytest.importorskip("av")
ROOT = Path(__file__).resolve().parents[2]
PICTURE = case("blobs", 9, 128, 192).hdr.astype(np.float32)


def frames():
    for index in range(4):
        yield np.roll(PICTURE, 8 * index, axis=1) * (1 + 0.25 * index)


@pytest.fixture(scope="module", params=["hevc", "av1"])
def video(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / f"{request.param}.mp4"
    levels = []
    write_atomic(path, lambda file: levels.append(encode_hdr10(file, frames, codec=request.param)))
    return path, levels[0]


def test_frames_come_back(video):
    read = list(decode_frames(video[0]))
    assert len(read) == 4
    luma = np.array((0.2627, 0.6780, 0.0593))
    for picture, expected in zip(read, frames(), strict=True):
        codes = pq_codes(expected, primaries="bt709", white_nits=203)
        again = pq_codes(picture.hdr, primaries=picture.primaries, white_nits=203)
        assert picture.primaries == "bt2020"
        assert psnr(again @ luma, codes @ luma) >= 50
    assert [round(picture.metadata["time"] * 24) for picture in read] == [0, 1, 2, 3]


ENCODE = """
import io, sys
import numpy as np
from gm_core.codecs.video import encode_hdr10
clip = list(np.random.default_rng(0).random((4, 34, int(sys.argv[1]), 3), np.float32))
for _ in range(5):
    encode_hdr10(io.BytesIO(), lambda: clip)
"""


@pytest.mark.parametrize("width", [34, 40, 48])
def test_narrow_clips_do_not_end_the_process(width):
    """x265's tree of blocks overran its tables, and ComfyUI was gone."""
    command = [sys.executable, "-c", ENCODE, str(width)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("codec", ["hevc", "av1"])
def test_the_shortest_clips_have_times(tmp_path, codec, count):
    clip = [np.full((64, 64, 3), 0.5 + index, np.float32) for index in range(count)]
    write_atomic(tmp_path / "clip.mp4", lambda file: encode_hdr10(file, lambda: clip, codec=codec))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        times = [(float(packet.pts * packet.time_base), packet.dts - packet.pts) for packet in packets]
    assert sorted(round(24 * time) for time, _ in times) == list(range(count))
    assert count > 2 or all(wait == 0 for _, wait in times)


@pytest.mark.parametrize("codec", ["hevc", "av1"])
def test_crf_0_is_the_best(tmp_path, codec):
    sizes, errors = [], []
    for crf in (0, 1, 35):
        path = tmp_path / f"{crf}.mp4"
        write_atomic(path, lambda file, crf=crf: encode_hdr10(file, frames, codec=codec, crf=crf))
        first = next(decode_frames(path))
        codes = pq_codes(first.hdr, primaries="bt2020", white_nits=203)
        sizes.append(path.stat().st_size)
        errors.append(np.abs(codes - pq_codes(PICTURE, primaries="bt709", white_nits=203)).mean())
    assert sizes[0] > sizes[1] > sizes[2]
    assert errors[0] <= errors[1] < errors[2]


def test_reading_starts_where_asked(video):
    whole, rest = list(decode_frames(video[0])), list(decode_frames(video[0], start=3))
    assert len(rest) == 1 and np.array_equal(rest[0].hdr, whole[3].hdr)
    with pytest.raises(ImageReadError, match="ends after 4 of 8 frames"):
        list(decode_frames(video[0], start=7))


def test_a_video_is_described_without_decoding_it(video):
    assert describe_video(video[0]) == (192, 128, 4, 24, PQ)


SIGNS = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
MATRICES = [(a, 0, 0, d) for a, d in SIGNS] + [(0, b, c, 0) for b, c in SIGNS]


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_turned_or_mirrored_video_stands_as_ffmpeg_shows_it(video, tmp_path, matrix):
    """One of the eight display matrices, written into the header of the track."""
    path, data = tmp_path / "turned.mp4", bytearray(video[0].read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    plain, turned = shown_by_ffmpeg(video[0], False), shown_by_ffmpeg(path, matrix[0] == 0)
    (turn,) = [number for number in range(1, 9) if np.array_equal(upright(plain, number), turned)]
    expected = upright(next(decode_frames(video[0])).hdr, turn)
    np.testing.assert_array_equal(next(decode_frames(path)).hdr, expected)


def shown_by_ffmpeg(path, on_its_side: bool) -> np.ndarray:
    """The luma of the first frame, turned as the file says."""
    raw = path.with_suffix(".raw")
    run_ffmpeg("-y", "-i", str(path), *"-frames:v 1 -vf extractplanes=y -f rawvideo".split(), str(raw))
    return np.fromfile(raw, "<u2").reshape(*((192, 128) if on_its_side else (128, 192)))


def test_frames_that_a_trimmed_video_does_not_show_are_left_out(video, tmp_path):
    """Cut without coding it anew: the frames before the cut are stored, for those after it refer to them."""
    path = tmp_path / "trimmed.mp4"
    run_ffmpeg("-ss", "0.07", "-i", str(video[0]), "-c", "copy", str(path))
    assert describe_video(path).frames == 4
    shown, whole = list(decode_frames(path)), list(decode_frames(video[0]))
    assert len(shown) == 2
    assert all(np.array_equal(a.hdr, b.hdr) for a, b in zip(shown, whole[2:], strict=True))
    with pytest.raises(ImageReadError, match="ends after 2 of 4 frames"):
        list(decode_frames(path, start=2))


def test_a_cover_before_the_film_is_not_taken_for_it(video, tmp_path):
    cover, path = tmp_path / "cover.png", tmp_path / "covered.mp4"
    Image.new("RGB", (40, 30)).save(cover)
    run_ffmpeg(
        *("-i", str(video[0]), "-i", str(cover)),
        *"-map 0 -map 1 -c copy -disposition:v:1 attached_pic".split(),
        str(path),
    )
    # Index entries in another order: texts and cover, then the film.
    boxes = [
        (kind, b"".join(write_box(*box) for box in sorted(read_boxes(rest), key=_film_last)))
        if kind == b"moov"
        else (kind, rest)
        for kind, rest in read_boxes(path.read_bytes())
    ]
    path.write_bytes(b"".join(write_box(*box) for box in boxes))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "png"
    assert describe_video(path)[:3] == (192, 128, 4)
    assert len(list(decode_frames(path))) == 4


def _film_last(box) -> int:
    return {b"mvhd": 0, b"udta": 1}.get(box.kind, 2)


@pytest.mark.parametrize("taken", [0, 1])
def test_a_video_cut_between_or_in_frames_is_refused(video, tmp_path, taken):
    with av.open(str(video[0])) as container:
        last = max(packet.pos for packet in container.demux(video=0) if packet.size)
    path = tmp_path / "cut.mp4"
    path.write_bytes(video[0].read_bytes()[: last + taken])
    with pytest.raises(ImageReadError, match=r"cut\.mp4"):
        list(decode_frames(path))


def test_tags_and_light_levels(video):
    path, level = video
    probe = ffprobe(path)
    stream, frame = probe["streams"][0], probe["frames"][0]
    assert stream["codec_tag_string"] == ("hvc1" if path.stem == "hevc" else "av01")
    assert stream["pix_fmt"] == "yuv420p10le"
    for name, value in (("primaries", "bt2020"), ("transfer", "smpte2084"), ("space", "bt2020nc")):
        assert stream[f"color_{name}"] == value
    assert stream["color_range"] == "tv" and stream["chroma_location"] == "topleft"
    sides = {side["side_data_type"]: side for side in frame["side_data_list"]}
    light = sides["Content light level metadata"]
    assert (light["max_content"], light["max_average"]) == (round(level.max_cll), round(level.average))
    display = sides["Mastering display metadata"]
    shown = {
        name: int.__truediv__(*map(int, value.split("/"))) for name, value in display.items() if "/" in value
    }
    p3 = {
        "red": (0.680, 0.320),
        "green": (0.265, 0.690),
        "blue": (0.150, 0.060),
        "white_point": (0.3127, 0.3290),
    }
    for name, xy in p3.items():
        assert (shown[f"{name}_x"], shown[f"{name}_y"]) == pytest.approx(xy, abs=1e-4)
    assert shown["min_luminance"] == pytest.approx(0.0001, rel=0.4)
    peak = shown["max_luminance"]
    assert peak == pytest.approx(max(1000, np.ceil(level.max_cll)), rel=0.01)


def test_light_levels_are_those_of_the_pictures(video):
    # BT.709 inside BT.2020, so the brightest channel is found after conversion.
    matrix = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    nits = [(frame @ matrix.T * 203).max(-1) for frame in frames()]
    assert video[1].max_cll == pytest.approx(max(n.max() for n in nits), rel=1e-3)
    assert video[1].average == pytest.approx(max(n.mean() for n in nits), rel=1e-3)


def test_the_index_stands_before_the_pictures(video):
    data = video[0].read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_grey_is_neutral():
    codes = pq(np.full((4, 4, 3), 0.5))
    y, cb, cr = to_yuv420(codes)
    assert (y == round(876 * codes[0, 0, 0] + 64)).all()
    assert (cb == 512).all() and (cr == 512).all()


@pytest.mark.parametrize(("rgb", "codes"), [((1, 0, 0), (294, 387, 960)), ((0, 0, 1), (116, 960, 476))])
def test_colours_are_those_of_bt2100(rgb, codes):
    """Table 6 and 9 of BT.2100: 10 bits, limited range."""
    planes = to_yuv420(np.broadcast_to(np.float32(rgb), (4, 4, 3)))
    assert all((plane == code).all() for plane, code in zip(planes, codes, strict=True))


@pytest.mark.parametrize("axis", [0, 1])
def test_colour_sits_on_the_top_left_pixel(axis):
    """A blue line between two samples gives each of them a quarter of its colour."""
    codes = np.zeros((8, 8, 3), np.float32)
    np.moveaxis(codes, axis, 0)[3, :, 2] = 1
    cb = np.moveaxis(to_yuv420(codes)[1], axis, 0)
    assert cb[:, 0].tolist() == [512, 624, 624, 512]


@pytest.mark.skipif(not hasattr(os, "SCHED_FIFO"), reason="only Linux has real-time priorities")
@pytest.mark.parametrize("codec", ["hevc", "av1"])
def test_encoding_leaves_no_real_time_threads(codec, tmp_path):
    """SVT-AV1 asks for them where it may, as root; programs started later would inherit that."""
    seen = set()

    def progress(_: int) -> None:
        for thread in os.listdir("/proc/self/task"):
            # Threads of others may end meanwhile.
            with suppress(ProcessLookupError):
                seen.add(os.sched_getscheduler(int(thread)))

    frames = [np.zeros((64, 64, 3), np.float32)] * 3
    with (tmp_path / "video.mp4").open("w+b") as file:
        encode_hdr10(file, lambda: iter(frames), codec=codec, progress=progress)
    assert not seen & {os.SCHED_FIFO, os.SCHED_RR}
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def failing(frames, **options) -> str:
    with pytest.raises(ImageWriteError) as caught:
        encode_hdr10(None, frames, **options)
    return str(caught.value)


def test_bad_frames_are_named():
    assert "no frames" in failing(lambda: [])
    assert "even sides" in failing(lambda: [np.zeros((3, 4, 3))])
    assert "all must be equal" in failing(lambda: [np.zeros((4, 4, 3)), np.zeros((4, 6, 3))])
    assert "frame 1 contains NaN" in failing(lambda: [np.zeros((4, 4, 3)), np.full((4, 4, 3), np.nan)])
    assert "codec is 'vp9'" in failing(lambda: [np.zeros((4, 4, 3))], codec="vp9")


def test_a_damaged_video_is_named(video, tmp_path):
    path = tmp_path / "bad.mp4"
    path.write_bytes(video[0].read_bytes()[:3000])
    with pytest.raises(ImageReadError, match=r"bad\.mp4"):
        list(decode_frames(path))
