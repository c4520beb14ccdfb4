"""Prompt and workflow in the formats whose libraries do not write them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gm_core.codecs.jxl import decode_jxl, encode_jxl, with_exif
from gm_core.codecs.video import encode_hdr10
from gm_core.errors import ImageWriteError
from tests.codecs.readers import exiftool

PICTURE = np.linspace(0, 9, 64 * 64 * 3, dtype=np.float32).reshape(64, 64, 3)
TEXT = '{"1": "Ünïcode ' + "x" * 200000 + '"}'


def test_jxl_exif_is_found_and_the_picture_unchanged(tmp_path):
    pytest.importorskip("imagecodecs")
    exif = Image.Exif()
    exif[0x0110] = "prompt:{}"
    data = with_exif(encode_jxl(PICTURE), exif.tobytes())
    (tmp_path / "x.jxl").write_bytes(data)
    assert exiftool(tmp_path / "x.jxl")["IFD0:Model"] == "prompt:{}"
    assert np.array_equal(decode_jxl(data).hdr, PICTURE)


def test_exif_needs_a_container():
    with pytest.raises(ImageWriteError, match="no container"):
        with_exif(b"\xff\x0a", b"Exif\0\0MM")


def test_a_long_text_fits_into_the_index_of_a_video():
    av = pytest.importorskip("av")
    file = io.BytesIO()
    encode_hdr10(file, lambda: [PICTURE] * 3, metadata={"prompt": TEXT, "workflow": TEXT})
    data = file.getvalue()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(io.BytesIO(data)) as container:
        assert container.metadata["prompt"] == container.metadata["workflow"] == TEXT


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_an_mp4_cannot_hold_is_refused(name):
    with pytest.raises(ImageWriteError, match="name of a text"):
        encode_hdr10(io.BytesIO(), lambda: [PICTURE], metadata={name: "{}"})
