"""A real client shows our files as intended, at every display headroom."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gm_core.codecs.avif import encode_avif
from gm_core.codecs.png import encode_png_pq
from gm_core.codecs.ultrahdr import decode_ultrahdr, encode_ultrahdr
from gm_core.codecs.ultrahdr import jpeg_segments as jpeg
from tests.codecs.chromium import Chromium, find_chromium
from tests.codecs.other_writers import APPLE_XMP, CODES, apple_exif, picture, with_index, xmp
from tests.codecs.scenes import case, pq_psnr
from tests.marks import writes_avif

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed"),
]
SCENE = case("studio", 9, 192, 256)


@pytest.fixture(scope="module")
def browser():
    with Chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def ultra() -> bytes:
    return encode_ultrahdr(sdr=SCENE.sdr, hdr=SCENE.hdr)


def test_all_of_the_gain_map(browser, ultra):
    shown = browser.pixels(ultra, stops=5)
    assert pq_psnr(shown, SCENE.hdr) >= 46
    assert pq_psnr(shown, decode_ultrahdr(ultra).hdr) >= 52


@pytest.mark.parametrize("stops", [0, 1, 2])
def test_headroom_limits_the_peak(browser, ultra, stops):
    shown = browser.pixels(ultra, stops=stops)
    assert shown.max() == pytest.approx(2**stops, rel=0.02)
    assert pq_psnr(shown, decode_ultrahdr(ultra, headroom=2**stops).hdr) >= 60


def test_an_sdr_screen_shows_the_base(browser, ultra):
    base = np.asarray(Image.open(io.BytesIO(ultra)))
    shown = browser.screenshot(ultra, 256, 192)
    assert np.abs(shown.astype(int) - base).max() <= 1


@pytest.mark.parametrize("scale", [2, 4])
def test_small_maps(browser, scale):
    data = encode_ultrahdr(sdr=SCENE.sdr, hdr=SCENE.hdr, gain_map_scale=scale)
    assert pq_psnr(browser.pixels(data, stops=5), decode_ultrahdr(data).hdr) >= 50


def test_wide_gamut_base(browser):
    scene = case("studio", 9, 96, 128)
    data = encode_ultrahdr(sdr=scene.sdr, hdr=scene.hdr, primaries="p3")
    to_709 = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
    assert pq_psnr(browser.pixels(data, stops=5), np.maximum(scene.hdr @ to_709.T, 0)) >= 46


def test_wide_gamut_beside_a_bt709_base(browser):
    scene = case("church", 9, 96, 128)
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    wide = scene.hdr @ to_2020.T * (1.0, 1.05, 0.9)
    data = encode_ultrahdr(sdr=scene.sdr, hdr=wide, hdr_primaries="bt2020")
    shown = browser.pixels(data, stops=5)
    assert pq_psnr(np.maximum(shown, 0), np.maximum(decode_ultrahdr(data).hdr, 0)) >= 42


@pytest.mark.parametrize("stated", ["", ' HDRGainMap:HDRGainMapHeadroom="4.5"'])
def test_apple_gain_maps_look_the_same(browser, stated):
    gain_map = picture(CODES[..., 0], [xmp(APPLE_XMP % stated)])
    data = with_index(gain_map, segments=[(jpeg.APP1, apple_exif(1.01, 1.0))])
    assert pq_psnr(browser.pixels(data, stops=5), decode_ultrahdr(data).hdr) >= 50


def test_png_pq(browser):
    scene = case("studio", 9, 96, 128)
    assert (
        pq_psnr(np.maximum(browser.pixels(encode_png_pq(scene.hdr), stops=6, kind="png"), 0), scene.hdr) >= 60
    )


@writes_avif
def test_lossless_avif(browser):
    pytest.importorskip("imagecodecs")
    scene = case("studio", 9, 96, 128)
    shown = browser.pixels(encode_avif(scene.hdr, quality=100), stops=6, kind="avif")
    assert pq_psnr(np.maximum(shown, 0), scene.hdr) >= 54
