"""Bad manifests are counted and reported; they crash nothing and poison nothing."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gm_core.codecs.exr import encode_exr
from training.cli import main
from training.data.decode import decode_sdr, encode_gain_map
from training.data.rows import Reject, RejectCounter
from training.errors import DatasetError
from training.stage2.trainer import run as run_stage2
from training.validate import FAILED, run

Configure = Callable[..., Any]


def animated() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.fixture
def manifest(photos: Path, tmp_path: Path) -> Path:
    """Two good rows among one of every kind of bad one."""
    data = [(photos / f"photo_{n:03d}.png").read_bytes() for n in range(3)]
    fitting = [encode_gain_map(np.full(shape, 0.5, np.float32)) for shape in ((128, 96, 3), (96, 128, 3))]
    good = [
        {"key": "a", "image": data[0], "text": "one", "gainmap": fitting[0], "qmax": 99.0},
        {"key": "b", "image": data[1], "text": "two", "gainmap": fitting[1], "qmax": None},
    ]
    bad = [
        {"key": "c", "image": data[0][:400], "text": "cut", "gainmap": fitting[0]},
        {"key": "d", "image": animated(), "text": "moving", "gainmap": fitting[0]},
        {"key": "e", "image": data[0], "text": "  ", "gainmap": fitting[0]},
        {"key": "f", "image": data[0], "text": "sideways", "gainmap": fitting[1]},
        {"key": "g", "image": data[0], "text": "no map", "gainmap": None},
        {"key": "h", "image": data[0], "text": "map of noise", "gainmap": b"noise"},
        {"key": "i", "image": data[0], "text": "qmax", "gainmap": fitting[0], "qmax": 0.0},
        {"key": "a", "image": data[2], "text": "again", "gainmap": fitting[0]},
        {"key": "j", "image": None, "text": "no picture", "gainmap": fitting[0]},
    ]
    schema = pa.schema(
        [
            ("key", pa.string()),
            ("image", pa.binary()),
            ("text", pa.string()),
            ("gainmap", pa.binary()),
            ("qmax", pa.float64()),
        ]
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(good + bad, schema=schema), path)
    return path


def test_every_fault_is_counted_under_its_name(configure: Configure, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert run(configure("validate", output_dir=out, source=[manifest], expect="triples")) == FAILED
    report = json.loads((out / "report.json").read_text())
    assert (report["rows"], report["usable"], report["rejected"]) == (11, 2, 9)
    assert report["reasons"] == {
        "unreadable_image": 1,
        "animated_image": 1,
        "empty_caption": 1,
        "gainmap_size": 1,
        "missing_gainmap": 1,
        "unreadable_gainmap": 1,
        "bad_metadata": 1,
        "duplicate_key": 1,
        "missing_image": 1,
    }
    assert len((out / "rejects.jsonl").read_text().splitlines()) == 9


def test_missing_files_are_counted(configure: Configure, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"image": "gone.png", "text": "x"}]), tmp_path / "rows.parquet")
    assert run(configure("validate", output_dir=tmp_path / "r", source=[tmp_path / "rows.parquet"])) == FAILED
    assert json.loads((tmp_path / "r" / "report.json").read_text())["reasons"] == {"missing_file": 1}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_ground_truth_with_pixels_that_are_no_numbers_is_unreadable(
    configure: Configure, photos: Path, tmp_path: Path, value: float
) -> None:
    pytest.importorskip("OpenEXR")
    size = decode_sdr((photos / "photo_000.png").read_bytes()).size[::-1]
    hdr = np.ones((*size, 3), np.float32)
    hdr[5, 5, 1] = 12345.5
    bad = encode_exr(hdr, compression="none").replace(hdr[5, 5, 1].tobytes(), np.float32(value).tobytes())
    (tmp_path / "set").mkdir()
    for name, data in (("a", encode_exr(hdr)), ("b", bad)):
        shutil.copy(photos / "photo_000.png", tmp_path / "set" / f"{name}.png")
        (tmp_path / "set" / f"{name}.exr").write_bytes(data)
    run(configure("validate", output_dir=tmp_path / "r", source=[tmp_path / "set"], require_text=False))
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (report["usable"], report["reasons"]) == (1, {"unreadable_hdr": 1})


def test_equal_names_are_duplicates_within_a_source_only(
    configure: Configure, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "others")
    picture = (photos / "photo_000.png").read_bytes()
    (tmp_path / "rows").mkdir()
    for name in ("a", "b"):
        row = {"key": "same", "image": picture, "text": "x"}
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows" / f"{name}.parquet")
    run(
        configure(
            "validate", output_dir=tmp_path / "r", source=[photos, tmp_path / "others", tmp_path / "rows"]
        )
    )
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (report["rows"], report["reasons"]) == (14, {"duplicate_key": 1})


def test_a_good_set_passes(configure: Configure, triples: Path, tmp_path: Path) -> None:
    assert run(configure("validate", output_dir=tmp_path / "r", source=[triples], expect="triples")) == 0


def test_training_leaves_bad_rows_out(stage2: Callable[..., Any], manifest: Path, tmp_path: Path) -> None:
    run_stage2(stage2(train_metadata=[manifest], max_reject_fraction=1.0, dataset_cache_dir=tmp_path / "d"))
    last = json.loads((tmp_path / "stage2" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["rejected"] > 0 and last["loss"] == pytest.approx(last["loss"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_without_a_usable_row_stops_in_one_line(
    stage2: Callable[..., Any], tmp_path: Path, workers: int
) -> None:
    rows = pa.Table.from_pylist([{"image": b"x", "text": "t", "gainmap": b"y"}] * 3)
    pq.write_table(rows, tmp_path / "rows.parquet")
    with pytest.raises(DatasetError, match=r"\A3 rows in a row are unusable.*\Z"):
        run_stage2(stage2(train_metadata=[tmp_path / "rows.parquet"], dataloader_num_workers=workers))


def test_the_share_of_rejects_has_a_limit() -> None:
    counter = RejectCounter(0.1)
    counter.add(150, [Reject("k", "missing_file", "")] * 30)
    assert not counter.too_many
    counter.add(60, [])
    assert counter.too_many
    with pytest.raises(DatasetError, match="missing_file 30"):
        counter.check()


def test_under_a_launcher_one_process_validates(
    triples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["validate", "--source", str(triples), "--output_dir", str(tmp_path / "report")]
    monkeypatch.setenv("RANK", "1")
    assert main(run) == 0 and not (tmp_path / "report").exists()
    monkeypatch.setenv("RANK", "0")
    assert main(run) == 0 and (tmp_path / "report" / "report.json").is_file()
