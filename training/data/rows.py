"""One row of a data set, whatever the names and types of its columns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gm_core.errors import GainMapError
from gm_core.gain_coding import GainCoding
from gm_core.gain_map import GainMapSpec
from training.data.decode import ImageSource
from training.errors import DatasetError, RejectedSample

IMAGE_COLUMNS = ("image", "sdr", "jpg", "jpeg", "png", "webp")
TEXT_COLUMNS = ("text", "caption", "captions", "txt")
GAIN_MAP_COLUMNS = ("gainmap", "gain_map", "gm_path")
KEY_COLUMNS = ("key", "id", "__key__")
# Below this many looks a share means nothing.
MIN_SAMPLE = 200


@dataclass(frozen=True)
class Row:
    """A picture with what is known about it.

    Args:
        key: identity within the data set.
        image: SDR picture, encoded or as a path.
        text: caption, may be empty.
        gain_map: coded gain map, encoded or as a path.
        hdr: ground truth, encoded or as a path.
        spec, coding: how `gain_map` is meant.
        source: where the row came from.

    Names of files and words of JSON may hold halves of characters, which no file of ours can store: they are
    escaped in `key` and `source`, which have to differ still, and replaced in `text`.
    """

    key: str
    image: ImageSource
    text: str = ""
    gain_map: ImageSource | None = None
    hdr: ImageSource | None = None
    spec: GainMapSpec = field(default_factory=GainMapSpec)
    coding: GainCoding = field(default_factory=GainCoding)
    source: str = ""

    def __post_init__(self) -> None:
        for name, errors in (
            ("key", "backslashreplace"),
            ("source", "backslashreplace"),
            ("text", "replace"),
        ):
            object.__setattr__(self, name, unicode_text(getattr(self, name), errors))


@dataclass(frozen=True)
class Reject:
    """A row that cannot be used, and why."""

    key: str
    reason: str
    detail: str


class RejectCounter:
    """Counts rejects by reason; knows when their share is too large to go on."""

    def __init__(self, max_fraction: float) -> None:
        self.max_fraction = max_fraction
        self.seen = 0
        self.reasons: Counter[str] = Counter()

    def add(self, seen: int, rejects: list[Reject]) -> None:
        """Count `seen` rows, of which these were unusable."""
        self.seen += seen
        self.reasons.update(reject.reason for reject in rejects)

    def merge(self, other: RejectCounter) -> None:
        """Add what another process counted."""
        self.seen += other.seen
        self.reasons.update(other.reasons)

    @property
    def too_many(self) -> bool:
        """Whether the share is too large; of fewer than MIN_SAMPLE rows it says nothing."""
        return self.seen >= MIN_SAMPLE and self.total > self.max_fraction * self.seen

    def check(self) -> None:
        """Compare the share now, however few rows were seen. Raises: DatasetError."""
        if self.total > self.max_fraction * self.seen:
            raise DatasetError(
                f"{self.total} of {self.seen} rows are unusable ({self.summary()}), more than "
                f"max_reject_fraction {self.max_fraction:g} allows; `python -m training validate` lists them"
            )

    @property
    def total(self) -> int:
        """Rejects for any reason."""
        return sum(self.reasons.values())

    def summary(self) -> str:
        """Reasons with counts, most frequent first."""
        return ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())


def row_from_columns(columns: Mapping[str, Any], *, key: str, image_root: Path | None, source: str) -> Row:
    """Read a row whose columns have any of the known names.

    Raises: RejectedSample `missing_image` or `bad_metadata`.
    """
    image = _first_source(columns, IMAGE_COLUMNS, image_root)
    if image is None:
        raise RejectedSample("missing_image", f"no usable value in {', '.join(IMAGE_COLUMNS)}")
    spec, coding = _gain_map_meaning(columns)
    return Row(
        key=stated_key(columns) or key,
        image=image,
        text=caption_of(columns),
        gain_map=_first_source(columns, GAIN_MAP_COLUMNS, image_root),
        hdr=_first_source(columns, ("hdr",), image_root),
        spec=spec,
        coding=coding,
        source=source,
    )


def found_row(columns: dict[str, Any], *, key: str, image_root: Path | None, source: str) -> Row | Reject:
    """A row, or the reason why its columns make none."""
    try:
        return row_from_columns(columns, key=key, image_root=image_root, source=source)
    except RejectedSample as reject:
        return Reject(key, reject.reason, reject.detail)


def stated_key(columns: Mapping[str, Any]) -> str | None:
    """The identity that a row gives itself, None where it has none."""
    for name in KEY_COLUMNS:
        value = _word(columns.get(name))
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        if not missing and str(value):
            return str(value)
    return None


def distinct(found: Iterable[Row | Reject]) -> Iterator[Row | Reject]:
    """The same, with a reject in place of every row whose key an earlier row has."""
    keys: set[str] = set()
    for item in found:
        if isinstance(item, Row) and item.key in keys:
            yield duplicate(item.key)
            continue
        keys.add(item.key)
        yield item


def unicode_text(text: str, errors: str = "backslashreplace") -> str:
    """The same text when it is valid Unicode, else with its halves of characters escaped or replaced."""
    return text.encode("utf-8", errors).decode("utf-8")


def duplicate(key: str) -> Reject:
    """What becomes of a row whose key came before."""
    return Reject(key, "duplicate_key", f"key {key} came before")


def caption_of(columns: Mapping[str, Any]) -> str:
    """The first words under any of the known names, of a list its first; empty when there are none."""
    for name in TEXT_COLUMNS:
        value = columns.get(name)
        for item in value if isinstance(value, list) else [value]:
            words = _word(item)
            if isinstance(words, str) and words.strip():
                return words.strip()
    return ""


def _gain_map_meaning(columns: Mapping[str, Any]) -> tuple[GainMapSpec, GainCoding]:
    try:
        spec = GainMapSpec(
            qmax=_number(columns, "qmax", GainMapSpec.qmax),
            gamma=_number(columns, "gamma", GainMapSpec.gamma),
            offset=_number(columns, "eps", GainMapSpec.offset),
        )
        coding = GainCoding(
            encoding=_word(columns.get("encoding")) or "linear",
            log2_min=_number(columns, "log2_min", 0.0),
            log2_max=_number(columns, "log2_max", 0.0),
        )
    except (GainMapError, TypeError, ValueError) as error:
        raise RejectedSample("bad_metadata", str(error)) from error
    return spec, coding


def _number(columns: Mapping[str, Any], name: str, default: float) -> float:
    value = columns.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return default
    return float(value)


def _word(value: Any) -> Any:
    # Members of a tar are bytes, whatever they mean.
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value


def _first_source(
    columns: Mapping[str, Any], names: tuple[str, ...], root: Path | None
) -> ImageSource | None:
    for name in names:
        value = columns.get(name)
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, (bytes, bytearray, memoryview)) and len(value):
            return bytes(value)
        if isinstance(value, str) and value:
            path = Path(value)
            return path if path.is_absolute() or root is None else root / path
    return None
