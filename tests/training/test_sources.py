"""Every kind of photo collection gives the same rows whenever it is read."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.decode import read_bytes
from training.data.rows import Reject, Row
from training.data.sources import _hub_rows, list_units, read_all
from training.errors import DatasetError


def rows_of(*sources: object, size: int = 3, captions: str = "first", limit: int | None = None) -> list[Row]:
    units = list_units(
        [str(s) for s in sources], rows_per_unit=size, image_root=None, captions=captions, max_rows=limit
    )
    found = list(read_all(units))
    assert found == list(read_all(units))
    return found  # type: ignore[return-value]


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def picture(photos: Path) -> bytes:
    return (photos / "photo_000.png").read_bytes()


def test_a_folder_with_captions_beside_the_pictures(photos: Path) -> None:
    rows = rows_of(photos)
    assert len(rows) == 6
    assert rows[1].text == "sun over a field 1" and rows[1].image == photos / "photo_001.png"


def test_captions_with_a_byte_order_mark_and_in_subfolders(tmp_path: Path, picture: bytes) -> None:
    (tmp_path / "train").mkdir()
    for name in ("a.png", "b.png", "train/c.png"):
        (tmp_path / name).write_bytes(picture)
    (tmp_path / "a.txt").write_text("\ufefffrom Windows", encoding="utf-8")
    line = '\ufeff{"file_name": "b.png", "text": "marked"}'
    (tmp_path / "metadata.jsonl").write_text(line, encoding="utf-8")
    (tmp_path / "train" / "metadata.jsonl").write_text('{"file_name": "c.png", "caption": "below"}')
    assert [row.text for row in rows_of(tmp_path)] == ["from Windows", "marked", "below"]


def test_linked_folders_are_read_once_each(tmp_path: Path, picture: bytes) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    for place in (elsewhere, folder):
        place.mkdir()
        (place / "a.png").write_bytes(picture)
    (elsewhere / "a.txt").write_text("a lamp")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "linked too").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    assert [(row.key, row.text) for row in rows_of(folder)] == [("a.png", ""), ("linked/a.png", "a lamp")]


def test_a_folder_in_the_layout_of_image_folders(tmp_path: Path, picture: bytes) -> None:
    (tmp_path / "a.png").write_bytes(picture)
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "a lamp"}) + "\n")
    (tmp_path / "a.hdr").write_bytes(b"ground truth")
    (row,) = rows_of(tmp_path)
    assert row.text == "a lamp" and row.hdr == tmp_path / "a.hdr"


def test_coco_captions_first_or_all(tmp_path: Path, picture: bytes) -> None:
    content = {
        "images": [
            {"id": number, "file_name": f"{name}.png"} for number, name in ((7, "b"), (3, "a"), (5, "c"))
        ],
        "annotations": [
            {"image_id": 7, "caption": " one "},
            {"image_id": 7, "caption": "two"},
            {"image_id": 3, "caption": "three"},
            {"image_id": 5, "caption": None},
        ],
    }
    file = tmp_path / "captions.json"
    file.write_text(json.dumps(content))
    assert [(row.key, row.text) for row in rows_of(file)] == [
        ("3", "three"),
        ("5", ""),
        ("7", "one"),
    ]
    assert [row.key for row in rows_of(file, captions="all")] == ["3-0", "5-0", "7-0", "7-1"]
    assert rows_of(file)[0].image == tmp_path / "a.png"
    file.write_text('{"images": 3}')
    with pytest.raises(DatasetError, match="not a COCO caption file"):
        rows_of(file)


@pytest.mark.parametrize("column", ["image", "sdr", "struct"])
def test_parquet_with_bytes_paths_or_structs(tmp_path: Path, picture: bytes, column: str) -> None:
    (tmp_path / "a.png").write_bytes(picture)
    value: object = {"image": picture, "sdr": "a.png", "struct": {"bytes": picture, "path": None}}[column]
    name = "image" if column == "struct" else column
    table = pa.Table.from_pylist([{name: value, "text": f"caption {n}"} for n in range(7)])
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    rows = rows_of(tmp_path / "rows.parquet")
    assert [row.text for row in rows] == [f"caption {n}" for n in range(7)]
    assert rows[0].image == (tmp_path / "a.png" if column == "sdr" else picture)
    assert len({row.key for row in rows}) == 7


def test_tar_shards(tmp_path: Path, picture: bytes) -> None:
    with tarfile.open(tmp_path / "shard-0.tar", "w") as archive:
        for stem in ("x/0001", "x/0002"):
            add(archive, f"{stem}.png", picture)
            add(archive, f"{stem}.txt", stem.encode())
    rows = rows_of(tmp_path)
    assert [(row.key, row.text) for row in rows] == [
        ("shard-0/x/0001", "x/0001"),
        ("shard-0/x/0002", "x/0002"),
    ]
    assert rows[0].image == picture


def test_members_that_hold_words_are_read_as_words(tmp_path: Path, picture: bytes) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        add(archive, "a.png", picture)
        for name, data in (("a.key", b"k1"), ("a.encoding", b"log2"), ("a.log2_max", b"3")):
            add(archive, name, data)
    (row,) = rows_of(tmp_path / "s.tar")
    assert (row.key, row.coding.encoding, row.coding.log2_max) == ("k1", "log2", 3.0)


@pytest.mark.parametrize(
    "members, text",
    [
        ({"json": b'{"caption": "from json", "url": "u"}'}, "from json"),
        ({"json": b'{"caption": null, "text": ["", " two "]}'}, "two"),
        ({"json": b'{"captions": ["first", "second"]}'}, "first"),
        ({"json": b'{"caption": "from json"}', "txt": b"from txt"}, "from txt"),
        ({"json": b'{"caption": "from json"}', "txt": b" "}, "from json"),
        ({"json": b"[1, 2]"}, ""),
        ({"json": b"{cut", "txt": b"from txt"}, "from txt"),
        ({"txt": b" from txt\n"}, "from txt"),
    ],
)
def test_captions_of_tar_shards(tmp_path: Path, picture: bytes, members: dict[str, bytes], text: str) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        add(archive, "a.jpg", picture)
        for extension, data in members.items():
            add(archive, f"a.{extension}", data)
    (row,) = rows_of(tmp_path / "s.tar")
    assert row.text == text


@pytest.mark.parametrize("data", [b"{cut", b"\xff\xfe\xfa", b"[" * 100_000])
def test_a_caption_that_cannot_be_read_is_counted(tmp_path: Path, picture: bytes, data: bytes) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        add(archive, "a.jpg", picture)
        add(archive, "a.json", data)
    (found,) = rows_of(tmp_path / "s.tar")
    assert isinstance(found, Reject) and found.reason == "bad_metadata"


def test_unsafe_tar_members_are_rejects(tmp_path: Path, picture: bytes) -> None:
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as archive:
        for name in ("../escape.png", "/etc/passwd.png", "a/../../b.png"):
            add(archive, name, picture)
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        add(archive, "good.png", picture)
    found = rows_of(shard)
    assert [item.reason for item in found if isinstance(item, Reject)] == ["unsafe_member"] * 4
    assert [item.key for item in found if isinstance(item, Row)] == ["shard/good"]


def test_a_cut_tar_keeps_what_is_whole(tmp_path: Path, picture: bytes) -> None:
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as archive:
        add(archive, "a.png", picture)
        add(archive, "b.png", picture)
    shard.write_bytes(shard.read_bytes()[: len(picture) + 2000])
    found = rows_of(shard)
    assert isinstance(found[-1], Reject) and found[-1].reason == "damaged_shard"


def test_a_damaged_row_group_costs_its_own_rows(tmp_path: Path, picture: bytes) -> None:
    rows = [{"key": f"k{number}", "image": picture, "text": f"{number}"} for number in range(6)]
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=2, compression="zstd")
    second = pq.read_metadata(file).row_group(1)
    damaged = bytearray(file.read_bytes())
    for column in range(second.num_columns):
        chunk = second.column(column)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        damaged[start : start + chunk.total_compressed_size] = b"?" * chunk.total_compressed_size
    file.write_bytes(damaged)
    for size in (1, 3, 9):
        found = rows_of(file, size=size)
        assert reasons(found) == ["k0", "k1", "damaged_shard", "damaged_shard", "k4", "k5"]
        assert "rows.parquet, row group 1" in vars(found[2])["detail"]


def test_a_streamed_data_set(tmp_path: Path, picture: bytes, no_network: None) -> None:
    for shard in range(2):
        rows = [{"image": {"bytes": picture, "path": None}, "text": f"{shard}-{n}"} for n in range(3)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"train-{shard}.parquet")
    rows = rows_of(f"hf:{tmp_path}@train")
    assert [row.text for row in rows] == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    assert len({row.key for row in rows}) == 6


def test_a_stream_of_separate_picture_files(tmp_path: Path, picture: bytes, no_network: None) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.png").write_bytes(picture)
    (tmp_path / "train" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a lamp"}\n')
    (row,) = rows_of(f"hf:{tmp_path}")
    assert row.text == "a lamp" and read_bytes(row.image) == picture


@pytest.mark.parametrize(
    "image", [{"bytes": None, "path": "{secret}"}, "{secret}", "file://{secret}", "zip://a.png::{secret}"]
)
def test_a_stream_from_elsewhere_reads_no_file_of_this_machine(
    tmp_path: Path, picture: bytes, image: object
) -> None:
    (tmp_path / "secret.png").write_bytes(picture)
    named = json.loads(json.dumps(image).replace("{secret}", str(tmp_path / "secret.png")))
    (row,) = _hub_rows([{"image": named, "text": "x"}], "org/set:0", None, local=False)
    assert isinstance(row, Reject) and row.reason == "unsafe_path"


def test_a_stream_that_cannot_be_opened_is_named(tmp_path: Path, picture: bytes, no_network: None) -> None:
    pq.write_table(pa.Table.from_pylist([{"image": picture, "text": "x"}]), tmp_path / "train-0.parquet")
    with pytest.raises(DatasetError, match="hf:.*@nowhere"):
        rows_of(f"hf:{tmp_path}@nowhere")


def test_bad_lines_of_metadata_cost_captions_not_the_run(tmp_path: Path, picture: bytes) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(picture)
    lines = ['{"file_name": "a.png", "text": null}', "{cut", "[1]", '{"file_name": "b.png", "text": "b"}']
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert [row.text for row in rows_of(tmp_path)] == ["", "b"]


@pytest.mark.parametrize("limit", [1, 3, 4, 100])
def test_a_limit_takes_the_first_rows(photos: Path, limit: int) -> None:
    assert [row.key for row in rows_of(photos, limit=limit)] == [row.key for row in rows_of(photos)][:limit]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_a_limit_goes_on_behind_the_first_stream(tmp_path: Path, picture: bytes, limit: int) -> None:
    for shard in range(3):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as archive:
            for name in "ab":
                add(archive, f"{name}.png", picture)
    found = reasons(rows_of(tmp_path, limit=limit))
    assert found == ["0/a", "0/b", "1/a", "1/b", "2/a", "2/b"][:limit]


def test_sources_that_do_not_exist_are_named(tmp_path: Path) -> None:
    for source in (tmp_path / "none", tmp_path):
        with pytest.raises(DatasetError, match=tmp_path.name):
            rows_of(source)
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(DatasetError, match="no known kind"):
        rows_of(tmp_path / "a.csv")
    (tmp_path / "bad.parquet").write_text("nothing")
    with pytest.raises(DatasetError, match="not a readable parquet"):
        rows_of(tmp_path / "bad.parquet")


def reasons(rows: Sequence[Row | Reject]) -> list[str]:
    return [item.reason if isinstance(item, Reject) else item.key for item in rows]


def test_a_key_that_comes_twice_is_a_reject_however_the_source_is_cut(tmp_path: Path, picture: bytes) -> None:
    rows = [{"id": key, "image": picture, "text": "x"} for key in ("a", "b", None, "", "a", "c")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=2)
    images = [{"id": 1, "file_name": f"{n}.png"} for n in range(3)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": []}))
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for stem in ("x", "y", "x"):
            add(archive, f"{stem}.png", picture)
    for size in (1, 2, 3, 9):
        parquet = rows_of(tmp_path / "rows.parquet", size=size)
        assert reasons(parquet) == ["a", "b", "rows:2", "rows:3", "duplicate_key", "c"]
        assert parquet[4].key == "a"
        coco = rows_of(tmp_path / "coco.json", size=size)
        assert reasons(coco) == ["1", "duplicate_key", "duplicate_key"]
        assert reasons(rows_of(tmp_path / "s.tar", size=size)) == ["s/x", "s/y", "duplicate_key"]


def test_files_of_one_name_in_two_folders_share_no_key(tmp_path: Path, picture: bytes) -> None:
    for folder in ("train", "val"):
        (tmp_path / "tar" / folder).mkdir(parents=True)
        (tmp_path / "parquet" / folder).mkdir(parents=True)
        table = pa.Table.from_pylist([{"image": picture, "text": "x"}])
        pq.write_table(table, tmp_path / "parquet" / folder / "0.parquet")
        with tarfile.open(tmp_path / "tar" / folder / "0.tar", "w") as archive:
            add(archive, "a.png", picture)
    assert reasons(rows_of(tmp_path / "parquet")) == ["train/0:0", "val/0:0"]
    assert reasons(rows_of(tmp_path / "tar")) == ["train/0/a", "val/0/a"]


@pytest.mark.parametrize(
    "columns, reason",
    [
        ({"text": "no picture"}, "missing_image"),
        ({"image": b""}, "missing_image"),
        ({"image": b"x", "qmax": 0.0}, "bad_metadata"),
        ({"image": b"x", "qmax": -9.0}, "bad_metadata"),
        ({"image": b"x", "qmax": float("inf")}, "bad_metadata"),
        ({"image": b"x", "encoding": "cubic"}, "bad_metadata"),
    ],
)
def test_bad_rows_are_rejects(tmp_path: Path, columns: dict[str, object], reason: str) -> None:
    pq.write_table(pa.Table.from_pylist([columns]), tmp_path / "rows.parquet")
    (found,) = rows_of(tmp_path / "rows.parquet")
    assert isinstance(found, Reject) and found.reason == reason
