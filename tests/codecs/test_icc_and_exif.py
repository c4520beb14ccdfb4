"""Colour profiles, and the Exif block that carries a workflow."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageCms

from gm_core.codecs.exif import exif_block
from gm_core.codecs.files import read_image
from gm_core.codecs.icc import build_icc, read_icc, srgb_table
from gm_core.errors import ImageReadError


@pytest.mark.parametrize("primaries", ["bt709", "p3", "bt2020"])
def test_profile_round_trip(primaries):
    profile = read_icc(build_icc(primaries))
    assert profile.primaries == primaries
    np.testing.assert_allclose(profile.to_xyz.sum(1), (0.9642, 1.0, 0.8249), atol=3e-5)
    np.testing.assert_allclose(profile.curves, [srgb_table()] * 3, atol=2e-5)


def test_littlecms_accepts_the_profile_as_srgb():
    ours = ImageCms.ImageCmsProfile(io.BytesIO(build_icc("bt709")))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    converted = ImageCms.profileToProfile(Image.fromarray(pixels), ours, ImageCms.createProfile("sRGB"))
    assert np.abs(np.asarray(converted).astype(int) - pixels).max() <= 1


def test_littlecms_profile_is_read_as_srgb():
    profile = read_icc(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert profile.primaries == "bt709"
    np.testing.assert_allclose(profile.curves, [srgb_table()] * 3, atol=1e-4)


@pytest.mark.parametrize("cut", [0, 100, 130, 200, 400])
def test_damaged_profiles_are_refused(cut):
    with pytest.raises(ImageReadError, match="ICC profile"):
        read_icc(build_icc("p3")[:cut])


def test_a_picture_with_a_damaged_profile_is_read_as_srgb(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8), (255, 255, 255)).save(path, icc_profile=build_icc("p3")[:150])
    assert read_image(path).primaries == "bt709"


def test_foreign_primaries_become_bt2020(tmp_path):
    adobe = bytearray(build_icc("bt709"))
    at = adobe.index(b"XYZ \0\0\0\0", adobe.index(b"sf32"))
    values = np.array([0.60974, 0.31111, 0.01947]) * 65536
    adobe[at + 8 : at + 20] = values.astype(">i4").tobytes()
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8), (0, 255, 0)).save(path, icc_profile=bytes(adobe), quality=100)
    read = read_image(path)
    assert read.primaries == "bt2020"
    assert 0 <= read.sdr.min() and read.sdr.max() <= 1


def test_workflow_goes_where_comfyui_puts_it():
    prompt, workflow = {"1": {"text": "über 漢字"}}, {"nodes": [1, 2]}
    exif = Image.Exif()
    exif.load(exif_block({"workflow": json.dumps(workflow), "prompt": json.dumps(prompt), "other": "3"}))
    assert json.loads(exif[0x0110].removeprefix("prompt:")) == prompt
    assert json.loads(exif[0x010F].removeprefix("workflow:")) == workflow
    assert exif[0x010E] == "other:3"


def test_no_metadata_makes_no_block():
    assert exif_block({}) is None


@pytest.mark.parametrize("suffix", ["webp", "bmp"])
def test_ordinary_pictures_are_read(suffix, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(np.rint(read_image(path).sdr * 255), pixels)
