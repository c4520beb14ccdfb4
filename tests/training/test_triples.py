"""The triple builder: whatever happens, every usable picture is there exactly once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gm_core.codecs.radiance import encode_radiance
from gm_core.color import convert_primaries
from gm_core.gain_map import GainMapSpec, merge_hdr
from gm_core.model_info import GainMapModelInfo
from gm_core.tonemap import analytic_gain_map
from training.base_model import load_vae
from training.cli import main
from training.data.decode import decode_gain_map, decode_sdr
from training.data.shards import ShardFolder
from training.data.sources import list_units
from training.data.table import open_table
from training.errors import DatasetError
from training.gain_sources import open_gain_source
from training.pictures import from_image
from training.session import make_accelerator
from training.stage1.adapter import install_adapter, save_adapter
from training.triples import Builder, run

Configure = Callable[..., Any]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("triples-*.parquet")}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(sorted(folder.glob("*.parquet"))).to_pylist()


def test_the_shards_hold_what_the_paper_needs_and_more(triples: Path, photos: Path) -> None:
    rows = rows_of(triples)
    assert [row["key"] for row in rows] == [f"photo_{n:03d}.png" for n in range(6)]
    row = rows[2]
    assert row["image"] == (photos / "photo_002.png").read_bytes()
    assert row["text"] == "a lamp at night 2" and row["qmax"] == 99.0 and row["eps"] == 1 / 64
    assert row["generator"].startswith("gm-hdr triples") and row["gamut"] == "bt2020"
    assert json.loads((triples / "_SUCCESS").read_text()) == {"rejects": {}, "rows": 6, "shards": 3}


def test_the_analytic_map_is_the_closed_form_in_16_bits(triples: Path) -> None:
    row = rows_of(triples)[0]
    sdr = torch.nn.functional.interpolate(
        from_image(decode_sdr(row["image"])), size=(85, 64), mode="bilinear", antialias=True
    )
    expected = analytic_gain_map(sdr, spec=GainMapSpec())[0].movedim(0, -1).numpy()
    found = decode_gain_map(row["gainmap"])
    assert found.shape == expected.shape
    # Resizing rounds to 8 bits in one of the two.
    assert np.abs(found - expected).mean() < 5e-3


def test_another_run_changes_nothing(
    configure: Configure, photos: Path, triples: Path, tmp_path: Path
) -> None:
    shutil.copytree(triples, tmp_path / "again")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "again").glob("triples-*")}
    run(configure("triples", output_dir=tmp_path / "again", source=[photos], gain_source="analytic", seed=7))
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "again").glob("triples-*")}


def test_killed_and_restarted_gives_the_same_bytes(
    configure: Configure, photos: Path, triples: Path, tmp_path: Path
) -> None:
    config = configure("triples", output_dir=tmp_path / "set", source=[photos], gain_source="analytic")
    original = Builder.build

    def build(self: Any, index: int, *rest: Any) -> int:
        if index == killed_at:
            raise KeyboardInterrupt
        return original(self, index, *rest)

    for killed_at in (1, 2):  # noqa: B007 - read by build
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Builder, "build", build)
            run(config)
        assert not (tmp_path / "set" / "_SUCCESS").exists()
    run(config)
    assert contents(tmp_path / "set") == contents(triples)


def test_a_run_beside_another_neither_fails_nor_doubles_a_row(
    configure: Configure, photos: Path, triples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("triples", output_dir=tmp_path / "set", source=[photos], gain_source="analytic")
    original, built = Builder._judge, []

    def judge(self: Any, *rest: Any) -> None:
        built.append(self)
        if len(built) == 1:
            run(config)
        original(self, *rest)

    monkeypatch.setattr(Builder, "_judge", judge)
    run(config)
    assert contents(tmp_path / "set") == contents(triples) and len(built) == 4
    assert (tmp_path / "set" / "_SUCCESS").is_file()


def test_a_different_recipe_is_not_mixed_in(
    configure: Configure, photos: Path, triples: Path, tmp_path: Path
) -> None:
    shutil.copytree(triples, tmp_path / "set")
    with pytest.raises(DatasetError, match="made differently .*qmax"):
        run(
            configure(
                "triples", output_dir=tmp_path / "set", source=[photos], gain_source="analytic", qmax=49.0
            )
        )


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("dataset.json", "{", "dataset.json is not readable as JSON .*another output_dir"),
        ("dataset.json", "[1]", "dataset.json holds a JSON list.*another output_dir"),
        ("rejects/triples-000000.jsonl", "{", "delete it and triples-000000.parquet, and run triples again"),
        ("rejects/triples-000000.jsonl", '{"key": 1}', "no list of rejects .*reason"),
    ],
)
def test_a_damaged_record_of_triples_is_named_with_its_remedy(
    configure: Configure, photos: Path, tmp_path: Path, file: str, content: str, message: str
) -> None:
    config = configure("triples", output_dir=tmp_path, source=[photos], gain_source="analytic", max_samples=1)
    run(config)
    (tmp_path / file).write_text(content)
    with pytest.raises(DatasetError, match=message):
        run(config)


def test_rejects_are_logged_with_reasons(configure: Configure, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "bad.png").write_bytes(b"nothing")
    (tmp_path / "photos" / "cut.png").write_bytes((photos / "photo_001.png").read_bytes()[:300])
    run(
        configure(
            "triples", output_dir=tmp_path / "set", source=[tmp_path / "photos"], gain_source="analytic"
        )
    )
    assert json.loads((tmp_path / "set" / "_SUCCESS").read_text())["rejects"] == {"unreadable_image": 2}
    lines = [
        json.loads(line)
        for path in sorted((tmp_path / "set" / "rejects").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert [line["key"] for line in lines] == ["bad.png", "cut.png"]
    assert len(rows_of(tmp_path / "set")) == 6


def test_a_picture_named_twice_is_there_once_and_counted(
    configure: Configure, photos: Path, tmp_path: Path
) -> None:
    names = ["photo_000.png", "photo_001.png", "photo_002.png", "photo_000.png", "photo_003.png"]
    rows = [{"key": name, "image": (photos / name).read_bytes(), "text": name} for name in names]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    config = configure(
        "triples", output_dir=tmp_path / "set", source=[tmp_path / "rows.parquet"], gain_source="analytic"
    )
    run(config)
    whole = contents(tmp_path / "set")
    assert [row["key"] for row in rows_of(tmp_path / "set")] == [names[0], names[1], names[2], names[4]]
    assert json.loads((tmp_path / "set" / "_SUCCESS").read_text())["rejects"] == {"duplicate_key": 1}
    # The shard with the second mention alone, as another process or a later run builds it.
    (tmp_path / "set" / "triples-000001.parquet").unlink()
    run(config)
    assert contents(tmp_path / "set") == whole


def test_a_set_of_paths_is_read_from_every_folder(
    configure: Configure, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(photos, tmp_path / "here" / "photos")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run(
        configure("triples", output_dir="set", source=["photos"], gain_source="analytic", store_images="path")
    )
    monkeypatch.chdir(tmp_path / "there")
    assert main(["validate", "--source", "../here/set", "--expect", "triples", "--output_dir", "report"]) == 0


def test_paths_of_pictures_that_are_no_files_are_refused(
    configure: Configure, photos: Path, tmp_path: Path
) -> None:
    rows = [{"key": "k", "image": (photos / "photo_000.png").read_bytes(), "text": "x"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    common = {"gain_source": "analytic", "store_images": "path", "output_dir": tmp_path / "set"}
    with pytest.raises(DatasetError, match=r"store_images is path, but row k of rows\.parquet"):
        run(configure("triples", source=[tmp_path / "rows.parquet"], **common))
    assert not contents(tmp_path / "set")


def test_names_and_captions_of_half_characters_are_kept_as_far_as_they_can_be(
    configure: Configure, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "odd\udce9"
    folder.mkdir()
    for name in ("a.png", "caf\udce9.png"):
        shutil.copy(photos / "photo_000.png", folder / name)
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "half \ud83d"}))
    run(configure("triples", output_dir=tmp_path / "set", source=[folder], gain_source="analytic"))
    rows = rows_of(tmp_path / "set")
    assert [(row["key"], row["text"]) for row in rows] == [("a.png", "half ?"), ("caf\\udce9.png", "")]


def test_a_path_of_half_characters_cannot_be_stored_and_is_a_reject(
    configure: Configure, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copy(photos / "photo_000.png", tmp_path / "photos" / "caf\udce9.png")
    common = {"gain_source": "analytic", "store_images": "path", "source": [tmp_path / "photos"]}
    run(configure("triples", output_dir=tmp_path / "set", **common))
    report = json.loads((tmp_path / "set" / "_SUCCESS").read_text())
    assert (report["rows"], report["rejects"]) == (6, {"bad_metadata": 1})


def test_a_set_of_rejects_fails(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.png").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="unreadable_image 1"):
        run(
            configure(
                "triples", output_dir=tmp_path / "set", source=[tmp_path / "photos"], gain_source="analytic"
            )
        )


def test_the_share_of_rejects_is_that_of_the_set_not_of_one_process(
    configure: Configure, tmp_path: Path
) -> None:
    rows = [{"image": b"nothing", "text": "x"}] * 200
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    config = configure(
        "triples",
        output_dir=tmp_path / "set",
        source=[tmp_path / "rows.parquet"],
        gain_source="analytic",
        rows_per_shard=200,
        max_reject_fraction=0.5,
    )
    units = list_units(config.source, rows_per_unit=200, image_root=None, captions="first")
    source, output = open_gain_source(config, make_accelerator("no")), ShardFolder(tmp_path / "set", {})
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(DatasetError, match="200 of 200 rows are unusable"):
            Builder(config, source, output).build(1, units[0], pool)
        # What another process wrote: as many good rows.
        pq.write_table(pa.table({"key": ["k"] * 200}), output.shard(0))
        Builder(config, source, output).build(1, units[0], pool)
    assert output.is_done(1)


def test_the_vae_makes_maps_for_every_size(
    configure: Configure, base: Path, photos: Path, tmp_path: Path
) -> None:
    config = configure(
        "triples",
        output_dir=tmp_path / "set",
        source=[photos],
        pretrained_model_name_or_path=base,
        gain_encoding="log2",
        gain_map_bits=8,
        store_images="path",
    )
    run(config)
    rows = rows_of(tmp_path / "set")
    assert [decode_gain_map(row["gainmap"]).shape[:2] for row in rows[:2]] == [(85, 64), (64, 85)]
    assert rows[0]["encoding"] == "log2" and rows[0]["sdr"] == str(photos / "photo_000.png")
    table = open_table([str(tmp_path / "set")], cache_dir=str(tmp_path / "c"), image_root=None, limit=None)
    assert len(table) == 6 and table[0].coding.encoding == "log2"  # type: ignore[union-attr]


def test_maps_of_the_vae_keep_their_hdr_in_another_coding_and_qmax(
    configure: Configure, base: Path, photos: Path, tmp_path: Path
) -> None:
    vae = install_adapter(load_vae(str(base)), 2)
    named = {name: p for name, p in vae.named_parameters() if p.requires_grad}
    learned = GainMapModelInfo(spec=GainMapSpec(qmax=49.0))
    save_adapter(named, tmp_path / "vae_adapter", learned)

    def gains(name: str, **changes: Any) -> torch.Tensor:
        config = configure(
            "triples",
            output_dir=tmp_path / name,
            source=[photos],
            max_samples=1,
            pretrained_model_name_or_path=base,
            vae_adapter=tmp_path / "vae_adapter",
            **changes,
        )
        run(config)
        (row,) = rows_of(tmp_path / name)
        coded = torch.from_numpy(decode_gain_map(row["gainmap"]))
        return 1 + config.qmax * config.coding.to_gain_map(coded, spec=config.spec)

    same = gains("same", qmax=49.0)
    other = gains("other", qmax=99.0, gain_encoding="log2")
    assert same.min() > 2
    torch.testing.assert_close(other, same, rtol=2e-3, atol=0)


def test_ground_truth_maps_give_the_ground_truth_back(
    configure: Configure, photos: Path, tmp_path: Path
) -> None:
    spec = GainMapSpec(qmax=15.0)
    (tmp_path / "photos").mkdir()
    shutil.copy(photos / "photo_000.png", tmp_path / "photos" / "a.png")
    sdr = from_image(decode_sdr((photos / "photo_000.png").read_bytes()))
    hdr = merge_hdr(sdr=sdr, gain_map=torch.full_like(sdr, 0.2), spec=spec)
    (tmp_path / "photos" / "a.hdr").write_bytes(encode_radiance(hdr[0].movedim(0, -1).numpy()))
    config = configure(
        "triples",
        output_dir=tmp_path / "set",
        source=[tmp_path / "photos"],
        gain_source="hdr",
        qmax=15.0,
        resolution=512,
        gain_encoding="log2",
        gain_log2_min=-3.0,
    )
    run(config)
    (row,) = rows_of(tmp_path / "set")
    coded = torch.from_numpy(decode_gain_map(row["gainmap"])).movedim(-1, 0)[None]
    found = merge_hdr(sdr=sdr, gain_map=config.coding.to_gain_map(coded, spec=spec), spec=spec)
    expected = convert_primaries(hdr, "bt709", "bt2020")
    gain = (expected + spec.offset) / (sdr**spec.gamma + spec.offset)
    stops = ((found + spec.offset) / (expected + spec.offset)).log2().abs()[gain <= 1 + spec.qmax]
    # Radiance stores 8 bits and one exponent for three channels.
    assert stops.mean() < 0.03 and stops.max() < 0.3
