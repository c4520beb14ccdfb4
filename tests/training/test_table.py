"""Tables for training: every row of every file, with its own pictures."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.rows import Reject, Row
from training.data.sources import list_units, read_all
from training.data.table import open_table
from training.errors import DatasetError
from training.stage2.trainer import training_sizes

SCHEMA = pa.schema([("image", pa.string()), ("text", pa.string())])


def write(path: Path, names: list[str]) -> None:
    """Rows whose caption is the name of their picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"image": name, "text": name} for name in names]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def opened(tmp_path: Path, *sources: Path) -> list[Row | Reject]:
    names = [str(source) for source in sources]
    table = open_table(names, cache_dir=str(tmp_path / "cache"), image_root=None, limit=None)
    return [table[index] for index in range(len(table))]


def pictures(rows: Iterable[Row | Reject]) -> list[object]:
    return [row.image for row in rows if isinstance(row, Row)]


def test_hidden_files_and_folders_hold_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "set" / "a.parquet", ["1.png"])
    write(tmp_path / "set" / ".trash" / "b.parquet", ["2.png"])
    (tmp_path / "set" / "._a.parquet").write_bytes(b"what macOS writes beside a file")
    units = list_units([str(tmp_path / "set")], rows_per_unit=10, image_root=None, captions="first")
    for rows in (opened(tmp_path, tmp_path / "set"), read_all(units)):
        assert pictures(rows) == [tmp_path / "set" / "1.png"]


def test_files_without_rows_are_passed_over(tmp_path: Path) -> None:
    for name, rows in (("a", []), ("b", ["1.png", "2.png"]), ("c", []), ("d", ["3.png"])):
        write(tmp_path / "set" / f"{name}.parquet", rows)
    names = ("1.png", "2.png", "3.png")
    assert pictures(opened(tmp_path, tmp_path / "set")) == [tmp_path / "set" / name for name in names]
    with pytest.raises(DatasetError, match=r"a\.parquet holds no rows"):
        opened(tmp_path, tmp_path / "set" / "a.parquet")


def test_why_files_cannot_be_read_is_said(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", ["1.png"])
    write(tmp_path / "b.parquet", ["1.png"])
    damaged = bytearray((tmp_path / "b.parquet").read_bytes())
    damaged[4:40] = b"?" * 36
    (tmp_path / "b.parquet").write_bytes(damaged)
    with pytest.raises(DatasetError, match=r"b\.parquet: (?!An error occurred)"):
        opened(tmp_path, tmp_path / "a.parquet", tmp_path / "b.parquet")


def test_paths_start_from_their_own_source_as_validate_has_it(tmp_path: Path) -> None:
    write(tmp_path / "one" / "rows.parquet", ["1.png", "2.png"])
    write(tmp_path / "two" / "rows.parquet", ["1.png"])
    write(tmp_path / "three" / "part" / "rows.parquet", ["part/1.png", "part/2.png"])
    sources = [tmp_path / "one" / "rows.parquet", tmp_path / "two" / "rows.parquet", tmp_path / "three"]
    found = pictures(opened(tmp_path, *sources))
    folders = ("one/1", "one/2", "two/1", "three/part/1", "three/part/2")
    assert found == [tmp_path / f"{name}.png" for name in folders]
    names = [str(source) for source in sources]
    assert found == pictures(read_all(list_units(names, rows_per_unit=9, image_root=None, captions="first")))


def test_parquet_files_beside_other_sources_stay_on_the_disk(tmp_path: Path, photos: Path) -> None:
    rows = [{"image": bytes([number]) * 1_000_000, "text": str(number)} for number in range(40)]
    for name, half in (("a", rows[:20]), ("b", rows[20:])):
        pq.write_table(pa.Table.from_pylist(half), tmp_path / f"{name}.parquet", row_group_size=2)
    sources = [tmp_path / "a.parquet", photos, tmp_path / "b.parquet"]
    tracemalloc.start()
    table = open_table(
        [str(source) for source in sources], cache_dir=str(tmp_path / "cache"), image_root=None, limit=None
    )
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    captions = [row.text for row in (table[index] for index in range(len(table))) if isinstance(row, Row)]
    assert captions[:20] + captions[26:] == [row["text"] for row in rows]
    assert captions[20] == "a bright window 0" and len(captions) == 46
    assert most < 20_000_000


def test_a_folder_of_streams_is_refused_as_a_stream_is(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    for source in (tmp_path, tmp_path / "a.tar"):
        with pytest.raises(DatasetError, match="is a stream, which cannot be shuffled"):
            opened(tmp_path, source)


def test_a_row_group_of_any_size_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    rows = [{"image": bytes([number % 256]) * 200_000, "text": str(number)} for number in range(200)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", write_batch_size=8)
    assert pq.read_metadata(tmp_path / "rows.parquet").num_row_groups == 1
    units = list_units([str(tmp_path)], rows_per_unit=90, image_root=None, captions="first")
    most, found = 0, []
    for row in read_all(units):
        found.append(row)
        most = max(most, pa.total_allocated_bytes())
    assert [(row.image, row.text) for row in found if isinstance(row, Row)] == [
        (row["image"], row["text"]) for row in rows
    ]
    assert most < 10_000_000


def test_buckets_of_triples_are_found_without_reading_their_pictures(
    stage2: Callable[..., Any], triples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in (None, 4):
        config = stage2(buckets=True, bucket_step=8, max_train_samples=limit)
        table = open_table(
            [str(triples)],
            cache_dir=config.dataset_cache_dir,
            image_root=None,
            limit=config.max_train_samples,
        )
        with monkeypatch.context() as patch:
            patch.setattr("training.stage2.trainer.stated_sizes", lambda table: None)
            by_headers = training_sizes(config, table)
            patch.undo()
            patch.setattr("training.stage2.trainer.read_bytes", None)
            assert training_sizes(config, table) == by_headers and len(by_headers) == len(table)
    assert len(set(by_headers)) > 1
