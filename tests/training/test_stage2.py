"""Stage 2: surgery, objective, latents, captions, caches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from pyarrow import parquet

from gm_core.errors import GainMapError
from gm_core.gain_coding import GainCoding
from gm_core.gain_map import GainMapSpec, merge_hdr
from gm_core.model_info import TEXT_CONTEXT_KEY
from gm_core.schedule import alphas_cumprod, min_snr_weight, v_target
from training.base_model import load_text, load_unet, load_vae
from training.data.cache import ContentCache, network_hash
from training.data.rows import Row
from training.data.samples import Triple
from training.errors import ConfigError
from training.gm_unet import TEXT_CONTEXT, widen
from training.random_streams import normal
from training.stage2.latents import LatentEncoder
from training.stage2.objective import Noise, denoising_loss, draw_noise
from training.stage2.text import CaptionEncoder
from training.stage2.trainer import Stage2Task, run
from training.stage2.validation import load_cases
from training.tensor_files import read_tensors

CPU = torch.device("cpu")
ALPHAS = alphas_cumprod()

SD15_UNET: dict[str, Any] = {
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}


def latents(seed: int, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 4, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_the_wide_unet_equals_the_old_one_on_twice_the_same_latent(base: Path) -> None:
    old, new = load_unet(str(base)).eval(), widen(load_unet(str(base)).eval())
    z, t, text = latents(0), torch.tensor([1, 500, 999]), torch.randn(3, 16, 32)
    with torch.no_grad():
        expected = old(z, t, encoder_hidden_states=text).sample
        found = new(torch.cat([z, z], dim=1), t, encoder_hidden_states=text).sample
    assert (found - expected).abs().max() < 1e-5
    assert new.config["in_channels"] == 8


def test_the_wide_sd15_unet_has_the_papers_count() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15_UNET)
        unet.conv_in = torch.nn.Conv2d(8, 320, 3, padding=1)
    assert len(unet.state_dict()) == 686
    assert sum(p.numel() for p in unet.parameters()) == 859_532_484


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_a_perfect_network_has_no_loss(prediction: str) -> None:
    gain_map, condition = latents(1), latents(2)
    noise = draw_noise(0, [5, 6, 7], gain_map.shape[1:])
    answers = {"eps": noise.target, "x0": gain_map, "v": v_target(gain_map, noise.target, noise.t)}
    seen = []

    def network(sample: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        seen.append(sample)
        return answers[prediction]

    loss = denoising_loss(
        network,
        condition=condition,
        gain_map=gain_map,
        context=condition,
        noise=noise,
        alphas=ALPHAS,
        prediction=prediction,
        snr_gamma=5.0,
    )
    assert torch.equal(loss, torch.zeros(3))
    assert torch.equal(seen[0][:, :4], condition)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_min_snr_weighs_the_plain_loss(prediction: str) -> None:
    gain_map = latents(1, batch=4)
    noise = Noise(latents(3, 4), latents(3, 4), torch.tensor([0, 300, 700, 999]))

    def loss(gamma: float | None) -> torch.Tensor:
        return denoising_loss(
            lambda sample, t, context: 0 * sample[:, 4:],
            condition=gain_map,
            gain_map=gain_map,
            context=gain_map,
            noise=noise,
            alphas=ALPHAS,
            prediction=prediction,
            snr_gamma=gamma,
        )

    expected = loss(None) * min_snr_weight(noise.t, prediction=prediction, gamma=5.0)
    assert torch.allclose(loss(5.0), expected)


def test_min_snr_is_finite_at_zero_signal() -> None:
    noise = Noise(latents(0), latents(0), torch.tensor([999] * 3))
    silent = torch.zeros(1000)
    loss = denoising_loss(
        lambda sample, t, context: 0 * sample[:, 4:],
        condition=latents(1),
        gain_map=latents(1),
        context=latents(1),
        noise=noise,
        alphas=silent,
        snr_gamma=5.0,
    )
    assert torch.isfinite(loss).all()


def test_noise_offset_and_perturbation_touch_what_they_should() -> None:
    shape = torch.Size((4, 8, 8))
    plain = draw_noise(0, [1], shape)
    offset = draw_noise(0, [1], shape, offset=0.1)
    difference = offset.target - plain.target
    assert difference.std(dim=(2, 3)).max() < 1e-6 and difference.abs().max() > 0
    perturbed = draw_noise(0, [1], shape, perturbation=0.1)
    assert torch.equal(perturbed.target, plain.target) and not torch.equal(perturbed.added, plain.target)


def encoder(vae: AutoencoderKL, **changes: Any) -> LatentEncoder:
    options: dict[str, Any] = {
        "spec": GainMapSpec(),
        "coding": GainCoding(),
        "match_spec": True,
        "sample": False,
        "seed": 0,
        "cache": None,
    }
    return LatentEncoder(vae, **{**options, **changes})


def triple(number: int, row: Row, seed: int = 0) -> Triple:
    random = torch.Generator().manual_seed(seed)
    pixels = torch.rand(3, 32, 32, generator=random), torch.rand(3, 32, 32, generator=random)
    return Triple(number, row, f"content-{seed}", pixels)


def test_a_rows_hdr_survives_another_qmax_and_coding(base: Path) -> None:
    row = Row("k", b"", spec=GainMapSpec(qmax=49.0))
    wide = encoder(load_vae(str(base)), spec=GainMapSpec(qmax=99.0), coding=GainCoding("log2", -2.0, 6.5))
    sdr, stored = triple(0, row).pixels  # type: ignore[misc]
    coded = wide.coded_map(sdr, stored, row)
    gain_map = wide.coding.to_gain_map(coded, spec=wide.spec)
    expected = merge_hdr(sdr=sdr[None], gain_map=stored[None], spec=row.spec)
    found = merge_hdr(sdr=sdr[None], gain_map=gain_map[None], spec=wide.spec)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    plain = encoder(load_vae(str(base)), match_spec=False)
    assert torch.allclose(plain.coded_map(sdr, stored, row), stored)


def test_latents_are_scaled_means_or_seeded_samples(base: Path) -> None:
    vae = load_vae(str(base))
    batch = [triple(3, Row("a", b"")), triple(9, Row("b", b""), seed=1)]
    sdr, gain_map = encoder(vae)(batch, CPU)
    pixels = torch.stack([item.pixels[0] for item in batch])  # type: ignore[index]
    expected = vae.encode(pixels * 2 - 1).latent_dist.mean * 0.18215
    assert torch.allclose(sdr, expected, atol=1e-6) and gain_map.shape == (2, 4, 4, 4)
    for position, name in enumerate(("sdr", "gain_map")):
        pixels = torch.stack([item.pixels[position] for item in batch])  # type: ignore[index]
        posterior = vae.encode(pixels * 2 - 1).latent_dist
        noise = normal(0, f"posterior {name}", [3, 9], (4, 4, 4))
        sampled = encoder(vae, sample=True)(batch, CPU)[position]
        assert torch.allclose(sampled, (posterior.mean + posterior.std * noise) * 0.18215, atol=1e-6)


def test_the_cache_is_invalidated_by_another_vae_and_by_another_meaning(base: Path, tmp_path: Path) -> None:
    vae, other = load_vae(str(base)), load_vae(str(base))
    other.encoder.conv_in.weight.data[0, 0, 0, 0] += 1e-3
    hashes = [
        network_hash(vae, GainMapSpec()),
        network_hash(other, GainMapSpec()),
        network_hash(vae, GainMapSpec(qmax=49.0)),
    ]
    assert len(set(hashes)) == 3
    caches = [ContentCache(tmp_path, name) for name in hashes]
    caches[0].put("ab12", {"x": torch.ones(3)})
    assert caches[0].get("ab12") is not None
    assert caches[1].get("ab12") is None and caches[2].get("ab12") is None


def test_a_damaged_cache_entry_is_computed_again(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path, "vae")
    cache.put("ab12", {"x": torch.ones(3)})
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(b"rot")
    assert cache.get("ab12") is None
    cache.put("ab12", {"x": torch.zeros(3)})
    found = cache.get("ab12")
    assert found is not None and torch.equal(found["x"], torch.zeros(3, dtype=torch.float16))


def test_captions_are_unmasked_unless_asked(base: Path) -> None:
    tokenizer, text = load_text(str(base))
    plain, masked = (
        CaptionEncoder(tokenizer, text, mask_padding=mask, cache=None)(["a lamp"], CPU)
        for mask in (False, True)
    )
    ids = tokenizer(["a lamp"], padding="max_length", max_length=16, return_tensors="pt").input_ids
    assert torch.equal(plain, text(ids).last_hidden_state)
    words = int((ids[0] != tokenizer.pad_token_id).sum())
    assert torch.allclose(plain[:, :words], masked[:, :words], atol=1e-5)
    assert not torch.allclose(plain[:, words + 1 :], masked[:, words + 1 :], atol=1e-3)


def test_padding_that_is_masked_in_training_is_not_in_what_inference_is_given(
    stage2: Callable[..., Any], base: Path, tmp_path: Path
) -> None:
    run(stage2(mask_padding=True, max_train_steps=1))
    stored = read_tensors(tmp_path / "stage2" / "checkpoint-00000001" / "unet" / TEXT_CONTEXT)[0]
    plain = CaptionEncoder(*load_text(str(base)), mask_padding=False, cache=None)([""], CPU)
    assert torch.equal(stored[TEXT_CONTEXT_KEY], plain)


def test_a_tenth_of_the_captions_is_dropped(stage2: Callable[..., Any]) -> None:
    class Spoken(Stage2Task):
        def __init__(self, config: Any) -> None:
            self.config = config

    triples = [Triple(n, Row("k", b"", "words"), "c", None) for n in range(3000)]
    spoken = Spoken(stage2(caption_dropout=0.1)).spoken(triples)
    assert 230 < spoken.count("") < 370
    assert Spoken(stage2(caption_dropout=0.1)).spoken(triples[50:60]) == spoken[50:60]
    assert set(Spoken(stage2(text="empty")).spoken(triples)) == {""}


@pytest.mark.parametrize(
    "changes",
    [
        {"preset": "paper"},
        {"prediction_type": "v", "gain_encoding": "log2", "text": "none"},
        {"mixed_precision": "bf16", "gradient_checkpointing": True, "text": "empty", "noise_offset": 0.05},
        {"buckets": True, "bucket_step": 16, "cache_latents": True, "input_perturbation": 0.1},
    ],
    ids=["paper", "v log2 text-free", "bf16", "buckets and cache"],
)
def test_variants_train(
    configure: Callable[..., Any], base: Path, triples: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    options = {
        "pretrained_model_name_or_path": base,
        "train_metadata": [triples],
        "output_dir": tmp_path / "out",
        "dataset_cache_dir": tmp_path / "cache",
        "max_train_steps": 2,
        "validation_steps": 2,
        "validation_metadata": [triples],
        "validation_samples": 2,
        "validation_sampling_steps": 2,
        **changes,
    }
    run(configure("stage2", options.pop("preset", "improved"), **options))
    last = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(last) == {"step", "val_loss", "val_pu21_psnr"} and last["val_loss"] > 0
    assert (tmp_path / "out" / "validation" / "step-00000002.png").is_file()


def test_validation_pictures_and_prompts_of_the_papers_flags(
    stage2: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("one\n\ntwo\n")
    (tmp_path / "scheduler.json").write_text(
        json.dumps({"_class_name": "PNDMScheduler", "skip_prk_steps": True})
    )
    run(
        stage2(
            max_train_steps=1,
            validation_steps=1,
            validation_samples=2,
            validation_image_dir=photos,
            validation_prompt_file=tmp_path / "prompts.txt",
            scheduler_config=tmp_path / "scheduler.json",
            validation_sampling_steps=3,
        )
    )
    assert (tmp_path / "stage2" / "validation" / "step-00000001.png").is_file()


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"validation_image_dir": "{tmp}"}, "holds 0 pictures"),
        ({"validation_prompts": ["a"]}, "give --validation_image_dir"),
        ({"scheduler_config": "{tmp}/configs"}, "not readable"),
        ({"validation_prompt_file": "{tmp}/p.txt", "validation_image_dir": "{photos}"}, "p.txt"),
    ],
)
def test_a_mistake_in_the_validation_flags_stops_the_run_before_it_starts(
    stage2: Callable[..., Any], photos: Path, tmp_path: Path, flags: dict[str, Any], message: str
) -> None:
    places = {"{tmp}": str(tmp_path), "{photos}": str(photos)}
    for place, path in places.items():
        flags = {k: v.replace(place, path) if isinstance(v, str) else v for k, v in flags.items()}
    with pytest.raises(ConfigError, match=message):
        run(stage2(validation_steps=2, **flags))
    assert not (tmp_path / "stage2").exists()


@pytest.mark.parametrize("column, value", [("qmax", 49.0), ("gamma", 2.4), ("eps", 1 / 32)])
def test_a_validation_row_keeps_its_hdr_whatever_its_constants(
    stage2: Callable[..., Any], triples: Path, tmp_path: Path, column: str, value: float
) -> None:
    (tmp_path / "rows").mkdir()
    table = parquet.read_table(sorted(triples.glob("*.parquet"))[0])
    values = pyarrow.array([value] * table.num_rows)
    other = table.set_column(table.schema.get_field_index(column), column, values)
    parquet.write_table(other, tmp_path / "rows" / "other.parquet")
    config = stage2(validation_metadata=[tmp_path / "rows"], qmax=999.0)
    wanted = {"qmax": 99.0, "gamma": 2.2, "offset": 1 / 64, column.replace("eps", "offset"): value}
    (row, *_), (unchanged, *_) = load_cases(config), load_cases(replace(config, match_qmax=False))
    assert row.gain_map is not None and unchanged.gain_map is not None
    found = merge_hdr(sdr=row.sdr, gain_map=row.gain_map, spec=config.spec)
    expected = merge_hdr(sdr=row.sdr, gain_map=unchanged.gain_map, spec=GainMapSpec(**wanted))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_data_workers_change_nothing(stage2: Callable[..., Any], tmp_path: Path) -> None:
    losses = []
    for workers in (0, 2):
        folder = tmp_path / f"workers-{workers}"
        run(stage2(output_dir=folder, max_train_steps=2, dataloader_num_workers=workers))
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == losses[1]


def test_what_no_model_can_state_is_refused_before_training(
    stage2: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(GainMapError, match="steps is 2000"):
        run(stage2(recommended_steps=2000))
    assert not (tmp_path / "stage2").exists()


def test_under_input_perturbation_the_target_stays_the_drawn_noise() -> None:
    noise = draw_noise(0, [0, 1], torch.Size((4, 2, 2)), perturbation=0.5)
    assert not torch.equal(noise.target, noise.added)
    latent = torch.zeros(2, 4, 2, 2)
    loss = denoising_loss(
        lambda *_: noise.target,
        condition=latent,
        gain_map=latent,
        context=latent,
        noise=noise,
        alphas=alphas_cumprod(),
    )
    assert loss.tolist() == [0, 0]
