"""Parquet files as rows: a row group at a time, and the keys of a file without its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.rows import KEY_COLUMNS, Reject, Row, duplicate, found_row, stated_key
from training.errors import DatasetError


def count_rows(path: Path) -> int:
    """Rows of a file by its footer. Raises: DatasetError when there is none."""
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is not a readable parquet file: {error}") from error


def read_parquet(
    path: Path, name: str, start: int, stop: int, root: Path, repeated: Callable[[], dict[int, str]]
) -> Iterator[Row | Reject]:
    """Rows `start` to `stop` of a file.

    Args:
        name: the file's name in its data set, part of its rows' keys.
        root: folder that relative paths start from.
        repeated: what `repeated_keys` found.
    """
    file = pq.ParquetFile(path)
    position = 0
    for group in range(file.num_row_groups):
        length = file.metadata.row_group(group).num_rows
        if position < stop and position + length > start:
            table = file.read_row_group(group).slice(max(0, start - position), stop - max(start, position))
            for number, columns in enumerate(table.to_pylist(), start=max(start, position)):
                if number in repeated():
                    yield duplicate(repeated()[number])
                    continue
                key = f"{name.removesuffix('.parquet')}:{number}"
                yield found_row(columns, key=key, image_root=root, source=name)
        position += length


def repeated_keys(path: Path) -> dict[int, str]:
    """Keys by row, of the rows whose key an earlier row of the file has; only these columns are read."""
    file = pq.ParquetFile(path)
    columns = [name for name in KEY_COLUMNS if name in file.schema_arrow.names]
    seen: set[str] = set()
    repeated: dict[int, str] = {}
    rows = file.read(columns=columns).to_pylist() if columns else []
    for number, row in enumerate(rows):
        key = stated_key(row)
        if key in seen:
            repeated[number] = key
        elif key is not None:
            seen.add(key)
    return repeated
