"""Parquet shards of Text-SDR-GM triples: the schema, and files that are whole or absent."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gm_core.codecs.files import replace_file, write_atomic
from gm_core.json_files import read_json
from training.data.rows import Reject
from training.errors import DatasetError

logger = logging.getLogger(__name__)

# Rows are large: small groups keep random access cheap.
ROWS_PER_GROUP = 16
GENERATOR = "gm-hdr triples"
SUCCESS = "_SUCCESS"
DESCRIPTION = "dataset.json"

_TEXT_COLUMNS = ("key", "text", "encoding", "gamut", "tmo", "source", "sha256", "generator")
_NUMBER_COLUMNS = ("qmax", "gamma", "eps", "log2_min", "log2_max", "mu", "sdr_white_nits")


def triple_schema(store_images: str) -> pa.Schema:
    """Columns of a shard. `image` holds bytes, or like `sdr` the path when pictures are not embedded."""
    picture = [pa.field("image", pa.binary())]
    if store_images == "path":
        picture = [pa.field("image", pa.string()), pa.field("sdr", pa.string())]
    return pa.schema(
        [
            *picture,
            pa.field("gainmap", pa.binary()),
            *(pa.field(name, pa.string()) for name in _TEXT_COLUMNS),
            *(pa.field(name, pa.float64()) for name in _NUMBER_COLUMNS),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
        ]
    )


class ShardFolder:
    """Output of `triples`: one shard per unit of work, its rejects beside it, markers for the whole.

    Args:
        folder: created when missing.
        fingerprint: everything the rows depend on; another one may not be mixed in.

    Raises: DatasetError when the folder holds triples of another fingerprint.
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rejects").mkdir(exist_ok=True)
        description = json.dumps(fingerprint, indent=1, sort_keys=True)
        try:
            write_atomic(folder / DESCRIPTION, description.encode())
        except FileExistsError:
            self._compare(fingerprint)

    def is_done(self, unit: int) -> bool:
        """Whether the unit's shard was written whole."""
        return self.shard(unit).is_file()

    def shard(self, unit: int) -> Path:
        """The unit's file, whether it exists or not."""
        return self.folder / f"triples-{unit:06d}.parquet"

    def write(
        self, unit: int, rows: Sequence[dict[str, Any]], rejects: Sequence[Reject], schema: pa.Schema
    ) -> None:
        """Write rejects, then the shard: a unit counts as done only with both."""
        lines = "".join(json.dumps(vars(reject)) + "\n" for reject in rejects)
        replace_file(self.folder / "rejects" / f"triples-{unit:06d}.jsonl", lines.encode())
        table = pa.Table.from_pylist(list(rows), schema=schema)

        def stream(file: Any) -> None:
            # Pictures are compressed already.
            pq.write_table(table, file, row_group_size=ROWS_PER_GROUP, compression="none")

        try:
            write_atomic(self.shard(unit), stream)
        except FileExistsError:
            logger.info("%s was written by another run meanwhile, with the same rows", self.shard(unit))

    def counts(self) -> tuple[int, dict[str, int]]:
        """Rows written and rejects by reason over all shards so far.

        Raises: DatasetError when a report of rejects is damaged.
        """
        rows = sum(pq.read_metadata(shard).num_rows for shard in self.folder.glob("triples-*.parquet"))
        reports = sorted((self.folder / "rejects").glob("*.jsonl"))
        return rows, dict(Counter(reason for report in reports for reason in _reasons(report)))

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the marker that says every unit is done."""
        replace_file(self.folder / SUCCESS, json.dumps(summary, indent=1).encode())

    def _compare(self, fingerprint: dict[str, Any]) -> None:
        remedy = "choose another output_dir, or delete the folder"
        found = read_json(self.folder / DESCRIPTION, remedy=remedy, error=DatasetError)
        differing = sorted(name for name in fingerprint if found.get(name) != fingerprint[name])
        if differing:
            raise DatasetError(
                f"{self.folder} holds triples made differently ({', '.join(differing)}); {remedy}"
            )


def _reasons(report: Path) -> list[str]:
    try:
        return [str(json.loads(line)["reason"]) for line in report.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            f"{report} is no list of rejects ({error!r}); delete it and {report.stem}.parquet, and run "
            "triples again"
        ) from error
