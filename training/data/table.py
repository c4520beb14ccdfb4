"""Rows by number, for training: parquet through memory-mapped Arrow, everything else from a list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from training.data.rows import Reject, Row, found_row
from training.data.sources import list_units, read_all
from training.errors import DatasetError


class RowTable(Protocol):
    """Random access to rows or to the reasons why they are none."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row | Reject: ...


class ArrowTable:
    """Parquet files behind `datasets`, which maps them instead of reading them."""

    def __init__(self, files: Sequence[Path], *, cache_dir: str | None, image_root: Path) -> None:
        import datasets
        from datasets.exceptions import DatasetGenerationError

        datasets.disable_progress_bars()
        place: dict[str, Any] = {} if cache_dir is None else {"cache_dir": cache_dir}
        try:
            self.rows: Any = datasets.Dataset.from_parquet([str(file) for file in files], **place)
        except (OSError, ValueError, DatasetGenerationError) as error:
            raise DatasetError(f"cannot read {', '.join(str(file) for file in files)}: {error}") from error
        for column, feature in self.rows.features.items():
            if isinstance(feature, datasets.Image):
                self.rows = self.rows.cast_column(column, datasets.Image(decode=False))
        self.image_root = image_root

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row | Reject:
        return found_row(self.rows[index], key=f"row:{index}", image_root=self.image_root, source="parquet")


def open_table(
    sources: Sequence[str], *, cache_dir: str | None, image_root: str | None, limit: int | None
) -> RowTable:
    """Open what `train_metadata` names: parquet files or folders of them, picture folders, COCO JSON.

    Raises: DatasetError for missing or empty sources, and for streams, which have no random access.
    """
    files = _parquet_files(sources)
    if files is None:
        _refuse_streams(sources)
        units = list_units(sources, rows_per_unit=1 << 30, image_root=image_root, captions="first")
        found: RowTable = ListTable(list(read_all(units)))
    else:
        root = Path(image_root) if image_root else files[0].parent
        found = ArrowTable(files, cache_dir=cache_dir, image_root=root)
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


class FirstRows:
    """The head of a table."""

    def __init__(self, table: RowTable, count: int) -> None:
        self.table = table
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Row | Reject:
        return self.table[index]


def _parquet_files(sources: Sequence[str]) -> list[Path] | None:
    files: list[Path] = []
    for source in sources:
        path = Path(source)
        if not path.exists() and not source.startswith("hf:"):
            raise DatasetError(
                f"{source} does not exist; expected parquet, a folder of it, pictures or COCO JSON"
            )
        found = sorted(path.rglob("*.parquet")) if path.is_dir() else [path] * (path.suffix == ".parquet")
        if not found:
            return None
        files += found
    return files


def _refuse_streams(sources: Sequence[str]) -> None:
    for source in sources:
        if source.startswith("hf:") or source.endswith(".tar"):
            raise DatasetError(
                f"{source} is a stream, which cannot be shuffled for training; run the triples command first"
            )
