"""Figures F14 to F20: OpenEXR, Radiance, PNG, AVIF, JPEG XL and video."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import OpenEXR

from benchmarks.figures import Figure, at_least, at_most, exact
from gm_core.codecs.avif import decode_avif, encode_avif
from gm_core.codecs.exr import COMPRESSIONS, decode_exr, encode_exr
from gm_core.codecs.jxl import decode_jxl, encode_jxl
from gm_core.codecs.png import decode_png, encode_png_pq
from gm_core.codecs.radiance import decode_radiance, encode_radiance
from gm_core.codecs.signal import LightLevel, pq_codes
from gm_core.codecs.video import decode_frames, encode_hdr10
from tests.codecs.chromium import Chromium
from tests.codecs.readers import exiftool, ffprobe
from tests.codecs.scenes import PHOTOS, case, cases, pq, pq_psnr, psnr

LUMA = np.array((0.2627, 0.6780, 0.0593))


def figures(folder: Path) -> Iterator[Figure]:
    yield from _exr()
    yield from _exr_readers(folder)
    yield from _radiance()
    with Chromium() as browser:
        yield from _png(browser)
        yield from _avif(browser, folder)
    yield from _jxl()
    yield from _video(folder)


def _exr() -> Iterator[Figure]:
    scenes = [scene.hdr.astype(np.float32) for scene in cases(PHOTOS, 99)]
    lossless = [name for name in COMPRESSIONS if not name.startswith("dwa")]
    worst = max(
        float(np.abs(decode_exr(encode_exr(scenes[0], compression=name)).hdr - scenes[0]).max())
        for name in lossless
    )
    yield exact(f"F14 OpenEXR float, {len(lossless)} lossless codecs, error", worst, 0.0)
    relative, quality = [], []
    for hdr in scenes:
        back = decode_exr(encode_exr(hdr, half=True)).hdr
        relative.append(float((np.abs(back - hdr) / np.maximum(hdr, 2**-14)).max()))
        quality.append(pq_psnr(back, hdr))
    yield at_most("F14 OpenEXR half, relative error", max(relative), 4.9e-4)
    yield at_least("F14 OpenEXR half", min(quality), 90)


def _exr_readers(folder: Path) -> Iterator[Figure]:
    scene = case("night", 9, 96, 128)
    hdr = scene.hdr.astype(np.float32)
    layers = {"sdr": scene.sdr, "gainmap": scene.gain_map}
    data = encode_exr(hdr, primaries="bt2020", attributes={"prompt": "{}", "gm.qmax": 9.0}, layers=layers)
    with OpenEXR.File(io.BytesIO(data), header_only=True) as file:
        header = dict(file.header())
    yield exact("F15 OpenEXR reads our attributes", (header["prompt"], header["gm.qmax"]), ("{}", 9.0))
    with av.open(io.BytesIO(data), format="exr_pipe") as container:
        main = next(container.decode(video=0)).to_ndarray(format="gbrpf32le")
    yield at_most("F15 PyAV reads the main picture, error", float(np.abs(main - hdr).max()), 0)
    yield from _openimageio(folder, data, hdr)
    yield at_most("F15 a file saved as the core saves it, error", _core_saved_error(hdr), 0)


def _openimageio(folder: Path, data: bytes, hdr: np.ndarray) -> Iterator[Figure]:
    try:
        import OpenImageIO
    except ImportError:
        yield Figure("F15 OpenImageIO reads layers and colour space", "not installed", "installed", False)
        return
    path = folder / "layers.exr"
    path.write_bytes(data)
    image = OpenImageIO.ImageInput.open(str(path))
    assert image is not None
    spec, pixels = image.spec(), image.read_image("float")
    image.close()
    assert pixels is not None
    found = [pixels[..., spec.channelnames.index(name)] for name in "RGB"]
    yield exact("F15 OpenImageIO lists the channels", len(spec.channelnames), 9)
    yield exact("F15 OpenImageIO names the colour space", spec["oiio:ColorSpace"], "lin_rec2020_scene")
    yield at_most("F15 OpenImageIO, error", float(np.abs(np.stack(found, -1) - hdr).max()), 0)


def _core_saved_error(hdr: np.ndarray) -> float:
    """The core's saver hands gbrpf32le frames to FFmpeg's exr encoder."""
    frame = av.VideoFrame.from_ndarray(hdr[:, :53].copy(), format="gbrpf32le")
    encoder = av.CodecContext.create("exr", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "gbrpf32le"
    encoder.time_base = Fraction(1, 25)
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    read = decode_exr(b"".join(bytes(packet) for packet in packets)).hdr
    return float(np.abs(read - hdr[:, :53]).max())


def _radiance() -> Iterator[Figure]:
    errors, quality = [], []
    for scene in cases(PHOTOS, 99):
        back = decode_radiance(encode_radiance(scene.hdr)).hdr
        errors.append(float((np.abs(back - scene.hdr) / scene.hdr.max(-1, keepdims=True)).max()))
        quality.append(pq_psnr(back, scene.hdr))
    yield at_most("F16 Radiance, error over the pixel's largest channel", max(errors), 1 / 255)
    yield at_least("F16 Radiance", min(quality), 48)


def _png(browser: Chromium) -> Iterator[Figure]:
    import imagecodecs

    worst, shown = 0, []
    for scene in cases(PHOTOS, 9):
        data = encode_png_pq(scene.hdr)
        codes = pq_codes(scene.hdr.astype(np.float32), primaries="bt709", white_nits=203).astype(np.float64)
        expected = (codes * 65535 + 0.5).astype(int)
        worst = max(worst, int(np.abs(imagecodecs.png_decode(data).astype(int) - expected).max()))
        shown.append(pq_psnr(browser.pixels(data, stops=6, kind="png"), scene.hdr))
        assert decode_png(data).primaries == "bt2020"
    yield exact("F17 PNG-16 PQ, code error in libpng", worst, 0)
    yield at_least("F17 PNG-16 PQ in Chromium", min(shown), 60)


def _avif(browser: Chromium, folder: Path) -> Iterator[Figure]:
    hdr = case("blobs", 9).hdr.astype(np.float32)
    codes = pq_codes(hdr, primaries="bt709", white_nits=203)
    exact_file, lossy = encode_avif(hdr, quality=100), encode_avif(hdr, quality=90)
    back = [decode_avif(data) for data in (exact_file, lossy)]
    signals = [pq_codes(picture.hdr, primaries=picture.primaries, white_nits=203) for picture in back]
    error = np.abs(np.rint(signals[0] * 1023) - np.floor(codes * np.float32(1023) + np.float32(0.5))).max()
    yield exact("F18 AVIF 10-bit lossless, code error", int(error), 0)
    yield at_least("F18 AVIF 10-bit level 90", psnr(signals[1], codes), 54)
    path = folder / "a.avif"
    path.write_bytes(lossy)
    tags = exiftool(path)
    found = tuple(
        tags[f"QuickTime:{n}"] for n in ("ColorPrimaries", "TransferCharacteristics", "MatrixCoefficients")
    )
    yield exact("F18 AVIF tags in exiftool", found, (9, 16, 9))
    shown = min(
        pq_psnr(browser.pixels(encode_avif(scene.hdr, quality=100), stops=6, kind="avif"), scene.hdr)
        for scene in cases(("studio", "sunset", "forest"), 9)
    )
    yield at_least("F19 AVIF lossless in Chromium", shown, 54)


def _jxl() -> Iterator[Figure]:
    hdr = case("street", 99).hdr.astype(np.float32)
    error = float(np.abs(decode_jxl(encode_jxl(hdr)).hdr - hdr).max() / hdr.max())
    yield at_most("JPEG XL float, error over the peak", error, 1e-6)


def _video(folder: Path) -> Iterator[Figure]:
    picture = case("blobs", 9, 270, 480).hdr.astype(np.float32)

    def frames() -> Iterator[np.ndarray]:
        for index in range(12):
            yield np.roll(picture, 4 * index, axis=1) * (1 + 0.05 * index)

    for codec, tag in (("hevc", "hvc1"), ("av1", "av01")):
        path = folder / f"{codec}.mp4"
        with path.open("w+b") as file:
            level = encode_hdr10(file, frames, codec=codec)
        luma = [
            psnr(pq(read.hdr) @ LUMA, pq_codes(frame, primaries="bt709", white_nits=203) @ LUMA)
            for read, frame in zip(decode_frames(path), frames(), strict=True)
        ]
        yield at_least(f"F20 {codec} crf 14, luma", min(luma), 55)
        yield exact(f"F20 {codec} tags in ffprobe", _wrong_tags(path, tag, level), [])


def _wrong_tags(path: Path, tag: str, level: LightLevel) -> list[str]:
    probe = ffprobe(path)
    stream, sides = probe["streams"][0], probe["frames"][0]["side_data_list"]
    expected = {
        **{"codec_tag_string": tag, "color_primaries": "bt2020", "color_transfer": "smpte2084"},
        **{"color_space": "bt2020nc", "color_range": "tv", "pix_fmt": "yuv420p10le"},
    }
    wrong = [name for name, value in expected.items() if stream.get(name) != value]
    light = {side["side_data_type"]: side for side in sides}
    content = light.get("Content light level metadata", {})
    if (content.get("max_content"), content.get("max_average")) != (
        round(level.max_cll),
        round(level.average),
    ):
        wrong.append("light level")
    if "Mastering display metadata" not in light:
        wrong.append("mastering display")
    return wrong
