"""Stage 1: networks as counted in the paper's code, losses against numbers, and what it converges to."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from gm_core.codecs.radiance import encode_radiance
from gm_core.errors import ModelFileError
from gm_core.gain_coding import GainCoding
from gm_core.gain_map import GainMapSpec
from gm_core.model_info import GainMapModelInfo
from gm_core.tonemap import analytic_gain_map
from training.base_model import load_vae, trainable_count
from training.data.plan import Draw
from training.data.rows import Row
from training.data.samples import CropRule, Photo, load_photo
from training.errors import ConfigError, RejectedSample
from training.stage1.adapter import (
    FILE,
    fill_adapter,
    find_adapter,
    install_adapter,
    merge_adapter,
    read_adapter,
    save_adapter,
)
from training.stage1.discriminator import Discriminator, DiscriminatorLoss, gradient_norm, hinge_loss
from training.stage1.losses import (
    PerceptualLoss,
    adaptive_weight,
    reconstruction_loss,
    supervised_loss,
    vgg_features,
)
from training.stage1.model import Explained, Stage1Model
from training.stage1.trainer import Stage1Task, draw_changes, run
from training.tiny import tiny_vae

SD15_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


def trained(vae: AutoencoderKL) -> dict[str, nn.Parameter]:
    return {name: p for name, p in vae.named_parameters() if p.requires_grad}


def perturb(vae: AutoencoderKL, seed: int = 0) -> None:
    random = torch.Generator().manual_seed(seed)
    for parameter in trained(vae).values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=random)


def picture(seed: int = 0, side: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_the_adapter_has_72_targets_and_14_million_values() -> None:
    with torch.device("meta"):
        vae = AutoencoderKL(**SD15_VAE)
        assert sum(p.numel() for p in vae.parameters()) == 83_653_863
        install_adapter(vae, 64)
    names = [name for name in trained(vae) if ".lora_" in name]
    assert len(names) == 144 and len(trained(vae)) == 146
    assert sum(trained(vae)[name].numel() for name in names) == 14_112_896
    assert trainable_count(vae) == 14_116_355


def test_a_fresh_adapter_changes_nothing(base: Path) -> None:
    vae, adapted = load_vae(str(base)), install_adapter(load_vae(str(base)), 4)
    assert torch.equal(vae(picture()).sample, adapted(picture()).sample)


def test_saved_and_loaded_it_computes_the_same_including_the_last_conv(base: Path, tmp_path: Path) -> None:
    vae = install_adapter(load_vae(str(base)), 4)
    perturb(vae)
    save_adapter(trained(vae), tmp_path / "vae_adapter", GainMapModelInfo())
    again = install_adapter(load_vae(str(base)), 4)
    fill_adapter(again, load_file(tmp_path / "vae_adapter" / FILE), "file")
    assert torch.equal(vae(picture()).sample, again(picture()).sample)
    merged = merge_adapter(load_vae(str(base)), find_adapter(tmp_path))
    assert (merged(picture()).sample - vae(picture()).sample).abs().max() < 1e-4


def test_an_adapter_of_the_original_code_finds_its_last_conv(base: Path, tmp_path: Path) -> None:
    vae = install_adapter(load_vae(str(base)), 4)
    perturb(vae)
    checkpoint = tmp_path / "checkpoint-500"
    (checkpoint / "vqmodel").mkdir(parents=True)
    named = {name: value for name, value in trained(vae).items() if ".lora_" in name}
    save_adapter(named, checkpoint / "vqmodel", GainMapModelInfo())
    assert not any("base_layer" in name for name in load_file(checkpoint / "vqmodel" / FILE))
    incomplete = merge_adapter(load_vae(str(base)), find_adapter(checkpoint))
    assert (incomplete(picture()).sample - vae(picture()).sample).abs().max() > 1e-3
    shadow = [value.detach().clone() for value in vae.parameters()]
    torch.save({"decay": 0.9999, "shadow_params": shadow}, checkpoint / "gm_decoder_ema.pth")
    complete = merge_adapter(load_vae(str(base)), find_adapter(checkpoint))
    assert (complete(picture()).sample - vae(picture()).sample).abs().max() < 1e-4


def test_an_adapter_of_another_vae_is_refused(base: Path, tmp_path: Path) -> None:
    other = install_adapter(tiny_vae(), 4)
    save_file({name + ".extra": p.detach() for name, p in trained(other).items()}, tmp_path / FILE)
    with pytest.raises(ModelFileError):
        merge_adapter(load_vae(str(base)), tmp_path / FILE)
    with pytest.raises(ModelFileError, match="no adapter_model.safetensors"):
        find_adapter(tmp_path / "nowhere")


def test_the_discriminator_is_the_papers() -> None:
    discriminator = Discriminator()
    assert sum(p.numel() for p in discriminator.parameters()) == 6_271_105
    expected = {
        f"encoder.{layer}.{part}"
        for layer in (0, 2, 5, 8, 11, 14)
        for part in ("weight_orig", "weight_u", "weight_v", "bias")
    }
    assert set(discriminator.state_dict()) == expected | {"shuffle.weight", "shuffle.bias"}
    with torch.device("meta"):
        scores = Discriminator()(torch.empty(1, 3, 512, 512))
    assert scores.shape == (1, 1, 8, 8)
    probabilities = Discriminator(16, 2, sigmoid=True)(picture())
    assert 0 < probabilities.min() and probabilities.max() < 1


def test_hinge_and_reconstruction_losses_against_numbers() -> None:
    fake, real = torch.tensor([-2.0, 0.0, 3.0]), torch.tensor([2.0, 0.0, -1.0])
    assert hinge_loss(fake, real).item() == pytest.approx((0 + 0 + 1 + 1 + 4 + 2) / 3)
    a, b = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.0])
    assert reconstruction_loss(a, b, "l2").item() == pytest.approx(0.625)
    assert reconstruction_loss(a, b, "l1").item() == pytest.approx(0.75)
    assert supervised_loss(torch.tensor([1.0]), torch.tensor([4.0]), 0.0).item() == pytest.approx(2.0)


def test_the_supervised_loss_is_in_stops_and_black_is_tame() -> None:
    hdr, truth = torch.ones(1, 3, 1, 2), torch.tensor([4.0, -1.0]).expand(1, 3, 1, 2)
    expected = (math.log2(4.5 / 1.5) + math.log2(1.5 / 0.5)) / 2
    assert supervised_loss(hdr, truth, 0.5).item() == pytest.approx(expected)


def test_the_adaptive_weight_balances_gradients() -> None:
    assert adaptive_weight(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])).item() == pytest.approx(2.5)
    assert adaptive_weight(torch.tensor([1.0]), torch.tensor([0.0])).item() == pytest.approx(1e4)


class LinearCritic(nn.Module):
    """Its gradient at every picture is 2 in each of the first picture's 4 values."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return 2 * value.flatten(1).sum(dim=1, keepdim=True)


@pytest.mark.parametrize("penalty, expected", [("r1", 16 / 2), ("reals", 9.0), ("interpolates", 9.0)])
def test_gradient_penalties_of_a_linear_critic(penalty: str, expected: float) -> None:
    real, fake = torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    assert gradient_norm(LinearCritic()(real.requires_grad_()), real).tolist() == pytest.approx([4.0] * 3)
    loss = DiscriminatorLoss(LinearCritic(), penalty, 10.0)  # type: ignore[arg-type]
    assert loss(fake, real, torch.rand(3)).item() == pytest.approx(2 + 10 * expected, rel=1e-5)


def test_the_perceptual_network_ends_at_relu3_4() -> None:
    with torch.device("meta"):
        features = vgg_features()(torch.empty(1, 3, 224, 224))
    assert features.shape == (1, 256, 56, 56)


class Squares(nn.Module):
    """Features that tell how the picture was brought to the network."""

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return picture.square()


def test_the_perceptual_loss_sees_every_other_pixel_normalised(tmp_path: Path) -> None:
    weights = {f"features.{name}": value for name, value in vgg_features().state_dict().items()}
    save_file(weights, tmp_path / "vgg.safetensors")
    loss = PerceptualLoss(tmp_path / "vgg.safetensors")
    loss.features = Squares()  # type: ignore[assignment]
    pictures = picture(1, side=448), picture(2, side=448)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    first, second = (((p[..., ::2, ::2] - mean) / std).square() for p in pictures)
    assert loss(*pictures).item() == pytest.approx((first - second).square().mean().item(), rel=1e-5)


def test_the_perceptual_loss_needs_a_local_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        PerceptualLoss(tmp_path / "vgg19.safetensors")
    features = vgg_features()
    save_file({f"features.{k}": v for k, v in features.state_dict().items()}, tmp_path / "vgg19.safetensors")
    loss = PerceptualLoss(tmp_path / "vgg19.safetensors")
    assert trainable_count(loss) == 0
    assert loss(picture(), picture()).item() == 0 and loss(picture(), picture(1)).item() > 0


@pytest.mark.parametrize("name", ["vgg.pth", "vgg.safetensors", "list.pth", "missing_layers.pth"])
def test_a_file_that_is_no_vgg_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>not found</html>")
    if name == "list.pth":
        torch.save([torch.zeros(1)], tmp_path / name)
    if name == "missing_layers.pth":
        torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / name)
    with pytest.raises(ConfigError, match=rf"{name}.*VGG-19 with torchvision's tensor names"):
        PerceptualLoss(tmp_path / name)


def test_damaged_adapter_files_are_named(base: Path, tmp_path: Path) -> None:
    vae = load_vae(str(base))
    folder = tmp_path / "vqmodel"
    save_adapter({"decoder.conv_out.lora_A.default.weight": torch.zeros(1, 1)}, folder, GainMapModelInfo())
    (tmp_path / "gm_decoder_ema.pth").write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelFileError, match=r"gm_decoder_ema\.pth is not a checkpoint of plain tensors"):
        read_adapter(folder / FILE, vae.state_dict())
    (folder / FILE).write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        read_adapter(folder / FILE, vae.state_dict())


def test_exposure_damage_is_drawn_per_sample_or_per_batch(stage1: Callable[..., Any]) -> None:
    numbers = list(range(64))
    each = draw_changes(stage1(exposure_probability=1.0), numbers)
    assert len(set(each.n.tolist())) > 60
    again = draw_changes(stage1(exposure_probability=1.0), numbers[10:20])
    assert torch.equal(each.n[10:20], again.n)
    whole = draw_changes(stage1(exposure_probability=1.0, exposure_per_sample=False), numbers)
    assert len(set(whole.n.tolist())) == 1 and len(whole.n) == 64


@pytest.mark.parametrize("operator", ["hard_clip_tmo", "linear_scale_tmo", "fix_mulog_tmo"])
def test_the_published_preset_clamps_at_the_peak(base: Path, operator: str) -> None:
    spec = GainMapSpec(qmax=49.0)
    model = Stage1Model(
        load_vae(str(base)), spec=spec, coding=GainCoding(), operator=operator, clamp_peak=True
    )
    white = torch.ones(1, 3, 8, 8)
    explained = model.explain(white, white)
    assert explained.hdr.max() == 50 and explained.sdr.max() <= 1


def test_it_converges_to_the_closed_form(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(16,), norm_num_groups=4, latent_channels=4)
    spec = GainMapSpec(qmax=49.0)
    model = Stage1Model(
        install_adapter(vae, 8), spec=spec, coding=GainCoding(), operator="fix_mulog_tmo", clamp_peak=False
    )
    colours = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    sdr = torch.nn.functional.interpolate(colours, scale_factor=4.0, mode="bilinear")
    optimal = analytic_gain_map(sdr, spec=spec)
    optimiser = torch.optim.Adam(trained(vae).values(), lr=5e-3)
    errors = []
    for _ in range(400):
        explained = model(sdr)
        loss = reconstruction_loss(explained.sdr, sdr, "l2")
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        errors.append((explained.gain_map.detach() - optimal).abs().mean().item())
    assert loss.item() < 2e-4
    assert errors[-1] < 0.015 and errors[-1] < errors[0] / 10


@pytest.mark.parametrize("preset", ["improved", "paper"])
def test_both_presets_train(
    configure: Callable[..., Any], base: Path, photos: Path, tmp_path: Path, preset: str
) -> None:
    out = tmp_path / preset
    run(
        configure(
            "stage1",
            preset,
            pretrained_model_name_or_path=base,
            train_metadata=[photos],
            output_dir=out,
            validation_steps=4,
            validation_image_dir=photos,
            report_to="tensorboard",
            clip_pixel=True,
            discr_start_step=1,
        )
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [("discr_loss" in line) for line in lines[:4]] == [False, True, True, True]
    assert (out / "validation" / "step-00000004.png").is_file() and list((out / "logs").iterdir())
    assert "val_reconstruction" in lines[-1]


def test_ground_truth_adds_a_supervised_term(
    stage1: Callable[..., Any], base: Path, tmp_path: Path, photos: Path
) -> None:
    shutil.copytree(photos, tmp_path / "pairs")
    for file in sorted((tmp_path / "pairs").glob("*.png"))[::2]:
        with Image.open(file) as picture:
            truth = torch.rand(picture.height, picture.width, 3).numpy() * 8
        file.with_suffix(".hdr").write_bytes(encode_radiance(truth))
    run(stage1(train_metadata=[tmp_path / "pairs"], max_train_steps=2, adversarial_weight=0.0))
    lines = [json.loads(line) for line in (tmp_path / "stage1" / "metrics.jsonl").read_text().splitlines()]
    assert any("supervised_loss" in line for line in lines)


def test_the_logged_terms_add_up_to_the_loss(
    stage1: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    pairs = shutil.copytree(photos, tmp_path / "pairs")
    for file in pairs.glob("*.png"):
        with Image.open(file) as photo:
            truth = np.full((photo.height, photo.width, 3), 2.0, np.float32)
        file.with_suffix(".hdr").write_bytes(encode_radiance(truth))
    # Doubled, since features of random weights fade from layer to layer.
    vgg = {f"features.{name}": 2 * value for name, value in vgg_features().state_dict().items()}
    save_file(vgg, tmp_path / "vgg.safetensors")
    weights = {"perceptual_weight": 0.5, "adversarial_weight": 0.25, "supervised_weight": 0.125}
    run(
        stage1(
            train_metadata=[pairs],
            max_train_steps=1,
            perceptual_weights=tmp_path / "vgg.safetensors",
            **weights,
        )
    )
    line = json.loads((tmp_path / "stage1" / "metrics.jsonl").read_text().splitlines()[0])
    adversarial = line["adversarial_weight"] * line["adversarial_loss"]
    parts = [line["perceptual_loss"], adversarial, line["supervised_loss"]]
    expected = line["reconstruction_loss"] + sum(w * p for w, p in zip(weights.values(), parts, strict=True))
    assert line["loss"] == pytest.approx(expected, rel=1e-5)
    assert all(abs(weight * part) > 1e-3 for weight, part in zip(weights.values(), parts, strict=True))


def test_ground_truth_beyond_the_peak_counts_as_the_peak(stage1: Callable[..., Any]) -> None:
    task = Stage1Task(stage1(qmax=7.0, adversarial_weight=0.0), Accelerator())
    dark, peak = torch.zeros(3, 32, 32), torch.full((3, 32, 32), 8.0)
    explained = Explained(picture(), torch.stack([dark, peak]), picture())
    photos = [Photo(0, picture()[0], None), Photo(1, picture()[1], 50 * peak)]
    _, values = task.generator_loss(explained, picture(), photos, playing=False)
    assert values["supervised_loss"] == pytest.approx(0, abs=1e-6)


def test_the_generator_wants_high_scores(stage1: Callable[..., Any], fresh_accelerator: None) -> None:
    task = Stage1Task(stage1(), Accelerator())
    assert task.discriminator is not None
    # Spectral norm moves its vectors with every look in training.
    task.discriminator.eval()
    expected = -task.discriminator(picture()).mean()
    assert task._adversarial(picture()).item() == pytest.approx(expected.item())


def test_ground_truth_of_another_shape_is_refused(photos: Path) -> None:
    truth = np.ones((64, 128, 3), np.float32)
    photo = Row("a", photos / "photo_000.png", hdr=encode_radiance(truth))
    with pytest.raises(RejectedSample, match="hdr_size: picture 96x128, hdr 128x64"):
        load_photo(CropRule(seed=0, center=True, flip=False), photo, Draw(0, 0, (32, 32)))


def test_bf16_trains(stage1: Callable[..., Any], tmp_path: Path) -> None:
    run(stage1(mixed_precision="bf16", max_train_steps=2, gradient_checkpointing=True))
    line = json.loads((tmp_path / "stage1" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["loss"] == pytest.approx(line["loss"]) and line["skipped_steps"] == 0
