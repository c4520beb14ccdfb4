"""Photo collections as units of work: every unit yields the same rows whenever it is read."""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from training.data.parquet import count_rows, read_parquet, repeated_keys
from training.data.rows import GAIN_MAP_COLUMNS, IMAGE_COLUMNS, Reject, Row, caption_of, distinct, found_row
from training.data.tar import read_tar
from training.errors import DatasetError, RejectedSample

logger = logging.getLogger(__name__)

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif"}
HDR_SIDECARS = (".exr", ".hdr")
PICTURE_COLUMNS = (*IMAGE_COLUMNS, *GAIN_MAP_COLUMNS, "hdr")
Found = Row | Reject


@dataclass(frozen=True)
class Unit:
    """A piece of a source that one process reads from start to end.

    Args:
        name: stable description, part of the data set's fingerprint.
        read: yields rows and rejects, always the same ones.
        count: number of rows where it is known without reading.
        limit: read at most this many.
        source: the one of the user's sources that it is a part of.
    """

    name: str
    read: Callable[[], Iterator[Found]]
    count: int | None = None
    limit: int | None = None
    source: str = ""

    def rows(self) -> Iterator[Found]:
        """The unit's rows in order."""
        return islice(self.read(), self.limit)


def list_units(
    sources: Sequence[str],
    *,
    rows_per_unit: int,
    image_root: str | None,
    captions: str,
    max_rows: int | None = None,
) -> list[Unit]:
    """All units of all sources, in a stable order.

    Args:
        sources: folders of pictures, parquet or tar; such files; COCO caption JSON; hf:NAME[@split].
        rows_per_unit: size of a unit where the source can be cut anywhere.
        image_root: folder that relative paths start from.
        captions: "first" or "all" of several captions.
        max_rows: drop what lies beyond.

    Raises: DatasetError for a source that does not exist or is of no known kind.
    """
    root = Path(image_root) if image_root else None
    units = [
        replace(unit, source=source)
        for source in sources
        for unit in _open(source, rows_per_unit, root, captions == "all")
    ]
    if not units:
        raise DatasetError(
            f"{', '.join(sources)} holds no pictures; expected {', '.join(sorted(PICTURES))}, "
            "parquet, tar or COCO JSON"
        )
    return units if max_rows is None else _first_rows(units, max_rows)


def read_all(units: Sequence[Unit]) -> Iterator[Found]:
    """The rows of all units, one after the other."""
    for unit in units:
        yield from unit.rows()


def pictures_below(folder: Path) -> list[Path]:
    """Every picture of a folder and the folders in it, in order; hidden files and folders hold none."""
    return [path for path in files_below(folder) if path.suffix.lower() in PICTURES]


def files_below(folder: Path) -> list[Path]:
    """Every file of a folder and the folders in it, in order, but for hidden files and folders.

    Links to folders are followed, unless they lead to one that was read.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    # Asks for nothing but names: on a network drive every question about a file takes its time.
    for place, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(found)


def _open(source: str, size: int, root: Path | None, every_caption: bool) -> list[Unit]:
    if source.startswith("hf:"):
        return _hub_units(source.removeprefix("hf:"), root)
    path = Path(source)
    if not path.exists():
        raise DatasetError(
            f"{source} does not exist; expected a folder, a parquet, tar or JSON file, or hf:NAME"
        )
    if path.is_dir():
        return _folder_units(path, size, root)
    if path.suffix == ".parquet":
        return _parquet_units(path, path.name, size, root or path.parent)
    if path.suffix == ".tar":
        return [_tar_unit(path, path.name)]
    if path.suffix == ".json":
        return _coco_units(path, size, root or path.parent, every_caption)
    raise DatasetError(f"{source} is of no known kind; expected .parquet, .tar, .json (COCO) or a folder")


def _folder_units(folder: Path, size: int, root: Path | None) -> list[Unit]:
    files = files_below(folder)

    def named(path: Path) -> str:
        return path.relative_to(folder).as_posix()

    parquet = [path for path in files if path.suffix == ".parquet"]
    if parquet:
        return [unit for path in parquet for unit in _parquet_units(path, named(path), size, root or folder)]
    shards = [path for path in files if path.suffix == ".tar"]
    if shards:
        return [_tar_unit(path, named(path)) for path in shards]
    captions = _sidecar_captions(folder, files)
    present = frozenset(files)
    rows = [_file_row(path, folder, captions, present) for path in files if path.suffix.lower() in PICTURES]
    return _list_units(folder.name, rows, size)


def _file_row(path: Path, folder: Path, captions: dict[str, str], present: frozenset[Path]) -> Row:
    name = path.relative_to(folder).as_posix()
    sidecar = path.with_suffix(".txt")
    text = captions.get(name, "")
    if not text and sidecar in present:
        text = sidecar.read_text(encoding="utf-8-sig", errors="replace").strip()
    truth = [path.with_suffix(suffix) for suffix in HDR_SIDECARS if path.with_suffix(suffix) in present]
    return Row(key=name, image=path, text=text, hdr=truth[0] if truth else None, source=str(folder))


def _sidecar_captions(folder: Path, files: Sequence[Path]) -> dict[str, str]:
    """Every `metadata.jsonl` in the layout of Hugging Face image folders; a bad line costs one caption."""
    captions: dict[str, str] = {}
    for path in (path for path in files if path.name == "metadata.jsonl"):
        below = path.parent.relative_to(folder)
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line) if line.strip() else {}
                captions[(below / entry.get("file_name", "")).as_posix()] = caption_of(entry)
            except (ValueError, AttributeError, TypeError):
                logger.warning("%s: line %d is no JSON object of file_name and text", path, number)
    return captions


def _tar_unit(path: Path, name: str) -> Unit:
    return Unit(name, lambda: distinct(read_tar(path, name)))


def _list_units(name: str, found: Sequence[Found], size: int) -> list[Unit]:
    rows = list(distinct(found))
    return [
        Unit(f"{name}[{start}:{start + len(part)}]", part.__iter__, len(part))
        for start in range(0, len(rows), size)
        for part in [rows[start : start + size]]
    ]


def _coco_units(path: Path, size: int, root: Path, every_caption: bool) -> list[Unit]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        captions: dict[int, list[str]] = {}
        for annotation in content["annotations"]:
            captions.setdefault(annotation["image_id"], []).append(str(annotation["caption"] or "").strip())
        images = sorted(content["images"], key=lambda image: image["id"])
        rows: list[Row] = []
        for image in images:
            texts = captions.get(image["id"], [""])
            file = root / image["file_name"]
            for number, text in enumerate(texts if every_caption else texts[:1]):
                key = f"{image['id']}-{number}" if every_caption else str(image["id"])
                rows.append(Row(key=key, image=file, text=text, source=path.name))
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} is not a COCO caption file: {error!r}") from error
    return _list_units(path.name, rows, size)


def _parquet_units(path: Path, name: str, size: int, root: Path) -> list[Unit]:
    count = count_rows(path)
    # Every unit has to know of the keys of those before it, whoever reads them.
    repeated = functools.cache(lambda: repeated_keys(path))

    def unit(start: int, stop: int) -> Unit:
        read = functools.partial(read_parquet, path, name, start, stop, root, repeated)
        return Unit(f"{name}[{start}:{stop}]", read, stop - start)

    return [unit(start, min(start + size, count)) for start in range(0, count, size)]


def _hub_units(name: str, root: Path | None) -> list[Unit]:
    import datasets
    from datasets.exceptions import DatasetsError

    location, _, split = name.partition("@")
    try:
        stream = datasets.load_dataset(location, split=split or "train", streaming=True)
    except (OSError, ValueError, DatasetsError) as error:
        raise DatasetError(f"cannot open hf:{name}: {error}") from error
    for column, feature in (stream.features or {}).items():
        if isinstance(feature, datasets.Image):
            stream = stream.cast_column(column, datasets.Image(decode=False))
    local = Path(location).exists()

    def reader(index: int) -> Callable[[], Iterator[Found]]:
        shard = stream.shard(stream.num_shards, index)
        return lambda: distinct(_hub_rows(shard, f"{location}:{index}", root, local))

    return [Unit(f"{name}[{index}/{stream.num_shards}]", reader(index)) for index in range(stream.num_shards)]


def _hub_rows(shard: Any, prefix: str, root: Path | None, local: bool) -> Iterator[Found]:
    for number, columns in enumerate(shard):
        key = f"{prefix}:{number}"
        try:
            for name in (name for name in PICTURE_COLUMNS if name in columns):
                columns[name] = _fetched(columns[name], local or root is not None)
        except RejectedSample as reject:
            yield Reject(key, reject.reason, reject.detail)
            continue
        yield found_row(columns, key=key, image_root=root, source=prefix)


def _fetched(value: Any, trusted: bool) -> Any:
    """A picture of a stream, read where the stream only names it. Raises: RejectedSample.

    A data set from elsewhere may name its own files, not those of this machine.
    """
    path = value.get("path") if isinstance(value, dict) and not value.get("bytes") else value
    if not isinstance(path, str) or not path:
        return value
    if path.split("::")[-1].startswith(("hf://", "https://")):
        from datasets.utils.file_utils import xopen

        try:
            with xopen(path, "rb") as file:
                return file.read()
        except (OSError, ValueError) as error:
            raise RejectedSample("missing_file", f"{path}: {error}") from error
    if not trusted:
        raise RejectedSample("unsafe_path", f"{path} is a file of this machine; image_root allows such rows")
    return value


def _first_rows(units: Sequence[Unit], limit: int) -> list[Unit]:
    kept: list[Unit] = []
    for unit in units:
        if limit <= 0:
            break
        kept.append(replace(unit, limit=limit))
        if unit.count is not None:
            limit -= unit.count
        else:
            # A stream tells how long it is by being read, of which a limit is the end.
            limit -= sum(1 for _ in kept[-1].rows())
    return kept
