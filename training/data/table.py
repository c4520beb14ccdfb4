"""Rows by number, for training: parquet through memory-mapped Arrow, everything else from a list."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, Protocol

from training.data.parquet import count_rows
from training.data.rows import Reject, Row, found_row
from training.data.shards import GENERATOR
from training.data.sources import files_below, list_units, read_all
from training.errors import DatasetError


class RowTable(Protocol):
    """Random access to rows or to the reasons why they are none."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row | Reject: ...


@dataclass(frozen=True)
class ParquetFile:
    """A file, the folder that its relative paths start from, and its number of rows."""

    path: Path
    root: Path
    rows: int


class ArrowTable:
    """Parquet files, none of them empty, behind `datasets`, which maps them instead of reading them."""

    def __init__(self, files: Sequence[ParquetFile], *, cache_dir: str | None) -> None:
        import datasets
        from datasets.exceptions import DatasetGenerationError

        datasets.disable_progress_bars()
        place: dict[str, Any] = {} if cache_dir is None else {"cache_dir": cache_dir}
        names: list[Any] = [str(file.path) for file in files]
        try:
            self.rows: Any = datasets.Dataset.from_parquet(names, **place)
        except (OSError, ValueError, DatasetGenerationError) as error:
            # What `datasets` says itself is that there was an error.
            raise DatasetError(f"cannot read {', '.join(names)}: {error.__cause__ or error}") from error
        for column, feature in self.rows.features.items():
            if isinstance(feature, datasets.Image):
                self.rows = self.rows.cast_column(column, datasets.Image(decode=False))
        self.roots = [file.root for file in files]
        self.ends = list(accumulate(file.rows for file in files))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row | Reject:
        root = self.roots[bisect_right(self.ends, index)]
        return found_row(self.rows[index], key=f"row:{index}", image_root=root, source="parquet")


def stated_sizes(table: RowTable) -> list[tuple[int, int]] | None:
    """(height, width) of every picture as `triples` wrote it beside them, read from there; else None."""
    rows = table.table if isinstance(table, FirstRows) else table
    if not isinstance(rows, ArrowTable):
        return None
    wanted = ["height", "width", "generator"]
    if not set(wanted) <= set(rows.rows.column_names):
        return None
    stated = rows.rows.select_columns(wanted)[: len(table)]
    # What others call width may be that of another rendition.
    own = all(str(generator).startswith(GENERATOR) for generator in stated["generator"])
    return list(zip(stated["height"], stated["width"], strict=True)) if own else None


def open_table(
    sources: Sequence[str], *, cache_dir: str | None, image_root: str | None, limit: int | None
) -> RowTable:
    """Open what `train_metadata` names: parquet files or folders of them, picture folders, COCO JSON.

    Raises: DatasetError for missing or empty sources, and for streams, which have no random access.
    """
    tables: list[RowTable] = []
    # Neighbours of a kind are one table: pictures in parquet files are too many for memory.
    for is_parquet, group in groupby(sources, _has_parquet):
        if is_parquet:
            files = _parquet_files(list(group), Path(image_root) if image_root else None)
            # A shard of which nothing was usable has no rows, which `datasets` takes for an error.
            filled = [file for file in files if file.rows]
            tables += [ArrowTable(filled, cache_dir=cache_dir)] if filled else []
        else:
            units = list_units(list(group), rows_per_unit=1 << 30, image_root=image_root, captions="first")
            tables.append(ListTable(list(read_all(units))))
    found = tables[0] if len(tables) == 1 else JoinedTables(tables)
    if len(found) == 0:
        raise DatasetError(f"{', '.join(sources)} holds no rows")
    return found if limit is None or limit >= len(found) else FirstRows(found, limit)


class ListTable:
    """Rows that are in memory already."""

    def __init__(self, rows: Sequence[Row | Reject]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row | Reject:
        return self.rows[index]


class JoinedTables:
    """The rows of several tables, one table after the other."""

    def __init__(self, tables: Sequence[RowTable]) -> None:
        self.tables = tables
        self.ends = list(accumulate(len(table) for table in tables))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: int) -> Row | Reject:
        place = bisect_right(self.ends, index)
        table = self.tables[place]
        return table[index - self.ends[place] + len(table)]


class FirstRows:
    """The head of a table."""

    def __init__(self, table: RowTable, count: int) -> None:
        self.table = table
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Row | Reject:
        return self.table[index]


def _has_parquet(source: str) -> bool:
    """Raises: DatasetError for a source that does not exist, and for streams."""
    path = Path(source)
    is_hub = source.startswith("hf:")
    if not is_hub and not path.exists():
        raise DatasetError(
            f"{source} does not exist; expected parquet, a folder of it, pictures or COCO JSON"
        )
    kinds = {file.suffix for file in _files_of(path)}
    if is_hub or (".tar" in kinds and ".parquet" not in kinds):
        raise DatasetError(
            f"{source} is a stream, which cannot be shuffled for training; run the triples command first"
        )
    return ".parquet" in kinds


def _files_of(path: Path) -> list[Path]:
    return files_below(path) if path.is_dir() else [path]


def _parquet_files(sources: Sequence[str], image_root: Path | None) -> list[ParquetFile]:
    files: list[ParquetFile] = []
    for path in map(Path, sources):
        # As `validate` and `triples` have it: from the folder that was named, or from that of the file.
        root = image_root or (path if path.is_dir() else path.parent)
        found = [file for file in _files_of(path) if file.suffix == ".parquet"]
        files += [ParquetFile(file, root, count_rows(file)) for file in found]
    return files
