"""WebDataset shards: tar members that share a stem are one row. Nothing is ever unpacked to disk."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from training.data.rows import Reject, Row, caption_of, found_row
from training.errors import RejectedSample

MAX_MEMBER_BYTES = 1 << 28


def read_tar(path: Path, shard: str) -> Iterator[Row | Reject]:
    """Rows of one shard in file order; unsafe members and a damaged tail become rejects.

    Args:
        shard: the shard's name in its data set, part of its rows' keys.
    """
    prefix = shard.removesuffix(".tar")
    stem: str | None = None
    columns: dict[str, Any] = {}
    try:
        with tarfile.open(path, mode="r|*") as archive:
            for member in archive:
                if member.isdir():
                    continue
                problem = _problem(member)
                if problem is not None:
                    yield Reject(f"{prefix}/{member.name}", *problem)
                    continue
                name, _, extension = (
                    member.name.partition(".") if "/" not in member.name else _split(member.name)
                )
                if name != stem and stem is not None:
                    yield _row(shard, stem, columns)
                    columns = {}
                stem = name
                stream = archive.extractfile(member)
                columns[extension.lower()] = stream.read() if stream is not None else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        yield Reject(f"{prefix}/{stem or ''}", "damaged_shard", f"{path}: {error}")
        return
    if stem is not None:
        yield _row(shard, stem, columns)


def _split(name: str) -> tuple[str, str, str]:
    folder, _, file = name.rpartition("/")
    stem, dot, extension = file.partition(".")
    return f"{folder}/{stem}", dot, extension


def _problem(member: tarfile.TarInfo) -> tuple[str, str] | None:
    parts = PurePosixPath(member.name)
    if not member.isfile():
        return "unsafe_member", f"{member.name} is a link or a device"
    if parts.is_absolute() or ".." in parts.parts:
        return "unsafe_member", f"{member.name} leaves the shard"
    if member.size > MAX_MEMBER_BYTES:
        return "oversize_member", f"{member.name} has {member.size} bytes"
    return None


def _row(shard: str, stem: str, columns: dict[str, Any]) -> Row | Reject:
    key = f"{shard.removesuffix('.tar')}/{stem}"
    try:
        columns["text"] = caption_of(columns) or _caption_in_json(columns.get("json"))
    except RejectedSample as reject:
        return Reject(key, reject.reason, reject.detail)
    return found_row(columns, key=key, image_root=None, source=shard)


def _caption_in_json(data: bytes | None) -> str:
    """What img2dataset and others write beside the picture. Raises: RejectedSample `bad_metadata`."""
    if data is None:
        return ""
    try:
        stated = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RejectedSample("bad_metadata", f".json member: {str(error)[:100]}") from error
    return caption_of(stated) if isinstance(stated, dict) else ""
