"""What an OpenEXR file promises, and which layouts of others are read."""

from __future__ import annotations

import io
import math
import struct

import numpy as np
import pytest

from gm_core.codecs.exr import COMPRESSIONS, decode_exr, encode_exr
from gm_core.codecs.files import read_image
from gm_core.color import PRIMARIES, convert_primaries
from gm_core.errors import ImageReadError, ImageWriteError
from tests.codecs.raw_exr import attribute, raw_exr
from tests.codecs.scenes import case, pq_psnr

OpenEXR = pytest.importorskip("OpenEXR")
LOSSLESS = [name for name in COMPRESSIONS if not name.startswith("dwa")]


def random_hdr(height=24, width=37, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.exp2(rng.uniform(-12, 7, (height, width, 3))).astype(np.float32) - 0.01


@pytest.mark.parametrize("compression", LOSSLESS)
def test_float_is_lossless(compression):
    hdr = random_hdr()
    np.testing.assert_array_equal(decode_exr(encode_exr(hdr, compression=compression)).hdr, hdr)


def test_half_rounds_and_clamps():
    hdr = np.exp2(np.random.default_rng(0).uniform(-13, 15, (24, 37, 3))).astype(np.float32)
    back = decode_exr(encode_exr(hdr, half=True)).hdr
    assert (np.abs(back - hdr) / hdr).max() <= 4.9e-4
    hdr[0, 0] = (1e6, -1e6, 65504)
    np.testing.assert_array_equal(decode_exr(encode_exr(hdr, half=True)).hdr[0, 0], (65504, -65504, 65504))


def test_half_keeps_a_picture():
    hdr = case("street", 99, 96, 128).hdr
    assert pq_psnr(decode_exr(encode_exr(hdr, half=True)).hdr, hdr) >= 90


def test_dwaa_is_close():
    hdr = case("street", 9, 96, 128).hdr
    assert pq_psnr(decode_exr(encode_exr(hdr, half=True, compression="dwaa")).hdr, hdr) >= 45


@pytest.mark.parametrize("half", [False, True])
def test_dwa_stores_no_infinite_values(half):
    rng = np.random.default_rng(0)
    hdr = np.where(rng.random((33, 31, 3)) < 0.3, 1e6, np.exp2(rng.uniform(-8, 17, (33, 31, 3))))
    back = decode_exr(encode_exr(hdr, half=half, compression="dwaa")).hdr
    assert np.isfinite(back).all() and back.max() > 50000


@pytest.mark.parametrize("primaries", PRIMARIES)
def test_colour_space_travels(primaries):
    data = encode_exr(random_hdr(), primaries=primaries, white_nits=100)
    picture = decode_exr(data)
    assert (picture.primaries, picture.white_nits) == (primaries, 100)
    with OpenEXR.File(io.BytesIO(data), header_only=True) as file:
        header = dict(file.header())
        expected = OpenEXR.colorInteropIDToChromaticities(header["colorInteropID"])
        np.testing.assert_allclose(header["chromaticities"], expected, atol=1e-6)
        assert OpenEXR.checkColorMetadata(header) == 0


def test_attributes_travel():
    attributes = {
        "prompt": '{"1": "über 漢字"}',
        "gm.qmax": np.float32(99),
        "gm.steps": np.int64(30),
        "empty": "",
    }
    metadata = decode_exr(encode_exr(random_hdr(), attributes=attributes)).metadata
    assert {name: metadata[name] for name in attributes} == attributes


def test_layers_and_alpha_travel():
    scene = case("night", 9, 48, 53)
    alpha = np.linspace(0.01, 1, 48 * 53, dtype=np.float32).reshape(48, 53)
    layers = {"sdr": scene.sdr, "gainmap": scene.gain_map}
    data = encode_exr(scene.hdr, layers=layers, alpha=alpha)
    picture = decode_exr(data)
    np.testing.assert_allclose(picture.hdr, scene.hdr, rtol=1e-6)
    np.testing.assert_array_equal(picture.alpha, alpha)
    np.testing.assert_array_equal(picture.gain_map, scene.gain_map.astype(np.float32))
    np.testing.assert_array_equal(np.round(picture.sdr * 255), np.round(scene.sdr * 255))
    expected = {"R", "G", "B", "A", *(f"{layer}.{c}" for layer in layers for c in "RGB")}
    assert set(picture.metadata["channels"]) == expected
    one = decode_exr(encode_exr(scene.hdr, layers={"gainmap": scene.gain_map[..., :1]}))
    assert one.gain_map.shape == (48, 53, 1)


def test_pyav_reads_the_main_picture():
    av = pytest.importorskip("av")
    scene = case("night", 9, 48, 64)
    data = encode_exr(scene.hdr, layers={"gainmap": scene.gain_map})
    with av.open(io.BytesIO(data), format="exr_pipe") as container:
        frame = next(container.decode(video=0))
    np.testing.assert_array_equal(frame.to_ndarray(format="gbrpf32le"), scene.hdr.astype(np.float32))


@pytest.mark.parametrize("width", [31, 33, 53, 65])
def test_odd_widths_keep_values_above_one(width):
    hdr = random_hdr(5, width)
    np.testing.assert_array_equal(decode_exr(encode_exr(hdr)).hdr, hdr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hdr": np.full((2, 2, 3), np.inf)}, "NaN or infinite"),
        ({"hdr": np.zeros((2, 2))}, "shape"),
        ({"primaries": "srgb"}, "primaries"),
        ({"compression": "htj2k"}, "compression"),
        ({"white_nits": 0}, "white_nits"),
        ({"alpha": np.zeros((3, 2))}, "alpha has shape"),
        ({"alpha": np.full((2, 2), 1.5)}, "alpha has values outside 0 to 1"),
        ({"alpha": np.full((2, 2), np.nan)}, "alpha has values outside 0 to 1"),
        ({"layers": {"a.b": np.zeros((2, 2, 3))}}, "layer name"),
        ({"layers": {"sdr": np.zeros((2, 1, 3))}}, "layer 'sdr' has shape"),
        ({"attributes": {"channels": "x"}}, "attribute"),
        ({"attributes": {"x": [1]}}, "attribute"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ImageWriteError, match=message):
        encode_exr(**({"hdr": np.zeros((2, 2, 3))} | arguments))


def write(channels, header=None) -> bytes:
    buffer = io.BytesIO()
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage} | (header or {})
    OpenEXR.File(header, channels).write(buffer)
    return buffer.getvalue()


def test_colours_are_stored_multiplied_by_alpha():
    """OpenEXR's technical introduction: colours are premultiplied; alpha 0 may shine all the same."""
    hdr, alpha = np.full((1, 3, 3), 4.0, np.float32), np.array([[1.0, 0.5, 0.0]], np.float32)
    with OpenEXR.File(io.BytesIO(encode_exr(hdr, alpha=alpha))) as file:
        np.testing.assert_array_equal(file.channels()["RGBA"].pixels[0, :, 0], (4, 2, 0))


def test_colours_are_divided_by_alpha_where_there_is_any():
    stored = np.array([[[2, 2, 2, 0.5], [3, 3, 3, 0], [3, 3, 3, 1.5], [3, 3, 3, np.nan]]], np.float32)
    picture = decode_exr(write({"RGBA": stored}))
    np.testing.assert_array_equal(picture.hdr[0, :, 0], (4, 3, 3, 3))
    np.testing.assert_array_equal(picture.alpha, [[0.5, 0, 1, 0]])


def test_reads_mixed_and_integer_channels():
    hdr = np.round(random_hdr())
    planes = {
        "R": hdr[..., 0].astype(np.uint32),
        "G": hdr[..., 1].astype(np.float16),
        "B": hdr[..., 2].copy(),
    }
    np.testing.assert_array_equal(decode_exr(write(planes)).hdr, np.abs(hdr))


def test_reads_tiles_and_grey():
    hdr = random_hdr()
    tiled = write({"RGB": hdr}, {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()})
    np.testing.assert_array_equal(decode_exr(tiled).hdr, hdr)
    grey = decode_exr(write({"Y": hdr[..., 0].copy()})).hdr
    np.testing.assert_array_equal(grey, np.repeat(hdr[..., :1], 3, -1))


def test_data_window_is_placed_in_the_display_window():
    hdr = random_hdr(20, 30)
    windows = {
        "dataWindow": (np.array([-5, 7], "i4"), np.array([24, 26], "i4")),
        "displayWindow": (np.array([0, 0], "i4"), np.array([39, 29], "i4")),
    }
    read = decode_exr(write({"RGB": hdr}, windows)).hdr
    assert read.shape == (30, 40, 3)
    np.testing.assert_array_equal(read[7:27, :25], hdr[:, 5:])
    assert not read[:7].any() and not read[:, 25:].any() and not read[27:].any()


def test_reads_the_colour_part_of_many():
    hdr = random_hdr()
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    parts = [
        OpenEXR.Part(header | {"name": "depth"}, {"Z": hdr[..., 0].copy()}),
        OpenEXR.Part(header | {"name": "beauty"}, {"RGB": hdr}),
        OpenEXR.Part(header | {"name": "gainmap"}, {"RGB": hdr / 200}),
    ]
    buffer = io.BytesIO()
    OpenEXR.File(parts).write(buffer)
    picture = decode_exr(buffer.getvalue())
    np.testing.assert_array_equal(picture.hdr, hdr)
    np.testing.assert_array_equal(picture.gain_map, hdr / 200)


def test_reads_one_named_layer():
    hdr = random_hdr()
    layer = {f"beauty.{name}": hdr[..., index].copy() for index, name in enumerate("RGB")}
    np.testing.assert_array_equal(decode_exr(write(layer)).hdr, hdr)


def test_of_many_layers_the_combined_one_is_the_picture():
    """As Blender names them when it writes all its passes."""
    hdr, layers = random_hdr(), {}
    for name, light in (("AO", hdr * 0), ("Combined", hdr), ("DiffCol", hdr / 2)):
        layers |= {
            f"ViewLayer.{name}.{letter}": light[..., index].copy() for index, letter in enumerate("RGB")
        }
    np.testing.assert_array_equal(decode_exr(write(layers)).hdr, hdr)


def test_reads_luminance_chroma():
    y, x = np.mgrid[0:20, 0:30] / 30
    hdr = np.stack([1 + x, 2 - y, 0.5 + x * y], -1)
    luma = hdr @ (0.2126, 0.7152, 0.0722)
    chroma = {"RY": (hdr[..., 0] - luma) / luma, "BY": (hdr[..., 2] - luma) / luma}
    planes = {name: values[::2, ::2].astype(np.float16) for name, values in chroma.items()}
    read = decode_exr(raw_exr({"Y": luma.astype(np.float16), **planes}, 30, 20)).hdr
    assert np.abs(read - hdr)[:18, :28].max() < 0.01
    assert np.abs(read - hdr).max() < 0.1


def test_unknown_primaries_are_converted():
    ap0 = (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767)
    white = decode_exr(write({"RGB": np.ones((2, 2, 3), np.float32)}, {"chromaticities": ap0}))
    assert white.primaries == "bt2020"
    np.testing.assert_allclose(white.hdr, 1, atol=1e-5)


@pytest.mark.parametrize("huge", [3e38, math.inf, math.nan])
def test_primaries_without_measure_are_ignored(huge):
    hdr = random_hdr()
    picture = decode_exr(write({"RGB": hdr}, {"chromaticities": (huge, 0.33, -huge, 0.6, *XYZ[4:])}))
    assert picture.primaries == "bt709"
    np.testing.assert_array_equal(picture.hdr, hdr)


XYZ = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1 / 3, 1 / 3)
D65 = np.array([0.95046, 1.0, 1.08906], np.float32)


def test_primaries_of_xyz_are_converted():
    white = decode_exr(write({"RGB": np.ones((2, 2, 3), np.float32)}, {"chromaticities": XYZ}))
    assert white.primaries == "bt2020"
    np.testing.assert_allclose(white.hdr, 1, atol=1e-5)


def test_channels_of_xyz_are_converted():
    planes = {name: np.full((2, 2), value, np.float32) for name, value in zip("XYZ", D65, strict=True)}
    white = decode_exr(write(planes))
    assert white.primaries == "bt2020"
    np.testing.assert_allclose(white.hdr, 1, atol=1e-5)


def test_normals_are_no_picture():
    with pytest.raises(ImageReadError, match=r"the file has: N\.X, N\.Y, N\.Z"):
        decode_exr(write({f"N.{name}": np.ones((2, 2), np.float32) for name in "XYZ"}))


def test_conversion_spreads_no_infinite_values():
    hdr = np.ones((2, 2, 3), np.float32)
    hdr[0, 0], hdr[0, 1, 0] = (np.inf, np.inf, 3), np.nan
    read = decode_exr(write({"RGB": hdr}, {"chromaticities": XYZ})).hdr
    np.testing.assert_allclose(read[0, 0], 3, rtol=1e-4)
    assert np.isnan(read[0, 1]).all()
    np.testing.assert_allclose(read[1], 1, rtol=1e-4)


@pytest.mark.parametrize("prefix", ["", "beauty."])
def test_luminance_chroma_with_empty_chromaticities_is_that_of_bt709(prefix):
    grey = np.full((4, 4), 2.0, np.float16)
    planes = {f"{prefix}Y": grey, f"{prefix}RY": grey[:2, :2] * 0, f"{prefix}BY": grey[:2, :2] * 0}
    extra = attribute("chromaticities", "chromaticities", bytes(32))
    picture = decode_exr(raw_exr(planes, 4, 4, extra=extra))
    assert picture.primaries == "bt709" and picture.hdr.dtype == np.float32
    np.testing.assert_allclose(picture.hdr, 2, rtol=1e-3)


def test_interop_id_alone_tells_the_primaries():
    assert decode_exr(write({"RGB": random_hdr()}, {"colorInteropID": "lin_ap1_scene"})).primaries == "acescg"


def test_interop_id_of_xyz_is_converted():
    white = np.broadcast_to(D65, (2, 2, 3)).copy()
    picture = decode_exr(write({"RGB": white}, {"colorInteropID": "lin_ciexyzd65_scene"}))
    assert picture.primaries == "bt2020"
    np.testing.assert_allclose(picture.hdr, 1, atol=1e-5)


@pytest.mark.parametrize("identity", ["srgb_rec709_scene", "g22_rec709_scene", "pq_rec2020_display"])
def test_values_that_are_no_light_are_named(identity):
    with pytest.raises(ImageReadError, match=f"{identity}.*convert it to"):
        decode_exr(write({"RGB": random_hdr()}, {"colorInteropID": identity}))


def test_a_library_too_old_for_memory_is_named(monkeypatch):
    written = encode_exr(random_hdr())
    monkeypatch.setattr(OpenEXR, "__version__", "3.4.17")
    for error, use in ((ImageReadError, decode_exr), (ImageWriteError, encode_exr)):
        with pytest.raises(error, match="3.5 or newer, not 3.4.17: pip install --upgrade OpenEXR"):
            use(written if use is decode_exr else random_hdr())


def test_a_missing_channel_is_named():
    with pytest.raises(ImageReadError, match="the file has: B, G"):
        decode_exr(write({"G": np.zeros((2, 2), "f4"), "B": np.zeros((2, 2), "f4")}))


def bomb(width: int, height: int) -> bytes:
    """A small file whose header states this size."""
    data = raw_exr({name: np.zeros((1, 1), np.float32) for name in "RGB"}, 1, 1)
    window = struct.pack("<4i", 0, 0, 0, 0)
    return data.replace(window, struct.pack("<4i", 0, 0, width - 1, height - 1))


@pytest.mark.parametrize(
    "size", [(60001, 60001), (10**6, 10**6), (16000, 8000), (30000, 4000), (2**31 - 1, 1)]
)
def test_dimension_bombs_are_refused(size):
    with pytest.raises(ImageReadError, match="header|OpenEXR"):
        decode_exr(bomb(*size))


def test_tiles_larger_than_memory_are_refused():
    tiles = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()}
    data = write({"RGB": random_hdr()}, tiles)
    at = data.index(b"tiledesc\0") + 13
    with pytest.raises(ImageReadError, match="tiles of 64 x 16711744 pixels"):
        decode_exr(data[:at] + struct.pack("<II", 64, 16711744) + data[at + 8 :])


@pytest.mark.parametrize("part", [0.0, 0.01, 0.1, 0.5, 0.99])
def test_truncated_files_are_refused(part):
    data = encode_exr(random_hdr())
    with pytest.raises(ImageReadError):
        decode_exr(b"v/1\x01" + data[4 : int(part * len(data))])


def test_read_image_goes_by_content(tmp_path):
    path = tmp_path / "picture.jpg"
    hdr = random_hdr()
    path.write_bytes(encode_exr(hdr))
    np.testing.assert_array_equal(read_image(path).hdr, hdr)


def test_conversion_before_saving_is_explicit():
    import torch

    hdr = random_hdr()
    wide = convert_primaries(torch.from_numpy(hdr.transpose(2, 0, 1)[None]), "bt709", "acescg")
    data = encode_exr(wide[0].numpy().transpose(1, 2, 0), primaries="acescg")
    back = convert_primaries(
        torch.from_numpy(decode_exr(data).hdr.transpose(2, 0, 1)[None]), "acescg", "bt709"
    )
    np.testing.assert_allclose(back[0].numpy().transpose(1, 2, 0), hdr, atol=1e-3, rtol=1e-4)


def test_unknown_attributes_do_not_stop_the_reader():
    extra = attribute("vendor", "vendorType", b"\1\2\3")
    planes = {name: np.ones((2, 3), np.float32) for name in "RGB"}
    assert decode_exr(raw_exr(planes, 3, 2, extra=extra)).hdr.shape == (2, 3, 3)
