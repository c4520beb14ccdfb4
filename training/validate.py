"""`python -m training validate`: what of a data set is usable, and why the rest is not."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.config import ValidateConfig
from training.data.decode import decode_gain_map, decode_sdr, read_bytes
from training.data.rows import Reject, Row, duplicate
from training.data.samples import check_shapes, read_truth
from training.data.sources import Unit, list_units
from training.errors import RejectedSample

logger = logging.getLogger(__name__)

FAILED = 3


@dataclass
class Report:
    """Counts over a data set."""

    rows: int = 0
    usable: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    shortest_side: int = 0
    longest_side: int = 0
    caption_words: int = 0
    with_ground_truth: int = 0

    def add(self, row: Row, size: tuple[int, int]) -> None:
        """Count a usable row with a picture of (height, width)."""
        self.usable += 1
        self.shortest_side = min(size) if self.usable == 1 else min(self.shortest_side, *size)
        self.longest_side = max(self.longest_side, *size)
        self.caption_words += len(row.text.split())
        self.with_ground_truth += row.hdr is not None

    def summary(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "rows": self.rows,
            "usable": self.usable,
            "rejected": self.rows - self.usable,
            "reasons": dict(self.reasons.most_common()),
            "shortest_side": self.shortest_side,
            "longest_side": self.longest_side,
            "mean_caption_words": round(self.caption_words / max(1, self.usable), 2),
            "with_ground_truth": self.with_ground_truth,
        }


def run(config: ValidateConfig) -> int:
    """Write `report.json` and `rejects.jsonl`; exit code 3 when too much is unusable."""
    units = list_units(
        config.source,
        rows_per_unit=config.rows_per_shard,
        image_root=config.image_root,
        captions=config.captions,
        max_rows=config.max_samples,
    )
    output = Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    config.save(output / "config.yaml")
    report = Report()
    with (output / "rejects.jsonl").open("w", encoding="utf-8") as rejects:
        for reject in inspect(units, config, report):
            rejects.write(json.dumps(vars(reject)) + "\n")
    (output / "report.json").write_text(json.dumps(report.summary(), indent=1), encoding="utf-8")
    logger.info("%s", json.dumps(report.summary()))
    failed = report.rows - report.usable > config.max_reject_fraction * report.rows or not report.usable
    if failed:
        logger.error(
            "more than max_reject_fraction %g is unusable: see %s", config.max_reject_fraction, output
        )
    return FAILED if failed else 0


def inspect(units: Sequence[Unit], config: ValidateConfig, report: Report) -> Iterator[Reject]:
    """Count every row into `report`; yields the rejects."""
    # Two sources may use the same names for different pictures; the units of one may not.
    keys: set[tuple[str, str]] = set()
    for unit in units:
        for item in unit.rows():
            report.rows += 1
            reject = _reject(item, (unit.source, item.key) in keys, config, report)
            keys.add((unit.source, item.key))
            if reject is not None:
                report.reasons[reject.reason] += 1
                yield reject


def check_row(row: Row, config: ValidateConfig) -> tuple[int, int]:
    """(height, width) of a row's picture. Raises: RejectedSample with the first thing that is wrong."""
    if config.require_text and not row.text:
        raise RejectedSample("empty_caption", f"row {row.key}")
    picture = decode_sdr(read_bytes(row.image), min_side=config.min_side)
    if row.hdr is not None:
        check_shapes((picture.height, picture.width), read_truth(row.hdr).shape[:2], "hdr")
    if config.expect == "triples":
        if row.gain_map is None:
            raise RejectedSample("missing_gainmap", f"row {row.key}")
        check_shapes((picture.height, picture.width), decode_gain_map(read_bytes(row.gain_map)).shape[:2])
    return picture.height, picture.width


def _reject(item: Row | Reject, repeated: bool, config: ValidateConfig, report: Report) -> Reject | None:
    if isinstance(item, Reject):
        return item
    if repeated:
        return duplicate(item.key)
    try:
        report.add(item, check_row(item, config))
    except RejectedSample as reject:
        return Reject(item.key, reject.reason, reject.detail)
    return None
