"""Figures F1 to F13: accuracy of Ultra HDR, read by us, by libultrahdr and by Chromium."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.figures import Figure, at_least, at_most, exact
from gm_core.codecs.icc import srgb_table
from gm_core.codecs.ultrahdr import PRESETS, decode_ultrahdr, encode_ultrahdr, gain_map_fit
from gm_core.codecs.ultrahdr import jpeg_segments as jpeg
from gm_core.codecs.ultrahdr.gain_map_metadata import GainMapMetadata
from gm_core.codecs.ultrahdr.hdrgm_xmp import Xmp, gain_map_xmp, primary_xmp
from gm_core.codecs.ultrahdr.iso21496 import read_iso
from tests.codecs import other_writers as others
from tests.codecs.chromium import Chromium
from tests.codecs.readers import exiftool, libultrahdr
from tests.codecs.scenes import PHOTOS, SYNTHETIC, Case, case, cases, pq_psnr, relative_p99

ALL = (*PHOTOS, *SYNTHETIC)
# What libultrahdr 1.4 clips its linear output to: 10000 nits over 203.
LIBRARY_PEAK = 10000 / 203


def figures(folder: Path) -> Iterator[Figure]:
    yield from _accuracy(folder)
    yield from _formula()
    yield from _clients(folder)
    yield from _structure(folder)
    yield from _other_writers()
    yield from _round_trip()


def encode(scene: Case, preset: str = "default") -> bytes:
    quality, gain_map_quality = PRESETS[preset]
    return encode_ultrahdr(sdr=scene.sdr, hdr=scene.hdr, quality=quality, gain_map_quality=gain_map_quality)


def _accuracy(folder: Path) -> Iterator[Figure]:
    limits = {9: (50.0, 55.0, 43.5, 0.07), 99: (46.5, 52.0, 40.0, 0.11)}
    for qmax, (default, high, small, relative) in limits.items():
        quality, agreement, errors = [], [], []
        for scene in cases(ALL, qmax):
            data = encode(scene)
            theirs, ours = libultrahdr(data, folder), decode_ultrahdr(data).hdr
            target = np.minimum(scene.hdr, LIBRARY_PEAK)
            quality.append(pq_psnr(theirs, target))
            errors.append(relative_p99(theirs, target))
            agreement.append(pq_psnr(np.clip(ours, 0, LIBRARY_PEAK), theirs))
        count = f"{len(ALL)} scenes"
        yield at_least(f"F1 default in libultrahdr, q={qmax}, worst of {count}", min(quality), default)
        yield at_most(f"F4 default, 99th percentile relative error, q={qmax}", max(errors), relative)
        yield at_least(f"F7 our decoder against libultrahdr, q={qmax}", min(agreement), 58)
        for number, preset, limit in ((2, "high", high), (3, "small", small)):
            worst = min(
                pq_psnr(decode_ultrahdr(encode(scene, preset)).hdr, scene.hdr)
                for scene in cases(PHOTOS, qmax)
            )
            yield at_least(f"F{number} {preset}, q={qmax}, worst of {len(PHOTOS)} scenes", worst, limit)


def _formula() -> Iterator[Figure]:
    """Eight-bit map without JPEG."""
    worst, excess = np.inf, -np.inf
    for qmax in (9, 99):
        for scene in cases(ALL, qmax):
            base = np.round(scene.sdr * 255).astype(np.uint8)
            gains, peak = gain_map_fit.log_gains(base, scene.hdr.astype(np.float32), "bt709", "bt709")
            metadata = gain_map_fit.fit(gains, peak, 1.0)
            codes = gain_map_fit.quantise_gains(gains, metadata)
            decoded = metadata.gain(codes.astype(np.float32) / 255, channel=0)
            hdr = (srgb_table()[base] + 1 / 64) * decoded - 1 / 64
            worst = min(worst, pq_psnr(hdr, scene.hdr))
            bound = (metadata.maximum[0] - metadata.minimum[0]) / 510
            excess = max(excess, float(np.abs(np.log2(decoded) - gains).max()) - bound)
    yield at_least("F5 formula alone, 8-bit map", worst, 58)
    yield at_most("F5 error in stops beyond range/510", excess, 1e-4)
    sdr = case("grey", 9).sdr
    data = encode_ultrahdr(sdr=sdr, hdr=sdr**2.2, gain_map_quality=95)
    yield at_least("F6 gain of zero, grey ramp 95/95", pq_psnr(decode_ultrahdr(data).hdr, sdr**2.2), 70)


def _clients(folder: Path) -> Iterator[Figure]:
    agreement, quality, peaks, screen = [], [], [], 0
    with Chromium() as browser:
        for scene in cases(PHOTOS, 9):
            data = encode(scene)
            shown = browser.pixels(data, stops=5)
            agreement.append(pq_psnr(shown, libultrahdr(data, folder)))
            quality.append(pq_psnr(shown, scene.hdr))
            if scene.hdr.max() >= 10:
                peaks += [browser.pixels(data, stops=h).max() / 2**h for h in (0, 1, 2)]
            height, width = scene.sdr.shape[:2]
            base = np.asarray(Image.open(io.BytesIO(data))).astype(int)
            screen = max(screen, int(np.abs(browser.screenshot(data, width, height) - base).max()))
    yield at_least("F8 Chromium against libultrahdr, worst of 7 photos", min(agreement), 52)
    yield at_least("F8 Chromium against Eq. (1), q=9", min(quality), 46)
    yield at_most(
        "F9 Chromium peak at headroom 1, 2, 4: worst error", float(np.abs(np.array(peaks) - 1).max()), 0.02
    )
    yield at_most("F10 screenshot on an SDR screen against the base, codes", screen, 1)


def _structure(folder: Path) -> Iterator[Figure]:
    data = encode(case("street", 9))
    path = folder / "structure.jpg"
    path.write_bytes(data)
    primary = jpeg.parse_jpeg(data)
    second = jpeg.parse_jpeg(data, primary.end)
    iso = read_iso(second.payloads(jpeg.APP2, jpeg.ISO_GAIN_MAP)[0])
    xmp = Xmp(second.payloads(jpeg.APP1, jpeg.XMP)[0]).hdrgm()
    names = ("minimum", "maximum", "gamma", "offset_sdr", "offset_hdr", "capacity_min", "capacity_max")
    apart = max(float(np.abs(np.subtract(getattr(iso, n), getattr(xmp, n))).max()) for n in names)
    yield at_most("F11 XMP against ISO 21496-1, largest difference", apart, 1e-6)
    yield exact("F11 offsets are 1/64", set(iso.offset_sdr + iso.offset_hdr), {1 / 64})
    tags = exiftool(path)
    end = tags["MPImage2:MPImageStart"] + tags["MPImage2:MPImageLength"]
    yield exact("F11 exiftool: second picture ends the file", end - len(data), 0)
    difference = tags["XMP-Container:DirectoryItemLength"] - tags["MPImage2:MPImageLength"]
    yield exact("F11 exiftool: directory length is the index's", difference, 0)


def _other_writers() -> Iterator[Figure]:
    uniform, per_channel = others.UNIFORM, others.PER_CHANNEL
    adobe = others.picture(others.CODES, [others.xmp(others.adobe_xmp(per_channel))])
    google = others.picture(others.CODES, [others.xmp(gain_map_xmp(uniform))])
    directory = others.picture(others.BASE, [others.xmp(primary_xmp(len(google)))]) + google
    layouts = {
        "Adobe lists": (others.with_index(adobe), per_channel),
        "Google directory": (directory, uniform),
        "ISO per channel": (
            others.with_index(others.picture(others.CODES, [others.iso(per_channel)])),
            per_channel,
        ),
        "index wrong by 70": (others.with_index(google, error=70), uniform),
    }
    worst, wrong = 0.0, 0
    for data, metadata in layouts.values():
        read = decode_ultrahdr(data)
        worst = max(worst, abs(read.hdr.max() / others.decoded(metadata).max() - 1))
        wrong += not _same_parameters(read.metadata["gain_map"], metadata)
    yield at_most(f"F12 layouts of other writers ({len(layouts)}), error of the peak", worst, 0.02)
    yield exact("F12 layouts with wrong parameters", wrong, 0)


def _same_parameters(one: GainMapMetadata, other: GainMapMetadata) -> bool:
    names = ("minimum", "maximum", "gamma", "offset_sdr", "offset_hdr", "capacity_min", "capacity_max")
    return all(np.allclose(getattr(one, name), getattr(other, name), atol=1e-5) for name in names)


def _round_trip() -> Iterator[Figure]:
    """Over scenes in which 1 % of the pixels and more are lit and below the clamp of Eq. (1)."""
    means, tails = [], []
    for qmax in (9, 99):
        for scene in cases(ALL, qmax):
            hdr = decode_ultrahdr(encode(scene)).hdr
            gain_map = np.clip(((hdr + 1 / 64) / (scene.sdr**2.2 + 1 / 64) - 1) / qmax, 0, 1)
            error = np.abs(gain_map - scene.gain_map)[(scene.sdr > 0.05) & (scene.hdr < qmax + 1)]
            if error.size >= 0.01 * scene.sdr.size:
                means.append(float(error.mean()))
                tails.append(float(np.percentile(error, 99)))
    yield at_most("F13 Eq. (1) gain map recovered, worst mean error", max(means), 0.006)
    yield at_most("F13 Eq. (1) gain map recovered, worst 99th percentile", max(tails), 0.04)
