"""Every shipped workflow runs in the real executor, and its UI form is the same graph."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
SAMPLES = Path(__file__).resolve().parents[2] / "scripts/assets"
NAMES = sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json"))
NOTES = {"Note", "MarkdownNote"}


def graph(name: str) -> dict:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())


def ui(name: str) -> dict:
    return json.loads((WORKFLOWS / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def inputs(host, models) -> None:
    """The files the workflows name: samples of the pack, and others that are small and random."""
    for name in ("rocket.jpg", "rocket_gain_map.png"):
        shutil.copy(SAMPLES / name, host.base / "input")
    values = np.random.default_rng(0).integers(0, 256, (70, 101, 4), dtype=np.uint8)
    Image.fromarray(values).save(host.base / "input/example.png")
    exr = host.module("gm_core.codecs.exr").encode_exr(values[..., :3].astype(np.float32) / 25)
    (host.base / "input/example.exr").write_bytes(exr)
    write_film(host.base / "input/video.mp4", values[:64, :96, :3])
    models.accept_tiny_checkpoints()
    models.write_checkpoint(host.base / "models/checkpoints/v1-5-pruned-emaonly-fp16.safetensors")
    control = host.base / "models/controlnet/control_v11p_sd15_canny_fp16.safetensors"
    models.save(models.control_net(), control)


def write_film(path: Path, picture: np.ndarray) -> None:
    """Two equal SDR frames, 8 bits."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def quick(name: str) -> dict:
    """The workflow with fewer steps and a smaller canvas."""
    changes = {"steps": 2, "width": 64, "height": 64}
    api = graph(name)
    for node in api.values():
        node["inputs"] |= {key: value for key, value in changes.items() if node["inputs"].get(key)}
    return api


@pytest.mark.parametrize("name", NAMES)
def test_runs(host, inputs, name) -> None:
    shown = host.run(quick(name))
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


@pytest.mark.parametrize("name", NAMES)
def test_ui_form_can_be_read_when_it_opens(name) -> None:
    """Newer pages fit a template into the window, and draw no text below 57 %: 2,100 at 1600 pixels."""
    nodes = [(*node["pos"], *node["size"]) for node in ui(name)["nodes"]]
    assert max(x + width for x, _, width, _ in nodes) - min(x for x, *_ in nodes) <= 2100
    title = 30
    for number, (x, y, width, height) in enumerate(nodes):
        for left, top, wide, high in nodes[number + 1 :]:
            apart = x + width <= left or left + wide <= x
            assert apart or y + height <= top - title or top + high <= y - title


def test_every_ui_form_has_an_api_twin() -> None:
    assert sorted(path.stem for path in WORKFLOWS.glob("*.json")) == NAMES


def test_sdr_to_hdr_makes_every_file(host, inputs) -> None:
    shown = host.run(graph("sdr_to_hdr"))
    saved = {Path(f["filename"]).suffix for r in shown.values() for f in r["images"] if f["type"] == "output"}
    assert saved == {".jpg", ".exr", ".hdr", ".png"}
    assert host.value("5").shape == (1, 70, 101, 3) and host.value("5").max() > 1


def test_recombine_makes_the_lamps_of_its_sample_bright_and_leaves_the_sky(host, inputs) -> None:
    host.run(graph("recombine"))
    gain_map = host.value("3", 1)
    stops = (1 + 3 * gain_map).log2().amax(-1)
    assert 1.5 < stops.max() < 2 and stops.median() < 0.5
    assert 2 < host.value("3").max() < 4


def test_video_to_hdr_keeps_rate_and_frames(host, inputs) -> None:
    shown = host.run(graph("video_to_hdr"))
    saved = shown["7"]["images"][0]
    with av.open(str(host.base / "output" / saved["subfolder"] / saved["filename"])) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.average_rate, stream.codec_context.color_trc) == (2, 24, 16)
