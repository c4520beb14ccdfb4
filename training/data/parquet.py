"""Parquet files as rows: a row group at a time, and the keys of a file without its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

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
    """Rows `start` to `stop` of a file; those of a damaged row group become rejects.

    Args:
        name: the file's name in its data set, part of its rows' keys.
        root: folder that relative paths start from.
        repeated: what `repeated_keys` found.
    """
    with pq.ParquetFile(path) as file:
        position = 0
        for group in range(file.num_row_groups):
            length = file.metadata.row_group(group).num_rows
            wanted = range(max(start, position), min(stop, position + length))
            if wanted:
                found = _read_group(file, group, skip=wanted.start - position, take=len(wanted))
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
        groups = (_read_group(file, group, columns=columns) for group in range(file.num_row_groups))
        for number, row in enumerate(chain.from_iterable(groups if columns else ())):
            key = None if isinstance(row, str) else stated_key(row)
            if key is not None and key in seen:
                repeated[number] = key
            elif key is not None:
                seen.add(key)
    return repeated


def _read_group(
    file: pq.ParquetFile, group: int, *, skip: int = 0, take: int | None = None, columns: Any = None
) -> list[dict[str, Any] | str]:
    """`take` rows of a row group, all without it; for each of them what is wrong where it cannot be read."""
    try:
        return file.read_row_group(group, columns=columns).slice(skip, take).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        rows = file.metadata.row_group(group).num_rows - skip
        return [str(error)[:200]] * (rows if take is None else take)
