"""Other nodes may add entries to a workflow: no saver loses its picture over one, nor its own entries."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from tests.comfy.pictures import PROMPT, WORKFLOW, hdr_picture
from tests.marks import writes_avif

SAVERS = (
    *("GMHDRSaveEXR", "GMHDRSaveUltraHDR", "GMHDRSaveGainMap", "GMHDRSavePNG", "GMHDRSaveJXL"),
    *("GMHDRSaveVideo", pytest.param("GMHDRSaveAVIF", marks=writes_avif)),
)
OPENEXR_NAMES = ("version", "type", "name", "tiles", "view", "adoptedNeutral", "originalDataWindow")
ODD_NAMES = ("", "x" * 80, "x" * 300, "日本", "ä" * 128, "\ud800", "a\0b", "a\nb")


@pytest.fixture
def with_entries(hidden):
    """Prompt and workflow as the executor hands them to a saver, and further entries."""

    def add(entries: dict) -> dict:
        prompt, extra = hidden
        return {prompt: PROMPT, extra: {"workflow": WORKFLOW, **entries}}

    return add


def picture():
    return hdr_picture(height=64, width=64, peak=1.0)


@pytest.mark.parametrize("node_id", SAVERS)
def test_no_picture_is_lost_over_the_name_of_an_entry(save, with_entries, node_id) -> None:
    entries = dict.fromkeys((*OPENEXR_NAMES, *ODD_NAMES), "v")
    (path,), _ = save(node_id, picture(), hidden=with_entries(entries))
    assert b'{"nodes": []}' in path.read_bytes() and b"class_type" in path.read_bytes()


@pytest.mark.parametrize("node_id", SAVERS)
def test_no_picture_is_lost_over_many_entries(save, with_entries, node_id) -> None:
    entries = {f"other{number}": f"value{number}" for number in range(20)}
    (path,), _ = save(node_id, picture(), hidden=with_entries(entries))
    assert all(json.dumps(value).encode() in path.read_bytes() for value in entries.values())


def test_an_entry_that_is_left_out_is_logged(save, with_entries, caplog) -> None:
    entries = {"version": 1, "no JSON": object()}
    (path,), _ = save("GMHDRSaveEXR", picture(), hidden=with_entries(entries))
    assert path.is_file()
    assert [name for name in entries if f"{name!r} is left out of the file" not in caplog.text] == []


@pytest.mark.parametrize("encoding", ["log2", "linear"])
def test_entries_of_others_do_not_change_how_a_gain_map_is_read(host, save, with_entries, encoding) -> None:
    others = {"gmhdr.qmax": 7.0, "gmhdr.log2_max": 1.0, "gmhdr.gamut": "xyz"}
    options = {"hidden": with_entries(others), "qmax": 49.0, "encoding": encoding}
    (path,), _ = save("GMHDRSaveGainMap", picture(), **options)
    info = host.module("gm_core.model_info").GainMapModelInfo.from_metadata(Image.open(path).text)
    assert (info.spec.qmax, info.coding.encoding) == (49.0, encoding)


def test_the_prompt_in_a_file_is_the_one_that_made_it(save, with_entries) -> None:
    (path,), _ = save("GMHDRSavePNG", picture(), hidden=with_entries({"prompt": "another"}))
    assert json.loads(Image.open(path).text["prompt"]) == PROMPT
