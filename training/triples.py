"""`python -m training triples`: photos to Text-SDR-GM triples, in any number of processes and runs.

The input is cut into units; each becomes one shard that appears only when it is whole. A run does the units
that have no shard yet, every process its share of them: nothing is lost or doubled by stopping, resuming, or
resuming on another number of processes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from gm_core.tonemap import MU
from training.config import TriplesConfig
from training.data.decode import decode_sdr, encode_gain_map, read_bytes
from training.data.rows import Reject, RejectCounter, Row, unicode_text
from training.data.shards import GENERATOR, ShardFolder, triple_schema
from training.data.sources import Unit, list_units
from training.errors import DatasetError, RejectedSample, TrainingInterrupted
from training.gain_sources import GainSource, Picture, open_gain_source
from training.loop import format_duration, stop_on_signal
from training.session import leave, make_accelerator

logger = logging.getLogger(__name__)

VERSION = 1
# Settings that change speed or reporting but not a single byte of a row.
NEUTRAL = {
    "output_dir",
    "batch_size",
    "decode_threads",
    "max_reject_fraction",
    "preset",
    "schema_version",
    "seed",
    "pretrained_model_name_or_path",
    "vae_adapter",
}

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Decoded:
    """A row with its picture."""

    row: Row
    data: bytes
    picture: Picture


class Builder:
    """Turns one unit after the other into shards."""

    def __init__(self, config: TriplesConfig, source: GainSource, output: ShardFolder) -> None:
        self.config = config
        self.source = source
        self.output = output
        self.schema = triple_schema(config.store_images)
        self.rejects = RejectCounter(config.max_reject_fraction)

    def build(self, index: int, unit: Unit, pool: ThreadPoolExecutor) -> int:
        """Write the unit's shard; returns the number of rows read."""
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        read = 0
        for window in batched(unit.rows(), self.config.batch_size * 8):
            read += len(window)
            decoded = []
            for item in pool.map(self._decode, window):
                (rejects if isinstance(item, Reject) else decoded).append(item)  # type: ignore[attr-defined]
            for batch in self._batches(decoded):
                maps = self.source([item.picture for item in batch])
                rows += pool.map(self._columns, batch, maps)
        rows.sort(key=lambda columns: columns["key"])
        self._judge(read, rejects)
        self.output.write(index, rows, rejects, self.schema)
        return read

    def _judge(self, read: int, rejects: list[Reject]) -> None:
        """Stop when the set is bad as a whole, not when this process or run had the worse part of it."""
        self.rejects.add(read, rejects)
        if self.rejects.too_many:
            whole = tally(self.config, self.output)
            whole.add(read, rejects)
            if whole.too_many:
                whole.check()

    def _decode(self, item: Row | Reject) -> Decoded | Reject:
        if isinstance(item, Reject):
            return item
        try:
            self._refuse_unnamed(item)
            data = read_bytes(item.image)
            picture = decode_sdr(data, min_side=self.config.min_side)
            return Decoded(item, data, self.source.prepare(picture, item))
        except RejectedSample as reject:
            return Reject(item.key, reject.reason, reject.detail)

    def _refuse_unnamed(self, row: Row) -> None:
        """Raises: DatasetError when a path is asked of a row that has none; RejectedSample for odd ones."""
        if self.config.store_images != "path":
            return
        if isinstance(row.image, bytes):
            raise DatasetError(
                f"store_images is path, but row {row.key} of {row.source} is no file of its own: its source "
                "holds the picture itself; use store_images bytes and another output_dir"
            )
        if unicode_text(str(row.image)) != str(row.image):
            raise RejectedSample("bad_metadata", f"the name of {str(row.image)!r} is not valid Unicode")

    def _batches(self, decoded: Sequence[Decoded]) -> Iterator[list[Decoded]]:
        by_size: dict[tuple[int, ...], list[Decoded]] = {}
        for item in decoded:
            by_size.setdefault(tuple(item.picture.sdr.shape), []).append(item)
        for same in by_size.values():
            yield from batched(same, self.config.batch_size)

    def _columns(self, item: Decoded, coded: Any) -> dict[str, Any]:
        row, config = item.row, self.config
        # Absolute: a set is read from other folders than it was made in.
        path = "" if isinstance(row.image, bytes) else str(row.image.absolute())
        columns: dict[str, Any] = {"image": path, "sdr": path}
        if config.store_images == "bytes":
            columns = {"image": item.data}
        return columns | {
            "gainmap": encode_gain_map(coded, config.gain_map_bits),
            "key": row.key,
            "text": row.text,
            "encoding": config.coding.encoding,
            "log2_min": config.coding.log2_min,
            "log2_max": config.coding.log2_max,
            "qmax": config.spec.qmax,
            "gamma": config.spec.gamma,
            "eps": config.spec.offset,
            "gamut": "bt2020",
            "tmo": self.source.operator,
            "mu": MU,
            "sdr_white_nits": config.sdr_white_nits,
            "source": row.source,
            "sha256": hashlib.sha256(item.data).hexdigest(),
            "generator": f"{GENERATOR} {VERSION} {self.source.identity}",
            "height": item.picture.size[0],
            "width": item.picture.size[1],
        }


def run(config: TriplesConfig) -> None:
    """Build what is missing, and mark the set as complete when nothing is.

    Raises: DatasetError for unusable sources, for an output folder of another set, and when too many
    pictures were rejected. TrainingInterrupted after a signal, when the unit in hand is whole.
    """
    accelerator = make_accelerator(config.mixed_precision)
    units = list_units(
        config.source,
        rows_per_unit=config.rows_per_shard,
        image_root=config.image_root,
        captions=config.captions,
        max_rows=config.max_samples,
    )
    source = open_gain_source(config, accelerator)
    output = ShardFolder(Path(config.output_dir), fingerprint(config, units, source))
    if accelerator.is_main_process:
        config.save(output.folder / "config.yaml")
    accelerator.wait_for_everyone()
    missing = [index for index in range(len(units)) if not output.is_done(index)]
    # Everyone has to see the same list before anyone adds to it.
    accelerator.wait_for_everyone()
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    logger.info("%d of %d units are missing, %d are this process's", len(missing), len(units), len(mine))
    finished = build_units(Builder(config, source, output), units, mine)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        finish(config, output, len(units))
    leave(accelerator)
    if not finished:
        raise TrainingInterrupted("stopped by a signal after a whole shard; run again to continue")


def build_units(builder: Builder, units: Sequence[Unit], mine: Sequence[int]) -> bool:
    """Build shards, logging throughput and time left; False when a signal asked to stop before the last."""
    started, read = time.perf_counter(), 0
    with ThreadPoolExecutor(builder.config.decode_threads) as pool, stop_on_signal() as stop:
        for position, index in enumerate(mine, start=1):
            if builder.output.is_done(index):
                # By a run that was started beside this one.
                continue
            read += builder.build(index, units[index], pool)
            elapsed = max(time.perf_counter() - started, 1e-9)
            logger.info(
                "shard %d (%d/%d)  %d images  %.1f images/s  rejected %d  left %s",
                index,
                position,
                len(mine),
                read,
                read / elapsed,
                builder.rejects.total,
                format_duration(elapsed / position * (len(mine) - position)),
            )
            if stop.requested and position < len(mine):
                return False
    return True


def finish(config: TriplesConfig, output: ShardFolder, units: int) -> None:
    """Summarise; write `_SUCCESS` when every unit has its shard. Raises: DatasetError by the reject share."""
    if not all(output.is_done(index) for index in range(units)):
        return
    counter = tally(config, output)
    rows = counter.seen - counter.total
    if counter.too_many or not rows:
        counter.check()
    output.finish({"rows": rows, "shards": units, "rejects": dict(counter.reasons)})
    logger.info(
        "complete: %d triples in %d shards, rejected %d %s", rows, units, counter.total, counter.summary()
    )


def tally(config: TriplesConfig, output: ShardFolder) -> RejectCounter:
    """What all processes and runs have written so far."""
    counter = RejectCounter(config.max_reject_fraction)
    rows, reasons = output.counts()
    counter.seen = rows + sum(reasons.values())
    counter.reasons.update(reasons)
    return counter


def fingerprint(config: TriplesConfig, units: Sequence[Unit], source: GainSource) -> dict[str, Any]:
    """Everything the rows depend on."""
    settings = {name: value for name, value in asdict(config).items() if name not in NEUTRAL}
    listed = unicode_text("\n".join(f"{unit.name} {unit.limit}" for unit in units))
    names = hashlib.sha256(listed.encode()).hexdigest()
    return json.loads(json.dumps({**settings, "units": names, "network": source.identity, "schema": 1}))


def batched(items: Any, size: int) -> Iterator[list[Any]]:
    """Lists of up to `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
