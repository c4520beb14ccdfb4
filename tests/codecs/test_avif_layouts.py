"""AVIF files as others lay them out: profiles, ranges, tiles, crops."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from gm_core.codecs.avif import decode_avif
from gm_core.codecs.icc import build_icc
from gm_core.codecs.iso_boxes import write_box
from gm_core.codecs.signal import HLG, PQ, pq_codes
from gm_core.codecs.video.priorities import ordinary_priority
from gm_core.errors import ImageReadError
from tests.codecs.raw_avif import grid_avif
from tests.marks import writes_avif

av = pytest.importorskip("av")
imagecodecs = pytest.importorskip("imagecodecs")
Y, X = np.mgrid[0:128, 0:192]
PICTURE = np.stack([X / 191, Y / 127, (X + Y) / 318], axis=-1)


def by_pillow(**options) -> bytes:
    file = io.BytesIO()
    Image.fromarray((PICTURE * 255).astype(np.uint8)).save(file, "AVIF", quality=100, **options)
    return file.getvalue()


def in_pq(pixels: np.ndarray) -> bytes:
    codes = (pixels * 1023 + 0.5).astype(np.uint16)
    return imagecodecs.avif_encode(
        codes, level=100, bitspersample=10, pixelformat="444", primaries=9, transfer=16, matrix=0
    )


def tiled(*, width: int = 192, height: int = 128, extra: bytes = b"") -> bytes:
    """The picture as 2 rows of 3 tiles."""
    tiles = [in_pq(PICTURE[y : y + 64, x : x + 64]) for y in (0, 64) for x in (0, 64, 128)]
    return grid_avif(tiles, columns=3, width=width, height=height, extra=extra)


def assert_shows(data: bytes, expected: np.ndarray) -> None:
    codes = pq_codes(decode_avif(data).hdr, primaries="bt2020", white_nits=203)
    np.testing.assert_allclose(codes, expected, atol=0.6 / 1023)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:0:0"])
@pytest.mark.parametrize("extent", ["full", "limited"])
def test_every_sampling_and_range_reads_as_libavif_does(subsampling, extent):
    data = by_pillow(subsampling=subsampling, range=extent)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    error = np.abs(decode_avif(data).sdr * 255 - expected)
    assert error.max() <= 2 and error.mean() <= 0.55


@pytest.mark.parametrize("primaries", ["bt709", "p3", "bt2020"])
def test_a_profile_names_the_primaries(primaries):
    assert decode_avif(by_pillow(icc_profile=build_icc(primaries))).primaries == primaries


def test_colours_multiplied_by_alpha_are_divided_by_it():
    alpha = np.where(X < 150, 40 + X, 0)
    image = Image.fromarray(np.dstack([PICTURE * 255, alpha]).astype(np.uint8), "RGBA")
    file = io.BytesIO()
    image.save(file, "AVIF", quality=100, subsampling="4:4:4", alpha_premultiplied=True)
    picture, shown = decode_avif(file.getvalue()), np.asarray(Image.open(file)) / 255
    np.testing.assert_allclose(picture.alpha, shown[..., 3], atol=1e-6)
    covered = alpha > 0
    np.testing.assert_allclose(picture.sdr[covered], shown[covered, :3], atol=8 / 255)


@writes_avif
def test_tags_of_the_container_count_before_those_of_the_picture():
    data = in_pq(PICTURE)
    as_hlg = data.replace(struct.pack(">4sHH", b"nclx", 9, PQ), struct.pack(">4sHH", b"nclx", 9, HLG))
    assert decode_avif(data).hdr.max() > 40
    assert decode_avif(as_hlg).hdr.max() == pytest.approx(1000 / 203, rel=0.01)


def by_ffmpeg(y: int, cb: int, cr: int) -> bytes:
    """One colour in 10 bits of limited range, tagged as BT.2020 and PQ, its matrix not stated."""
    file, frame = io.BytesIO(), av.VideoFrame(64, 64, "yuv420p10le")
    for plane, code in zip(frame.planes, (y, cb, cr), strict=True):
        plane.update(np.full(plane.buffer_size // 2, code, "<u2"))
    with av.open(file, "w", format="avif") as container, ordinary_priority():
        stream = container.add_stream("libsvtav1", rate=1, options={"svtav1-params": "crf=1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        stream.codec_context.color_primaries, stream.codec_context.color_trc = 9, 16
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def test_an_avif_without_a_matrix_reads_as_libavif_does():
    data = by_ffmpeg(500, 400, 600)
    codes = pq_codes(decode_avif(data).hdr, primaries="bt2020", white_nits=203)
    np.testing.assert_allclose(codes, imagecodecs.avif_decode(data) / 1023, atol=2 / 1023)


@writes_avif
@pytest.mark.parametrize(("width", "height"), [(192, 128), (180, 100)])
def test_tiles_are_put_together(width, height):
    assert_shows(tiled(width=width, height=height), PICTURE[:height, :width])


@writes_avif
def test_a_clean_aperture_is_cut_out_before_the_picture_is_turned():
    # 100 x 50 pixels, their centre 10 to the left of and 5 below that of the picture.
    extra = write_box(b"clap", struct.pack(">IIIIiIiI", 100, 1, 50, 1, -10, 1, 5, 1))
    assert_shows(tiled(extra=extra), PICTURE[44:94, 36:136])
    assert_shows(tiled(extra=extra + write_box(b"irot", b"\1")), np.rot90(PICTURE[44:94, 36:136]))


@writes_avif
@pytest.mark.parametrize(
    ("aperture", "message"),
    [
        ((100, 0, 50, 1, 0, 1, 0, 1), "clean aperture is damaged"),
        ((300, 1, 50, 1, 0, 1, 0, 1), "does not lie on pixels"),
        ((101, 1, 50, 1, 0, 1, 0, 1), "does not lie on pixels"),
    ],
)
def test_an_impossible_aperture_is_named(aperture, message):
    with pytest.raises(ImageReadError, match=message):
        decode_avif(tiled(extra=write_box(b"clap", struct.pack(">IIIIiIiI", *aperture))))


@writes_avif
def test_tiles_that_do_not_cover_the_picture_are_named():
    with pytest.raises(ImageReadError, match="do not cover the picture"):
        decode_avif(tiled(width=193))
