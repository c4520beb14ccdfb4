"""Parquet files as rows: a few at a time, and the keys of a file without its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.rows import KEY_COLUMNS, Reject, Row, duplicate, found_row, stated_key
from training.errors import DatasetError

# Others write files whose pictures are one row group of many gigabytes.
BYTES_AT_ONCE = 4 << 20
READ_BUFFER = 1 << 20


def count_rows(path: Path) -> int:
    """Rows of a file by its footer. Raises: DatasetError when there is none."""
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is not a readable parquet file: {error}") from error


def read_parquet(
    path: Path, name: str, start: int, stop: int, root: Path, repeated: Callable[[], dict[int, str]]
) -> Iterator[Row | Reject]:
    """Rows `start` to `stop` of a file; those of a row group, from its damage on, become rejects.

    Args:
        name: the file's name in its data set, part of its rows' keys.
        root: folder that relative paths start from.
        repeated: what `repeated_keys` found.
    """
    with pq.ParquetFile(path, buffer_size=READ_BUFFER) as file:
        position = 0
        for group in range(file.num_row_groups):
            length = file.metadata.row_group(group).num_rows
            wanted = range(max(start, position), min(stop, position + length))
            if wanted:
                found = _group_rows(file, group, wanted.start - position, wanted.stop - position)
                for number, columns in zip(wanted, found, strict=True):
                    key = f"{name.removesuffix('.parquet')}:{number}"
                    if isinstance(columns, str):
                        yield Reject(key, "damaged_shard", f"{path}, row group {group}: {columns}")
                    elif number in repeated():
                        yield duplicate(repeated()[number])
                    else:
                        yield found_row(columns, key=key, image_root=root, source=name)
            position += length


def repeated_keys(path: Path) -> dict[int, str]:
    """Keys by row, of the rows whose key an earlier row of the file has; only these columns are read."""
    seen: set[str] = set()
    repeated: dict[int, str] = {}
    with pq.ParquetFile(path) as file:
        columns = [name for name in KEY_COLUMNS if name in file.schema_arrow.names]
        groups = (_read_columns(file, group, columns) for group in range(file.num_row_groups))
        for number, row in enumerate(chain.from_iterable(groups if columns else ())):
            key = None if isinstance(row, str) else stated_key(row)
            if key is not None and key in seen:
                repeated[number] = key
            elif key is not None:
                seen.add(key)
    return repeated


def _group_rows(file: pq.ParquetFile, group: int, start: int, stop: int) -> Iterator[dict[str, Any] | str]:
    """Rows `start` to `stop` of a row group; for each that cannot be read what is wrong."""
    described = file.metadata.row_group(group)
    at_once = max(1, BYTES_AT_ONCE * described.num_rows // max(1, described.total_byte_size))
    position = 0
    try:
        for batch in file.iter_batches(min(at_once, described.num_rows), row_groups=[group]):
            first, last = max(start - position, 0), min(stop - position, batch.num_rows)
            yield from batch.slice(first, max(last - first, 0)).to_pylist()
            position += batch.num_rows
            if position >= stop:
                return
    except (OSError, ValueError, pa.ArrowException) as error:
        yield from [str(error)[:200]] * (stop - max(start, position))


def _read_columns(file: pq.ParquetFile, group: int, columns: list[str]) -> list[dict[str, Any] | str]:
    """Some columns of a row group; for each row what is wrong where they cannot be read."""
    try:
        return file.read_row_group(group, columns=columns).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        return [str(error)[:200]] * file.metadata.row_group(group).num_rows
