"""Colour tags of ITU-T H.273, as pictures and video frames carry them."""

from __future__ import annotations

import numpy as np
import pytest

from gm_core.codecs.frames import Tags, frame_codes, frame_picture
from gm_core.codecs.signal import HLG, LINEAR, PQ, SRGB, picture_of, pq_codes
from gm_core.codecs.video import decode_frames, describe_video
from gm_core.errors import ImageReadError

av = pytest.importorskip("av")
RAMP = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)


@pytest.mark.parametrize("primaries", [4, 5, 6, 7, 8, 10, 11, 22])
def test_primaries_without_a_name_are_converted_and_white_stays_white(primaries):
    picture = picture_of(np.ones((1, 1, 3), np.float32), primaries=primaries, transfer=LINEAR)
    assert picture.primaries == "bt2020"
    np.testing.assert_allclose(picture.hdr, 1, atol=1e-5)


def test_xyz_primaries_are_those_of_the_eye():
    """CIE XYZ of BT.2020 green under equal energy, in the primaries of BT.2020 again mostly green."""
    green = np.array([[[0.1446, 0.6780, 0.0281]]], np.float32)
    red, greenest, blue = picture_of(green, primaries=10, transfer=LINEAR).hdr[0, 0]
    assert greenest > 0.9 and abs(red) < 0.1 and abs(blue) < 0.1


# Published as "PAL/SECAM RGB" and "SMPTE-C RGB" by Bruce Lindbloom, linear RGB to CIE XYZ under D65.
PAL = [[0.4306, 0.3415, 0.1783], [0.2220, 0.7066, 0.0713], [0.0202, 0.1296, 0.9391]]
SMPTE_C = [[0.3936, 0.3652, 0.1916], [0.2124, 0.7010, 0.0865], [0.0187, 0.1119, 0.9582]]


@pytest.mark.parametrize(("primaries", "to_xyz"), [(5, PAL), (6, SMPTE_C), (7, SMPTE_C)])
def test_primaries_of_old_television_keep_their_colours(primaries, to_xyz):
    rgb = np.eye(3, dtype=np.float32)[None]
    bt2020 = [[0.6370, 0.1446, 0.1689], [0.2627, 0.6780, 0.0593], [0.0, 0.0281, 1.0610]]
    found = picture_of(rgb, primaries=primaries, transfer=LINEAR).hdr[0] @ np.transpose(bt2020)
    np.testing.assert_allclose(found.T, to_xyz, atol=5e-4)


@pytest.mark.parametrize(("transfer", "light"), [(4, 0.2176), (5, 0.1436), (8, 0.5), (17, 0.1800)])
def test_plain_powers_are_those_of_the_standard(transfer, light):
    """Half the signal: exponents 2.2 and 2.8, linear, and 52.37/48 x 0.5^2.6 of SMPTE ST 428-1."""
    grey = picture_of(np.full((1, 1, 3), 0.5, np.float32), primaries=12, transfer=transfer)
    assert grey.primaries == "p3"
    np.testing.assert_allclose(grey.hdr, light, atol=1e-4)


@pytest.mark.parametrize("transfer", [4, 5, 8, 17])
def test_powers_of_colours_outside_the_primaries_keep_their_sign(transfer):
    """As float JPEG XL has them."""
    codes = np.array([[[0.5, -0.5, 0]]], np.float32)
    red, green, _ = picture_of(codes, primaries=12, transfer=transfer).hdr[0, 0]
    assert green == -red < 0


def test_what_an_sdr_curve_says_beyond_white_is_hdr_alone():
    picture = picture_of(np.array([[[1.5, -0.1, 0.5]]], np.float32), primaries=1, transfer=SRGB)
    np.testing.assert_array_equal(picture.sdr[0, 0], np.float32([1, 0, 0.5]))
    assert picture.hdr[0, 0, 0] > 2 and picture.hdr[0, 0, 1] < 0


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_without_primaries_is_that_of_bt2100(transfer):
    assert picture_of(np.ones((1, 1, 3), np.float32), primaries=2, transfer=transfer).primaries == "bt2020"


@pytest.mark.parametrize("transfer", [9, 10, 19, 255])
def test_an_unknown_curve_is_named(transfer):
    with pytest.raises(ImageReadError, match=f"transfer curve {transfer} .* convert"):
        picture_of(np.ones((1, 1, 3), np.float32), primaries=1, transfer=transfer)


def grey_frame(pixel_format: str, luma: np.ndarray, neutral: int = 512):
    frame = av.VideoFrame(64, 64, pixel_format)
    for index, plane in enumerate(frame.planes):
        rows = np.full((plane.height, plane.line_size // 2), neutral, "<u2")
        if not index or pixel_format.startswith("gbr"):
            rows[:, :64] = luma
        plane.update(rows)
    return frame


@pytest.mark.parametrize("pixel_format", ["gray10le", "yuv444p10le", "yuv420p10le"])
def test_limited_range_is_stretched(pixel_format):
    frame = grey_frame(pixel_format, np.rint(RAMP * 876 + 64).astype("<u2"))
    picture = frame_picture(frame, Tags(primaries=9, transfer=PQ, matrix=9, range=1))
    codes = pq_codes(picture.hdr, primaries="bt2020", white_nits=203)
    np.testing.assert_allclose(codes, np.repeat(RAMP[..., None], 3, -1), atol=1e-3)


def test_an_hdr_signal_without_a_matrix_is_read_with_that_of_bt2020():
    frame = grey_frame("yuv444p10le", np.full((64, 64), 300, "<u2"), neutral=600)
    stated = frame_picture(frame, Tags(primaries=9, transfer=PQ, matrix=9, range=1))
    for tags in (Tags(9, PQ, 2, 1), Tags(2, PQ, 2, 1)):
        np.testing.assert_array_equal(frame_picture(frame, tags).hdr, stated.hdr)


# Luma weights of H.273, table 4, in 10 bits of limited range, rounded.
@pytest.mark.parametrize(
    ("matrix", "red", "blue"),
    [
        (1, (157, 461, 736), (96, 736, 491)),
        (5, (195, 436, 736), (114, 736, 476)),
        (6, (195, 436, 736), (114, 736, 476)),
        (7, (157, 460, 736), (102, 736, 487)),
        (9, (179, 449, 736), (90, 736, 494)),
    ],
)
def test_half_of_red_and_blue_in_each_matrix(matrix, red, blue):
    for codes, rgb in ((red, (0.5, 0, 0)), (blue, (0, 0, 0.5))):
        frame = av.VideoFrame(64, 64, "yuv444p10le")
        for plane, code in zip(frame.planes, codes, strict=True):
            plane.update(np.full((plane.height, plane.line_size // 2), code, "<u2"))
        found = frame_codes(frame, Tags(1, 1, matrix, 1))
        np.testing.assert_allclose(found[0, 0], rgb, atol=2e-3)


def test_ycgco_is_undone():
    red, green, blue = 0.8, 0.4, 0.2
    y, cg, co = (red + 2 * green + blue) / 4, (2 * green - red - blue) / 4, (red - blue) / 2
    frame = av.VideoFrame(64, 64, "yuv444p10le")
    for plane, value in zip(frame.planes, (y * 1023, cg * 1023 + 512, co * 1023 + 512), strict=True):
        plane.update(np.full((plane.height, plane.line_size // 2), round(value), "<u2"))
    picture = frame_picture(frame, Tags(1, 1, 8, 2))
    np.testing.assert_allclose(picture.sdr[0, 0], (red, green, blue), atol=2e-3)


def test_an_unknown_matrix_is_named():
    with pytest.raises(ImageReadError, match="colour matrix 14 .* convert"):
        frame_picture(grey_frame("yuv444p10le", RAMP), Tags(9, PQ, 14, 1))


def test_tags_of_the_container_count_where_frames_have_none(tmp_path):
    """As editors leave ProRes: the curve stands in the container alone."""
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("prores_ks", rate=24, options={"profile": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv444p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, PQ, 9
        frame = grey_frame("yuv444p10le", np.rint(RAMP * 876 + 64).astype("<u2"))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert int(next(container.decode(video=0)).color_trc) == 2
    picture = next(decode_frames(path))
    codes = pq_codes(picture.hdr, primaries=picture.primaries, white_nits=203)
    np.testing.assert_allclose(codes.mean(-1), RAMP, atol=0.02)


def test_broadcast_hlg_is_told_by_its_frames(tmp_path):
    """BT.2020 SDR in the header, HLG in a message beside every frame (ATSC, DVB)."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        # Of so short a clip x265 leaves the decoding times to chance, unless it must not reorder.
        options = {"x265-params": "atc-sei=18:bframes=0:log-level=error", "preset": "ultrafast"}
        stream = container.add_stream("libx265", rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, 14, 9
        frame = grey_frame("yuv420p10le", np.full((64, 64), 502, "<u2"))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert describe_video(path).transfer == HLG
    expected = picture_of(np.full((1, 1, 3), 0.5, np.float32), primaries=9, transfer=HLG)
    np.testing.assert_allclose(next(decode_frames(path)).hdr[9:-9, 9:-9], expected.hdr.max(), rtol=0.05)


def test_a_playlist_is_no_video(tmp_path):
    """It would have FFmpeg open other files."""
    with av.open(str(tmp_path / "other.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv444p10le"
        container.mux(stream.encode(grey_frame("yuv444p10le", RAMP)))
        container.mux(stream.encode(None))
    assert describe_video(tmp_path / "other.mkv").frames == 1
    path = tmp_path / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile other.mkv\n")
    with pytest.raises(ImageReadError, match=r"list\.mp4"):
        describe_video(path)
