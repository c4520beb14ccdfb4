"""Headless Stage 3: the same numbers as gm_core's reference sampler, and the files of the paper's driver."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from PIL import Image

from gm_core.codecs.exr import decode_exr
from gm_core.codecs.files import read_image
from gm_core.gain_coding import GainCoding
from gm_core.gain_map import GainMapSpec, merge_hdr
from gm_core.model_info import GainMapModelInfo
from gm_core.sampling import Denoiser
from gm_core.sampling import sample_dual as reference_dual
from gm_core.sampling import sample_gain_map as reference_single
from gm_core.schedule import alphas_cumprod, sampling_sigmas
from training import outputs
from training.base_model import load_unet
from training.cli import main
from training.data.decode import decode_gain_map
from training.errors import ConfigError
from training.generate import (
    GainMapDiffusion,
    Settings,
    convert_picture,
    find_pictures,
    merged,
    start_noise,
    working_side,
)
from training.gm_unet import save_gm_unet, widen
from training.pictures import decode_latent, encode_picture, from_image
from training.sampling import make_scheduler, sample_dual, sample_gain_map

ALPHAS = alphas_cumprod()


def node_sigmas(steps: int) -> torch.Tensor:
    """ComfyUI's `normal` scheduler: even in time, interpolated in the logarithm of the noise level."""
    table = ((1 - ALPHAS) / ALPHAS).sqrt().log().numpy()
    levels = np.exp(np.interp(np.linspace(999, 0, steps), np.arange(1000), table))
    return torch.tensor([*levels, 0.0], dtype=torch.float32)


SIGMAS = {"euler": node_sigmas, "dpm++": lambda steps: sampling_sigmas(steps, "linspace")}


def linear_network(seed: int, channels: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Mixes channels and the timestep: smooth, and sensitive to every input."""
    weight = torch.randn(4, channels, 1, 1, generator=torch.Generator().manual_seed(seed)) / channels**0.5

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.nn.functional.conv2d(x, weight)) * (1 + t.float().view(-1, 1, 1, 1) / 2000)

    return predict


def latents(seed: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_euler_agrees_with_the_reference_for_a_picture(prediction: str) -> None:
    network, condition, noise = linear_network(0, 8), latents(1), latents(2)
    found = sample_gain_map(network, condition, noise, make_scheduler("euler", ALPHAS, prediction), 10)
    expected = reference_single(Denoiser(network, prediction), condition, noise, node_sigmas(10))
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name, sampler", [("euler", "euler"), ("dpm++", "dpmpp_2m")])
def test_the_dual_loop_agrees_with_the_reference(name: str, sampler: str, batch: int) -> None:
    sdr, gm, noise = linear_network(0, 4), linear_network(1, 8), latents(2, batch)
    # Of 30 noise levels of the nodes most lie between timesteps.
    found = sample_dual(sdr, gm, noise, make_scheduler(name, ALPHAS, "eps"), 30)
    expected = reference_dual(Denoiser(sdr), Denoiser(gm), noise, SIGMAS[name](30), sampler=sampler)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 1e-4


def test_schedulers_visit_the_papers_timesteps() -> None:
    ddpm = make_scheduler("ddpm", ALPHAS, "eps")
    ddpm.set_timesteps(50)
    assert ddpm.timesteps[:3].tolist() == [981, 961, 941] and ddpm.timesteps[-1] == 1
    assert not ddpm.config.clip_sample
    solver = make_scheduler("dpm++", ALPHAS, "eps")
    solver.set_timesteps(75)
    assert solver.timesteps[:3].tolist() == [999, 986, 972] and solver.timesteps[-1] == 13
    assert torch.allclose(ddpm.alphas_cumprod, ALPHAS, atol=1e-6)


def test_the_branches_share_noise_but_no_history() -> None:
    seen: dict[str, list[torch.Tensor]] = {"sdr": [], "gm": []}

    def recording(name: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            seen[name].append(x)
            return torch.zeros_like(x[:, :4])

        return predict

    noise = latents(0)
    sample_dual(recording("sdr"), recording("gm"), noise, make_scheduler("dpm++", ALPHAS, "eps"), 4)
    assert torch.equal(seen["sdr"][0], noise) and torch.equal(seen["gm"][0][:, 4:], noise)
    x0 = noise / ALPHAS[999].sqrt()
    assert torch.allclose(seen["gm"][0][:, :4], x0, rtol=1e-3)


@pytest.mark.parametrize("name", ["euler", "ddpm", "ddim", "dpm++", "pndm"])
def test_every_scheduler_runs_both_loops(name: str) -> None:
    sdr, gm = linear_network(0, 4), linear_network(1, 8)
    pair = sample_dual(sdr, gm, latents(3), make_scheduler(name, ALPHAS, "eps"), 5)
    single = sample_gain_map(gm, latents(1), latents(2), make_scheduler(name, ALPHAS, "v"), 5)
    assert all(torch.isfinite(latent).all() for latent in (*pair, single))


def test_one_generator_gives_the_start_and_then_the_noise_of_each_step() -> None:
    network, condition, random = linear_network(0, 8), latents(1, 1), torch.Generator().manual_seed(5)
    expected = start_noise(condition, 5)
    scheduler = make_scheduler("ddpm", ALPHAS, "eps")
    found = sample_gain_map(network, condition, expected, scheduler, 5, seed=5)
    torch.randn(condition.shape, generator=random)  # the start
    for t in scheduler.timesteps:
        prediction = network(torch.cat([condition, expected], dim=1), t)
        expected = scheduler.step(prediction, t, expected, generator=random).prev_sample
    assert torch.equal(found, expected)


def test_a_scheduler_file_must_name_a_scheduler(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"_class_name": "Nothing"}')
    with pytest.raises(ConfigError, match="no diffusers scheduler"):
        make_scheduler("euler", ALPHAS, "eps", str(tmp_path / "s.json"))
    with pytest.raises(ConfigError, match="not readable"):
        make_scheduler("euler", ALPHAS, "eps", str(tmp_path / "gone"))


@pytest.mark.parametrize(
    "content, message",
    [
        ('["EulerDiscreteScheduler"]', "holds a JSON list, expected an object"),
        ('{"_class_name": "AutoencoderKL"}', "'AutoencoderKL', which is no diffusers scheduler"),
        ('{"_class_name": "SchedulerMixin"}', "does not take the noise levels"),
        ('{"_class_name": "FlowMatchEulerDiscreteScheduler"}', "does not take the noise levels"),
        ('{"_class_name": "DEISMultistepScheduler", "algorithm_type": "magic"}', "no usable DEIS"),
    ],
)
def test_schedulers_of_another_kind_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        make_scheduler("euler", ALPHAS, "eps", str(tmp_path / "s.json"))


@pytest.fixture(scope="module")
def gm_folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    unet = widen(load_unet(str(base)))
    folder = tmp_path_factory.mktemp("gm") / "unet"
    context = torch.randn(1, 16, 32)
    save_gm_unet(unet.state_dict(), unet, GainMapModelInfo(steps=3), context, folder)
    return folder


def flags(base: Path, gm: Path, out: Path) -> list[str]:
    return ["--pretrained_model_name_or_path", str(base), "--unet_ckpt", str(gm), "--output_dir", str(out)]


def test_a_folder_of_pictures_becomes_hdr_files(
    base: Path, gm_folder: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = [
        "generate",
        *flags(base, gm_folder, out),
        "--sdr_input_path",
        str(photos),
        "--resolution",
        "64",
    ]
    assert main(arguments) == 0
    kinds = {"sdr_{}.png", "gm_{}.png", "hdr_{}.hdr", "hdr_{}.exr", "hdr_{}.jpg", "sheet_{}.png"}
    names = {kind.format(f"photo_{n:03d}") for kind in kinds for n in range(6)}
    assert {path.name for path in out.iterdir()} == names | {"config.yaml"}
    with Image.open(photos / "photo_000.png") as given, Image.open(out / "sdr_photo_000.png") as written:
        assert np.array_equal(np.asarray(given), np.asarray(written))
    exr = read_image(out / "hdr_photo_000.exr")
    assert exr.primaries == "bt2020" and exr.hdr.shape[:2] == (128, 96)
    sdr = from_image(Image.open(out / "sdr_photo_000.png"))
    gain_map = torch.from_numpy(decode_gain_map((out / "gm_photo_000.png").read_bytes())).movedim(-1, 0)[None]
    expected = merge_hdr(sdr=sdr, gain_map=gain_map, spec=GainMapSpec())[0].movedim(0, -1).numpy()
    assert np.abs(exr.hdr - expected).max() < 2e-3


def test_an_exr_file_gives_back_the_picture_its_map_and_their_constants() -> None:
    sdr, gain_map = (torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    spec = GainMapSpec(qmax=49.0, gamma=2.4, offset=1 / 32)
    hdr = merge_hdr(sdr=sdr[None], gain_map=gain_map[None], spec=spec)[0]
    read = decode_exr(outputs.exr(outputs.Result(sdr, gain_map, hdr, "bt2020", spec), white_nits=203.0))
    stored = GainMapSpec(**{name: read.metadata[f"gm.{name}"] for name in ("qmax", "gamma", "offset")})
    assert read.sdr is not None and read.gain_map is not None
    pictures = [torch.from_numpy(pixels).movedim(-1, 0)[None] for pixels in (read.sdr, read.gain_map)]
    found = merge_hdr(sdr=pictures[0], gain_map=pictures[1], spec=stored)[0]
    assert torch.equal(pictures[1][0], gain_map)
    assert torch.allclose(found, hdr, rtol=1e-4, atol=1e-4)


def test_the_largest_seed_draws_latents_too(
    base: Path, gm_folder: Path, photos: Path, tmp_path: Path
) -> None:
    given = ["--sdr_input_path", str(photos / "photo_000.png"), "--resolution", "64", "--formats", "hdr"]
    seeded = ["--seed", str(2**64 - 1), "--sample_latents", "--num_inference_steps", "1"]
    assert main(["generate", *flags(base, gm_folder, tmp_path / "out"), *given, *seeded]) == 0


def test_prompts_become_hdr_files(base: Path, gm_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prompts = ["--validation_prompts", "a lamp", "the sun", "--resolution", "64", "--preset", "paper"]
    assert main(["generate", *flags(base, gm_folder, out), *prompts, "--num_inference_steps", "3"]) == 0
    assert (out / "hdr_0001.hdr").is_file()
    radiance = read_image(out / "hdr_0000.hdr").hdr
    assert radiance.max() <= 1.016


def test_the_seed_decides_and_the_folder_does_not(
    base: Path, gm_folder: Path, photos: Path, tmp_path: Path
) -> None:
    def maps(name: str, source: Path, seed: int) -> bytes:
        run = ["generate", *flags(base, gm_folder, tmp_path / name), "--sdr_input_path", str(source)]
        assert main([*run, "--resolution", "64", "--formats", "sheet", "--seed", str(seed)]) == 0
        return (tmp_path / name / "gm_photo_003.png").read_bytes()

    alone = maps("alone", photos / "photo_003.png", 1)
    assert alone == maps("folder", photos, 1) != maps("other", photos / "photo_003.png", 2)


def test_text_free_models_ignore_the_prompt(
    configure: Any, base: Path, gm_folder: Path, tmp_path: Path
) -> None:
    config = configure(
        "generate", pretrained_model_name_or_path=base, unet_ckpt=gm_folder, sdr_input_path="x"
    )
    models = GainMapDiffusion(config, with_text=True)
    assert not torch.equal(models.context("a lamp"), models.context(""))
    free = GainMapDiffusion(config, with_text=True)
    free.stored_context = torch.zeros(1, 1, 32)
    assert torch.equal(free.context("a lamp"), free.context(""))


def test_it_is_the_reference_sampler_around_the_real_networks(
    configure: Any, base: Path, gm_folder: Path
) -> None:
    config = configure(
        "generate", pretrained_model_name_or_path=base, unet_ckpt=gm_folder, sdr_input_path="x", resolution=64
    )
    models = GainMapDiffusion(config, with_text=False)
    settings = Settings(4, "euler", None, 1.0, seed=11)
    sdr = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = convert_picture(models, config, settings, GainMapSpec(), sdr, "")
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(11))

    @torch.no_grad()
    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return models.gm_unet(x, t, encoder_hidden_states=models.context("")).sample

    latent = reference_single(Denoiser(network), encode_picture(models.vae, sdr), noise, node_sigmas(4))
    assert (decode_latent(models.vae, latent)[0] - found.gain_map).abs().max() < 1e-4


def test_text_to_hdr_heeds_what_the_base_model_predicts(
    configure: Any, base: Path, gm_folder: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(base, tmp_path / "base")
    DDPMScheduler.from_pretrained(base / "scheduler", prediction_type="v_prediction").save_pretrained(
        model / "scheduler"
    )
    config = configure(
        "generate", pretrained_model_name_or_path=model, unet_ckpt=gm_folder, validation_prompts=["a lamp"]
    )
    models = GainMapDiffusion(config, with_text=True)
    found = models.from_text("a lamp", "", 64, Settings(4, "euler", None, 1.0, seed=11))[0]
    assert models.captions is not None and models.sdr_unet is not None
    context, unet = models.captions(["a lamp"], models.device), models.sdr_unet

    @torch.no_grad()
    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return unet(x, t, encoder_hidden_states=context).sample

    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(11))
    gm = Denoiser(lambda x, t: x[:, 4:])
    expected = reference_dual(Denoiser(network, "v"), gm, noise, node_sigmas(4))[0]
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("wanted, own, side", [(None, 64, 64), (None, 0, 70), (0, 64, 0), (32, 64, 32)])
def test_the_working_side_is_the_models_unless_given(wanted: int | None, own: int, side: int) -> None:
    info = GainMapModelInfo(working_side=own)
    assert working_side(wanted, info, torch.zeros(1, 3, 70, 90)) == side
    assert working_side(None, GainMapModelInfo(), torch.zeros(1, 3, 1000, 2000)) == 768


def test_processes_share_the_pictures_and_their_prompts(
    base: Path, gm_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = ["--validation_prompts", *"abcdef"]
    run = ["generate", *flags(base, gm_folder, tmp_path / "all"), "--sdr_input_path", str(photos), *captions]
    run += ["--resolution", "32", "--num_inference_steps", "1", "--formats", "sheet"]
    assert main(run) == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    shared = [str(tmp_path / "shared") if flag == str(tmp_path / "all") else flag for flag in run]
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        assert main(shared) == 0
        assert len(list((tmp_path / "shared").glob("gm_*"))) == (3 if rank else 6)
    for file in (tmp_path / "all").glob("*.png"):
        assert file.read_bytes() == (tmp_path / "shared" / file.name).read_bytes()


def test_a_process_whose_pictures_are_all_unreadable_ends_no_others(
    base: Path, gm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "photos" / name).write_bytes(b"<html>")
    run = ["generate", *flags(base, gm_folder, tmp_path), "--sdr_input_path", str(tmp_path / "photos")]
    assert main(run) == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert main(run) == 0


def test_prompts_that_fit_no_picture_are_refused(
    base: Path, gm_folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["generate", *flags(base, gm_folder, tmp_path / "out"), "--sdr_input_path", str(photos)]
    assert main([*run, "--validation_prompts", "a", "b"]) == 1
    assert "2 prompts for 6 pictures" in capsys.readouterr().err


def test_names_are_unique_and_pictures_are_needed(photos: Path, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b/c.webp", "b_d.png", "b/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [name for name, _ in find_pictures(tmp_path)] == [
        "a_jpg",
        "a_png",
        "b_c",
        "b_d_png",
        "b_d_png_2",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no pictures"):
        find_pictures(tmp_path / "empty")


def test_hidden_files_and_folders_are_no_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "album.jpg").mkdir()
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails" / "b.png").write_bytes(b"")
    assert [name for name, _ in find_pictures(tmp_path)] == ["a"]


def test_dark_colours_keep_some_light_as_in_the_nodes() -> None:
    """A gain of 1/8 would take more light from them than there is, for Eq. (1) adds its offset to it."""
    coding = GainCoding(encoding="log2", log2_min=-3, log2_max=5)
    info, sdr = GainMapModelInfo(spec=GainMapSpec(qmax=31), coding=coding), torch.full((1, 3, 8, 8), 0.05)
    result = merged(sdr, torch.zeros_like(sdr), info, info.spec)
    torch.testing.assert_close(result.hdr, sdr[0] ** 2.2 / 8, rtol=0, atol=1e-6)


def test_half_precision_networks_decode_in_float32(configure: Any, base: Path, gm_folder: Path) -> None:
    config = configure(
        "generate",
        pretrained_model_name_or_path=base,
        unet_ckpt=gm_folder,
        sdr_input_path="x",
        mixed_precision="bf16",
        resolution=64,
    )
    models = GainMapDiffusion(config, with_text=False)
    result = convert_picture(
        models, config, Settings(2, "ddpm", None, 1.0, 0), GainMapSpec(), torch.rand(1, 3, 70, 90), ""
    )
    assert result.hdr.shape == (3, 70, 90) and result.gain_map.dtype == torch.float32
