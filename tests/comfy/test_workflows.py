"""Every shipped workflow runs in the real executor, and its UI form is the same graph."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
NAMES = sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json"))
NOTES = {"Note", "MarkdownNote"}


def graph(name: str) -> dict:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())


def ui(name: str) -> dict:
    return json.loads((WORKFLOWS / f"{name}.json").read_text())


def photo(path: Path, height: int = 70, width: int = 101) -> None:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


@pytest.mark.parametrize("name", NAMES)
def test_runs(host, name) -> None:
    photo(host.base / "input/example.png")
    shown = host.run(graph(name))
    files = [file for result in shown.values() for file in result.get("images", ())]
    assert files
    for file in files:
        assert (host.base / file["type"] / file["subfolder"] / file["filename"]).stat().st_size > 0


@pytest.mark.parametrize("name", NAMES)
def test_ui_form_has_the_same_nodes_and_links(name) -> None:
    nodes, api = ui(name)["nodes"], graph(name)
    assert Counter(n["type"] for n in nodes if n["type"] not in NOTES) == Counter(
        node["class_type"] for node in api.values()
    )
    links = [value for node in api.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert len(ui(name)["links"]) == len(links)


@pytest.mark.parametrize("name", NAMES)
def test_ui_form_explains_itself(name) -> None:
    assert any(node["type"] in NOTES for node in ui(name)["nodes"])
    assert Image.open(WORKFLOWS / f"{name}.jpg").format == "JPEG"


def test_every_ui_form_has_an_api_twin() -> None:
    assert sorted(path.stem for path in WORKFLOWS.glob("*.json")) == NAMES


def test_sdr_to_hdr_makes_every_file(host) -> None:
    photo(host.base / "input/example.png")
    shown = host.run(graph("sdr_to_hdr"))
    saved = {Path(f["filename"]).suffix for r in shown.values() for f in r["images"] if f["type"] == "output"}
    assert saved == {".jpg", ".exr", ".hdr", ".png"}
    assert host.value("5").shape == (1, 70, 101, 3) and host.value("5").max() > 1
