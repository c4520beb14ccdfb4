"""Which pictures are converted, where their files go, and how odd ones are read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from gm_core.codecs.icc import build_icc
from gm_core.codecs.png import encode_png_pq
from scripts.photos import PhotoError, find_photos, plan, prepare, publish


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (4, 3)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


def prepared(photo: Path, folder: Path) -> np.ndarray:
    prepare(photo, folder / "prepared.png")
    with Image.open(folder / "prepared.png") as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def test_folders_are_searched_but_for_the_output(tmp_path: Path) -> None:
    wanted = [picture(tmp_path / "a.png"), picture(tmp_path / "sub" / "b.JPG")]
    picture(tmp_path / "hdr" / "old.jpg")
    picture(tmp_path / ".hidden.png")
    picture(tmp_path / ".thumbnails" / "c.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert find_photos(tmp_path, tmp_path / "hdr") == wanted


def test_what_cannot_be_read_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def deny(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    assert find_photos(tmp_path, tmp_path / "hdr") == [tmp_path / "dangling.png", tmp_path / "locked"]


def test_photos_of_phones_and_browsers_are_not_left_out(tmp_path: Path) -> None:
    """HEIC is listed to be named as unreadable."""
    wanted = [tmp_path / "phone.HEIC", tmp_path / "saved.jfif"]
    wanted[0].write_bytes(b"\0\0\0\x18ftypheic")
    Image.new("RGB", (4, 3)).save(wanted[1], format="JPEG")
    assert find_photos(tmp_path, tmp_path / "hdr") == wanted
    assert prepared(wanted[1], tmp_path).shape == (3, 4, 3)
    with pytest.raises(PhotoError, match="HEIC"):
        prepare(wanted[0], tmp_path / "prepared.png")


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    photo = picture(tmp_path / "a.png")
    assert find_photos(tmp_path, tmp_path / "hdr") == [photo]


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PhotoError, match="neither a file nor a folder"):
        prepare(tmp_path / "pipe.png", tmp_path / "prepared.png")


def test_shared_stems_keep_their_suffix(tmp_path: Path) -> None:
    photos = [tmp_path / name for name in ("a.jpg", "A.png", "b.jpg", "sub/a.png")]
    jobs = plan(photos, tmp_path, tmp_path / "out")
    targets = [str(job.target.relative_to(tmp_path / "out")) for job in jobs]
    assert targets == ["a_jpg", "A_png", "b", "sub/a"]


@pytest.mark.parametrize("names", [("a.jpg", "a.png", "a_jpg.webp"), ("a.jpg", "a.JPG", "A.png")])
def test_every_picture_has_files_of_its_own(tmp_path: Path, names: tuple[str, ...]) -> None:
    jobs = plan([tmp_path / name for name in names], tmp_path, tmp_path / "out")
    assert len({str(job.target).casefold() for job in jobs}) == 3


def test_the_folder_of_the_pictures_is_no_output(tmp_path: Path) -> None:
    photo = picture(tmp_path / "a.png")
    for source in (photo, tmp_path):
        with pytest.raises(PhotoError, match="where the pictures are"):
            plan([photo], source, tmp_path)


def test_pictures_are_never_overwritten(tmp_path: Path) -> None:
    """Neither one that is converted nor any other; earlier results are replaced."""
    photo = picture(tmp_path / "in" / "a.png")
    other = picture(tmp_path / "out" / "a.jpg")
    with pytest.raises(PhotoError, match=r"out/a\.jpg would be overwritten"):
        plan([photo], photo, tmp_path / "out")
    other.write_bytes(b'{"class_type": "GMHDRMerge"}')
    assert plan([photo], photo, tmp_path / "out")


def test_sixteen_bit_grey_keeps_its_tones(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert prepared(tmp_path / "deep.png", tmp_path)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 1), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert prepared(tmp_path / "clear.png", tmp_path)[0, 0].tolist() == [255, 255, 255]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert prepared(tmp_path / "turned.jpg", tmp_path).shape == (8, 4, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_by_pillow(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    ramp = Image.fromarray(np.arange(0, 240, 10, np.uint8).reshape(4, 6)).resize((24, 16)).convert("RGB")
    ramp.save(tmp_path / f"turned.{suffix}", exif=exif)
    with Image.open(tmp_path / f"turned.{suffix}") as opened:
        wanted = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(prepared(tmp_path / f"turned.{suffix}", tmp_path), wanted)


def test_odd_exif_does_not_matter(tmp_path: Path) -> None:
    """A tag for a number that holds text, as Pillow reads but cannot write."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a width"
    Image.new("RGB", (8, 4)).save(tmp_path / "plain.jpg", exif=exif)
    description, width = b"\x01\x0e\x00\x02", b"\x01\x00\x00\x02"
    content = (tmp_path / "plain.jpg").read_bytes()
    assert content.count(description) == 1
    (tmp_path / "odd.jpg").write_bytes(content.replace(description, width))
    assert prepared(tmp_path / "odd.jpg", tmp_path).shape == (8, 4, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    assert prepared(picture(tmp_path / "any.png", mode), tmp_path).shape == (3, 4, 3)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    assert prepared(picture(tmp_path / "print.jpg", "CMYK"), tmp_path).shape == (3, 4, 3)


def test_an_embedded_profile_is_converted(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (128, 64, 32)).save(tmp_path / "p3.png", icc_profile=build_icc("p3"))
    red, green, blue = prepared(tmp_path / "p3.png", tmp_path)[0, 0]
    assert red > 128 and green < 64 and blue < 32


def test_srgb_and_damaged_profiles_change_nothing(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for number, profile in enumerate((srgb, b"damaged", srgb[:200])):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (1, 1), (128, 64, 32)).save(path, icc_profile=profile)
        assert prepared(path, tmp_path)[0, 0].tolist() == [128, 64, 32]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 cut"])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(PhotoError, match="cannot be read as a picture"):
        prepare(tmp_path / "bad.jpg", tmp_path / "prepared.png")


def test_a_truncated_picture_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    with pytest.raises(PhotoError, match="truncated"):
        prepare(tmp_path / "cut.jpg", tmp_path / "prepared.png")


def test_a_damaged_avif_is_refused(tmp_path: Path) -> None:
    """Pillow raises RuntimeError for it."""
    Image.new("RGB", (16, 16), (200, 10, 10)).save(tmp_path / "whole.avif")
    head, _, pixels = (tmp_path / "whole.avif").read_bytes().partition(b"mdat")
    (tmp_path / "bad.avif").write_bytes(head + b"mdat" + b"\xff" * len(pixels))
    with pytest.raises(PhotoError, match="cannot be read as a picture"):
        prepare(tmp_path / "bad.avif", tmp_path / "prepared.png")


def test_32_bit_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 1 << 20, np.int32)).save(tmp_path / "deep.tif")
    with pytest.raises(PhotoError, match="32-bit"):
        prepare(tmp_path / "deep.tif", tmp_path / "prepared.png")


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="floating-point"):
        prepare(picture(tmp_path / "float.tif", "F"), tmp_path / "prepared.png")


def test_pictures_that_are_hdr_already_are_refused(tmp_path: Path) -> None:
    linear = np.linspace(0, 8, 48, dtype=np.float32).reshape(4, 4, 3)
    (tmp_path / "hdr.png").write_bytes(encode_png_pq(linear, primaries="bt2020", white_nits=203.0))
    Image.new("RGB", (16, 16)).save(tmp_path / "sdr.avif")
    sdr = (tmp_path / "sdr.avif").read_bytes()
    head, tag, numbers = sdr.partition(b"colrnclx")
    (tmp_path / "hdr.avif").write_bytes(head + tag + bytes((0, 9, 0, 18)) + numbers[4:])
    assert prepared(tmp_path / "sdr.avif", tmp_path).shape == (16, 16, 3)
    for name in ("hdr.png", "hdr.avif"):
        with pytest.raises(PhotoError, match="HDR picture already"):
            prepare(tmp_path / name, tmp_path / "prepared.png")


def test_publishing_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    target = tmp_path / "out" / "picture.exr"
    for _ in range(2):
        publish(tmp_path / "new", target)
    assert [path.name for path in target.parent.iterdir()] == ["picture.exr"]


def test_the_longest_names_are_published(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    target = tmp_path / ("x" * 251 + ".exr")
    publish(tmp_path / "new", target)
    assert target.exists()


def test_failed_publishing_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "picture.exr"
    target.write_text("old")
    with pytest.raises(OSError, match="missing"):
        publish(tmp_path / "missing", target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["picture.exr"]
