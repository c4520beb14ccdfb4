"""The recipe of the built-in model on panoramas made up here: data laws, and all steps end to end."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from gm_core.color import srgb_to_linear
from gm_core.gain_coding import GainCoding
from gm_core.gain_map import GainMapSpec
from training.builtin import (
    cache,
    drawings,
    evaluate,
    films,
    latents,
    objective,
    rendering,
    samples,
    tone_curves,
    train_highlights,
    train_tints,
    train_tone,
    validation,
)
from training.builtin import sheet as draw_sheet
from training.builtin.autoencoder import TinyAutoencoder
from training.builtin.expansion import bt2446_a
from training.builtin.panoramas import View, load_panorama, render_view
from training.builtin.pipeline import BuiltinModel
from training.builtin.pool import LatentPool
from training.builtin.samples import load_photo
from training.builtin.validation_renderings import GAIN_MAPS, PHONES, gain_mapped_pictures, phone_pictures
from training.errors import DatasetError

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "training" / "recipes" / "builtin_model.sh"
RENDERINGS = ["clip", "log", "curve", "camera", "smooth", "phone", "gain map"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with one panorama (gradient sky, a lamp 50 times as bright) and random TAESD weights."""
    root = tmp_path_factory.mktemp("builtin")
    rows = np.linspace(1.0, 0.1, 64, dtype=np.float32)[:, None, None]
    panorama = np.broadcast_to(rows * np.float32([0.5, 0.7, 1.0]), (64, 128, 3)).copy()
    panorama[28:34, 60:68] = 50.0
    cv2.imwrite(str(root / "sky.hdr"), panorama)
    torch.manual_seed(0)
    autoencoder = TinyAutoencoder()
    for name in ("encoder", "decoder"):
        save_file(getattr(autoencoder, name).state_dict(), root / f"taesd_{name}.safetensors")
    return root


def test_a_view_looks_where_it_points():
    panorama = np.zeros((64, 128, 3), np.float32)
    panorama[16:18, 96:98] = 1.0  # a quarter turn to the right, 45 degrees up
    crop = render_view(panorama, View(yaw=90, pitch=45, roll=0, fov=60), 33, 33)
    assert crop[..., 0].max() > 0.3
    assert np.abs(np.argwhere(crop[..., 0] > 0.3).mean(axis=0) - 16).max() < 2


@pytest.mark.parametrize(
    "make_curve", [*(curve for _, curve in tone_curves.CURVES), tone_curves.shoulder_curve]
)
@given(seed=st.integers(0, 10_000))
def test_every_camera_curve_rises_and_stays_in_range(make_curve, seed):
    rng = np.random.default_rng(seed)
    hdr = np.exp(rng.normal(-1, 2, (8, 8, 3))).astype(np.float32)
    light = np.geomspace(1e-4, 100, 200)
    codes = make_curve(rng, hdr)(light)
    assert (np.diff(codes) >= -1e-9).all()
    assert codes.min() >= 0 and codes.max() <= 1 + 1e-9


@given(seed=st.integers(0, 10_000))
def test_a_gain_that_rises_evenly_leaves_some_contrast_everywhere(seed):
    rng = np.random.default_rng(seed)
    stops = np.linspace(-12, 6, 200)
    toned = np.log2(tone_curves.even_rise(rng, 2 ** rng.normal(-1, 2, (8, 8, 3)))(2**stops))
    slope = np.diff(toned) / np.diff(stops)
    assert slope.min() > 0.99 - tone_curves.STEEPEST and slope.max() < 1.01


@given(stops=st.floats(-4, 4))
def test_target_undoes_the_camera_and_forgets_the_exposure(stops):
    """Black included, which a gain in stops alone would not leave black."""
    hdr = np.random.default_rng(3).uniform(0.05, 4, (16, 16, 3)).astype(np.float32)
    hdr[:4] = 0
    sdr = (np.log1p(50 * hdr) / np.log1p(200)).astype(np.float32)
    anchored = rendering.anchor_midtones(sdr, hdr * np.float32(2**stops))
    rebuilt = (sdr**2.2 + 1 / 64) * np.exp2(rendering.log_gain(sdr, anchored)) - 1 / 64
    np.testing.assert_allclose(rebuilt, hdr * (rebuilt.mean() / hdr.mean()), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(anchored, rendering.anchor_midtones(sdr, hdr), rtol=1e-3)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_a_drawing_is_a_picture_with_something_on_it(seed):
    drawn = drawings.drawing(np.random.default_rng(seed), 64)
    assert drawn.shape == (64, 64, 3) and drawn.dtype == np.float32
    assert 0 <= drawn.min() and drawn.max() <= 1


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_a_printed_sheet_shines_no_brighter_than_the_light_on_it(seed):
    scene = np.full((48, 48, 3), 0.5, np.float32)
    printed = drawings.printed(np.random.default_rng(seed), scene)
    assert not np.array_equal(printed, scene)
    assert printed.min() >= 0 and printed.max() <= 0.5 * 0.9 * 2**0.5 + 1e-4


@given(seed=st.integers(0, 10_000))
def test_a_phone_shows_any_scene_in_its_own_range_and_saves_a_picture(seed):
    rng = np.random.default_rng(seed)
    scene = np.repeat(np.geomspace(1e-3, 100, 64, dtype=np.float32)[:, None, None], 3, axis=2)
    hdr = rendering.graded(rng, np.repeat(scene, 8, axis=1))
    assert hdr.min() >= 0 and hdr.max() <= 8
    sdr = rendering.phone_sdr(rng, hdr)
    assert sdr.shape == hdr.shape and 0 <= sdr.min() and sdr.max() <= 1


@given(seed=st.integers(0, 10_000))
def test_a_grey_gain_map_keeps_hues(seed):
    rng = np.random.default_rng(seed)
    hdr = np.exp(rng.normal(-1, 2, (16, 16, 3))).astype(np.float32)
    gain = hdr / rendering.gain_mapped(rng, hdr)
    np.testing.assert_allclose(gain, gain[..., :1].repeat(3, axis=-1), rtol=1e-4)
    assert gain.min() > 0 and gain.max() > gain.min()


def test_coding_is_that_of_gm_core():
    stops = np.linspace(samples.LOG2_MIN, samples.LOG2_MAX, 50, dtype=np.float32)
    spec = GainMapSpec(qmax=2**samples.LOG2_MAX - 1)
    coding = GainCoding(encoding="log2", log2_min=samples.LOG2_MIN, log2_max=samples.LOG2_MAX)
    gain_map = torch.from_numpy((np.exp2(stops) - 1) / spec.qmax)
    assert torch.allclose(
        coding.from_gain_map(gain_map, spec=spec), torch.from_numpy(samples.code_gain(stops)), atol=1e-5
    )


def test_a_sample_depends_on_its_number_alone(folder):
    scenes = samples.Scenes([folder / "sky.hdr"], [])
    first, again = (samples.make_sample(cache.sample_rng(1, 2, 3), scenes) for _ in range(2))
    other = samples.make_sample(cache.sample_rng(1, 2, 4), scenes)
    assert np.array_equal(first.sdr, again.sdr) and np.array_equal(first.coded, again.coded)
    assert not np.array_equal(first.sdr, other.sdr)


@given(stops=st.floats(-1, 1), seed=st.integers(0, 100))
def test_picture_error_forgives_exposure_and_nothing_else(stops, seed):
    generator = torch.Generator().manual_seed(seed)
    sdr, hdr = (torch.rand(1, 3, 16, 16, generator=generator) for _ in range(2))
    gain = lambda light: torch.log2((light + objective.OFFSET) / (sdr**2.2 + objective.OFFSET))  # noqa: E731
    scale, exact = objective.PerceptualScale(), 10 * math.log10(objective.PU_FLOOR**2)
    brighter = objective.picture_error(scale, sdr, gain(hdr * 2**stops), gain(hdr))
    assert brighter < exact + 1
    contrastier = objective.picture_error(scale, sdr, gain(hdr ** (1 + abs(stops))), gain(hdr))
    assert abs(stops) < 0.3 or contrastier > exact + 3


def test_recipe_runs_from_panorama_to_hdr(folder, tmp_path):
    sizes = {"SHARDS": "1", "SHARD_SIZE": "4", "DECODER_STEPS": "2"}
    timed = ("UNET", "TONE", "PHONES", "HIGHLIGHTS", "TINTS", "AUTOENCODER")
    times = {f"MINUTES_{part}": "0.001" for part in timed}
    subprocess.run(
        ["sh", RECIPE, folder, tmp_path / "no photos", folder, tmp_path],
        cwd=ROOT,
        env=os.environ | sizes | times | {"PYTHON": sys.executable},
        check=True,
    )
    model = BuiltinModel.load(tmp_path / "weights")
    assert model.tone_net is not None
    assert None not in (model.tone_net.phones, model.tone_net.highlights, model.tone_net.tints)
    hdr = model(torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(0)))
    assert hdr.shape == (1, 3, 70, 90)
    assert torch.isfinite(hdr).all() and hdr.min() >= 0 and hdr.max() <= 33
    figures, sheet = tmp_path / "figures.json", tmp_path / "sheet.png"
    files = ["--panoramas", str(folder), "--weights", str(tmp_path / "weights"), "--views", "1"]
    evaluate.main([*files, "--output", str(figures)])
    scored = {(row["method"], row["rendering"]) for row in json.loads(figures.read_text())}
    assert len(scored) == 3 * len(RENDERINGS)
    draw_sheet.main([*files, "--size", "32", "--output", str(sheet)])
    assert cv2.imread(str(sheet)).shape == (2 * 32, 9 * 32, 3)
    pictures = tmp_path / "ordinary"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "wide.png"), np.full((40, 70, 3), 128, np.uint8))
    draw_sheet.main(["--pictures", str(pictures), *files[2:4], "--size", "32", "--output", str(sheet)])
    assert cv2.imread(str(sheet)).shape == (32, 6 * 32, 3)


def test_the_shipped_model_flickers_less_where_frames_share_their_tones(folder):
    frames = films.pan(load_panorama(folder / "sky.hdr"), "clip", frames=12, size=128)
    alone, film = films.flicker_of_both(BuiltinModel.load(ROOT / "weights"), frames)
    assert film < alone / 2


def test_the_standard_s_expansion_is_undone_by_the_standard_s_tone_mapping():
    """ITU-R BT.2446-1, section 4: method A from 1,000 to 100 cd/m2, on the luma of a grey."""
    grey = torch.linspace(0, 1, 257)
    hdr = bt2446_a(grey.expand(1, 3, 1, -1))[0, 0, 0]
    perceived = torch.log1p(12.2598 * (hdr / 10) ** (1 / 2.4)) / math.log(13.2598)
    middle = -1.1510 * perceived**2 + 2.7811 * perceived - 0.6302
    compressed = torch.where(perceived < 0.7399, 1.0770 * perceived, middle)
    compressed = torch.where(perceived < 0.9909, compressed, 0.5 * perceived + 0.5)
    luma = (5.6970**compressed - 1) / 4.6970
    torch.testing.assert_close(luma**2.4, srgb_to_linear(grey), atol=2e-3, rtol=2e-3)
    assert hdr[0] == 0 and hdr[-1] == pytest.approx(10, rel=1e-3)


def test_every_validation_camera_shows_a_view(folder):
    cases = list(validation.validation_cases([folder / "sky.hdr"], size=64, views=4))
    assert [case.rendering for case in cases] == RENDERINGS * 4
    white = {name: [] for name in RENDERINGS}
    for case in cases:
        assert case.sdr.min() >= 0 and case.sdr.max() <= 1 and case.truth.min() >= 0
        white[case.rendering].append(float((case.sdr.amax(dim=1) > 0.99).float().mean()))
    assert all(mean(white[name]) < mean(white["clip"]) for name in ("log", "smooth", "phone"))


def test_a_validation_camera_shows_the_same_whether_others_are_asked_for_or_not(folder):
    some = {"size": 64, "views": 2}
    every = validation.validation_cases([folder / "sky.hdr"], **some)
    alone = list(validation.validation_cases([folder / "sky.hdr"], renderings=["smooth"], **some))
    assert [case.rendering for case in alone] == ["smooth"] * 2
    for found, wanted in zip(alone, (case for case in every if case.rendering == "smooth"), strict=True):
        assert torch.equal(found.sdr, wanted.sdr) and torch.equal(found.truth, wanted.truth)


def test_a_sheet_of_an_unknown_camera_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        draw_sheet.main(["--panoramas", str(folder), "--renderings", "lgo", "--output", "sheet.png"])
    assert "lgo" in capsys.readouterr().err


@pytest.mark.parametrize("command", [cache.main, evaluate.main, draw_sheet.main])
def test_a_folder_without_panoramas_is_named(command, tmp_path):
    with pytest.raises(DatasetError, match=f"{tmp_path}: no panorama"):
        command(["--panoramas", str(tmp_path), "--output", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        (latents.main, "--teacher"),
        (train_tone.main, None),
        (train_highlights.main, "--tone-net"),
        (train_tints.main, None),
    ],
)
def test_a_folder_without_samples_is_named(command, needed, tmp_path):
    other = [needed, str(tmp_path)] if needed else []
    with pytest.raises(DatasetError, match="run training.builtin.cache first"):
        command(["--pictures", str(tmp_path), *other, "--output", str(tmp_path / "out")])


def test_pictures_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "a.hdr").write_bytes(b"<html>")
    for read in (load_panorama, load_photo):
        with pytest.raises(DatasetError, match="a.hdr: not a readable"):
            read(tmp_path / "a.hdr")


def test_a_cache_without_latents_is_named(tmp_path):
    with pytest.raises(DatasetError, match=f"{tmp_path}: no .*; run training.builtin.latents first"):
        LatentPool(tmp_path, torch.Generator()).refresh()


def test_a_command_says_in_one_line_what_it_misses(tmp_path):
    flags = ["--panoramas", str(tmp_path), "--output", str(tmp_path / "out")]
    command = [sys.executable, "-m", "training.builtin.cache", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"error: {tmp_path}: no panorama")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("variant", GAIN_MAPS, ids=lambda variant: variant[-1])
def test_one_gain_a_pixel_leads_from_a_gain_mapped_picture_to_its_hdr(variant):
    hdr = np.exp(np.random.default_rng(0).uniform(-5, 3, (64, 64, 3))).astype(np.float32)
    sdr, own = gain_mapped_pictures(hdr, *variant)
    light = srgb_to_linear(torch.from_numpy(sdr)).numpy()
    gain = (own / light)[(light.max(axis=-1) < 0.99) & (light.min(axis=-1) > 1e-3)]
    assert own.max() <= variant[0]
    np.testing.assert_allclose(gain, gain[:, :1].repeat(3, axis=1), rtol=1e-3)
    assert gain.max() / gain.min() == pytest.approx(2 ** variant[1], rel=0.5)


def test_a_phone_gives_dark_tones_no_gain():
    hdr = np.exp(np.random.default_rng(0).uniform(-5, 3, (64, 64, 3))).astype(np.float32)
    for top, knee, by in PHONES:
        sdr, own = phone_pictures(hdr, top, knee, by)
        dark = own.max(axis=-1) < knee / 2
        assert own.max() <= top
        assert by == "local" or np.allclose(srgb_to_linear(torch.from_numpy(sdr[dark])), own[dark], atol=1e-3)
