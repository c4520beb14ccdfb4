"""Load GM UNet: what it accepts, what it makes of it, and how it refuses everything else."""

from __future__ import annotations

import hashlib
import pickle

import pytest
import torch

PAPER = {"gmhdr.input_order": "sdr_gm"}
FP8 = torch.float8_e4m3fn


@pytest.fixture
def load(host):
    module = host.module("nodes.engine.load")
    return module.load_gm_unet


@pytest.fixture(scope="module")
def small(host, models):
    return models.unet(models.TINY, seed=5)


@pytest.fixture
def denoise(comfy):
    """x0 of ComfyUI's model for one noisy gain-map latent and its condition."""

    def run(patcher, x, condition, sigma=3.0):
        comfy.model_management.load_models_gpu([patcher])
        context = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(9))
        return patcher.model.apply_model(x, torch.tensor([sigma]), c_concat=condition, c_crossattn=context)

    return run


def latents(count):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(1, 4, 8, 8, generator=generator) for _ in range(count)]


def test_built_in_default(host) -> None:
    gm_model, vae = host.call("GMHDRLoadUNet", unet_name="built-in default").args
    info = gm_model.get_attachment("gmhdr")
    assert (info.spec.qmax, info.coding.encoding, info.gamut, info.steps) == (31.0, "log2", "bt709", 2)
    assert vae.vae_dtype == torch.float32 and vae.latent_channels == 4


def test_combo_lists_safetensors_only(host, models, small) -> None:
    folder = host.base / "models/diffusion_models"
    models.save(small, folder / "run/checkpoint-5/unet/diffusion_pytorch_model.safetensors")
    (folder / "old.ckpt").write_bytes(b"x")
    names = host.node("GMHDRLoadUNet").INPUT_TYPES()["required"]["unet_name"][1]["options"]
    assert names[0] == "built-in default"
    assert "run/checkpoint-5/unet/diffusion_pytorch_model.safetensors" in names and "old.ckpt" not in names
    assert host.call("GMHDRLoadUNet", unet_name=names[1]).args[0].get_attachment("gmhdr").gamut == "bt2020"


def test_condition_reaches_the_channels_it_was_trained_on(load, denoise, models, small, tmp_path) -> None:
    """Paper order on disk and the same weights stored in ComfyUI's order are the same network."""
    paper = load(models.save(small, tmp_path / "paper.safetensors", PAPER))
    swapped = dict(small)
    weight = small["input_blocks.0.0.weight"]
    swapped["input_blocks.0.0.weight"] = torch.cat([weight[:, 4:], weight[:, :4]], 1)
    stored = load(models.save(swapped, tmp_path / "c.safetensors", {"gmhdr.input_order": "gm_sdr"}))
    x, condition = latents(2)
    got, expected = denoise(paper, x, condition), denoise(stored, x, condition)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(got, denoise(paper, condition, x), atol=0.1)


def test_diffusers_names_load_as_the_same_network(host, load, denoise, models, tmp_path) -> None:
    to_diffusers = host.module("gm_core.unet_keys").to_diffusers
    weights = models.unet(models.SMALL)
    ldm = load(models.save(weights, tmp_path / "ldm.safetensors"))
    diffusers = load(models.save(to_diffusers(weights), tmp_path / "d.safetensors"))
    x, condition = latents(2)
    assert torch.equal(denoise(ldm, x, condition), denoise(diffusers, x, condition))


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_prediction_stated_in_the_file_is_honoured(
    load, denoise, models, small, tmp_path, prediction
) -> None:
    path = models.save(small, tmp_path / "p.safetensors", {"gmhdr.prediction": prediction})
    patcher = load(path)
    x, condition = latents(2)
    sigma = 3.0
    raw = load(models.save(small, tmp_path / "raw.safetensors", {"gmhdr.prediction": "x0"}))
    out = denoise(raw, x, condition, sigma)
    scale = (sigma**2 + 1) ** -0.5
    expected = {"eps": x - sigma * out, "v": (x * scale - sigma * out) * scale, "x0": out}[prediction]
    torch.testing.assert_close(denoise(patcher, x, condition, sigma), expected, rtol=1e-4, atol=1e-4)


def test_full_size_widths_go_through_the_stock_loader(load, models, comfy, tmp_path, monkeypatch):
    calls = []
    stock = comfy.sd.load_diffusion_model_state_dict
    monkeypatch.setattr(
        comfy.sd, "load_diffusion_model_state_dict", lambda *a, **k: calls.append(1) or stock(*a, **k)
    )
    patcher = load(models.save(models.unet(models.STOCK), tmp_path / "stock.safetensors"), "fp16")
    assert calls and type(patcher.model).__name__ == "SD15_instructpix2pix"
    assert patcher.model_dtype() == torch.float16


def test_a_file_replaced_by_a_newer_training_run_is_loaded_again(host, models, small) -> None:
    path = host.base / "models/diffusion_models/run.safetensors"
    inputs = {"unet_name": "run.safetensors", "weight_dtype": "default"}
    node = host.node("GMHDRLoadUNet")
    models.save(small, path)
    before = node.fingerprint_inputs(**inputs)
    assert node.fingerprint_inputs(**inputs) == before
    models.save(small, path, {"gmhdr.steps": "7"})
    assert node.fingerprint_inputs(**inputs) != before


def test_user_files_are_not_modified(load, models, small, tmp_path) -> None:
    path = models.save(small, tmp_path / "mine.safetensors")
    before = hashlib.sha256(path.read_bytes()).digest()
    load(path)
    assert hashlib.sha256(path.read_bytes()).digest() == before


def without(weights, name):
    return {key: value for key, value in weights.items() if key != name}


REFUSED = {
    "4 channels": (lambda m, s: m.unet(m.TINY, in_channels=4), "found a 4-channel .*text-to-image UNet"),
    "inpainting": (lambda m, s: m.unet(m.TINY, in_channels=9), "found a 9-channel .*inpainting UNet"),
    "sdxl": (lambda m, s: {**s, "label_emb.0.0.weight": torch.zeros(8, 8)}, "SDXL"),
    "vae": (lambda m, s: {"decoder.conv_in.weight": torch.zeros(1)}, "found a VAE"),
    "tiny vae": (lambda m, s: m.tiny_vae(), "found a tiny VAE"),
    "text encoder": (lambda m, s: {"text_model.embeddings.x": torch.zeros(1)}, "found a CLIP text encoder"),
    "lora": (lambda m, s: {"lora_unet_a.lora_up.weight": torch.zeros(1)}, "found a LoRA"),
    "nothing": (lambda m, s: {}, "unknown model of 0 tensors"),
    "missing": (lambda m, s: without(s, "out.0.weight"), "missing out.0.weight"),
    "extra": (lambda m, s: {**s, "stray": torch.zeros(1)}, "unexpected stray"),
    "nan": (lambda m, s: {**s, "out.0.bias": s["out.0.bias"] * float("nan")}, "out.0.bias contains NaN"),
    "nan in fp64": (lambda m, s: {**s, "out.0.bias": torch.full((64,), torch.nan).double()}, "contains NaN"),
    "nan in fp8": (lambda m, s: {**s, "out.0.bias": torch.full((64,), torch.nan).to(FP8)}, "contains NaN"),
    "integers": (lambda m, s: {**s, "out.0.bias": torch.ones(64, dtype=torch.int8)}, "holds torch.int8"),
    "shape": (lambda m, s: {**s, "out.0.bias": torch.zeros(3)}, "do not fit"),
    "tone net": (lambda m, s: {**s, "gmhdr.tone.mean": torch.zeros(3)}, "not form a tone net"),
    "context": (lambda m, s: {**s, "gmhdr.text_context": torch.zeros(1, 2, 9)}, "expected|needs"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_models_are_refused_by_name(host, load, models, small, tmp_path, kind) -> None:
    make, message = REFUSED[kind]
    path = models.save(make(models, small), tmp_path / "wrong.safetensors")
    with pytest.raises(host.module("gm_core.errors").ModelFileError, match=message) as caught:
        load(path)
    assert "wrong.safetensors" in str(caught.value)


@pytest.mark.parametrize("size", [0, 7, 1000, -1])
def test_truncated_files_are_refused(host, load, models, small, tmp_path, size) -> None:
    path = models.save(small, tmp_path / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(host.module("gm_core.errors").ModelFileError, match="truncated"):
        load(path)


def test_pickles_are_not_opened(host, load, tmp_path) -> None:
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    for name in ("model.ckpt", "model.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(host.module("gm_core.errors").ModelFileError):
            load(tmp_path / name)


@pytest.mark.parametrize("qmax", ["many", "0", "-1", "inf", "nan"])
def test_bad_metadata_is_refused(host, load, models, small, tmp_path, qmax) -> None:
    path = models.save(small, tmp_path / "m.safetensors", {"gmhdr.qmax": qmax})
    with pytest.raises(host.module("gm_core.errors").ModelFileError, match=r"^m\.safetensors: .*qmax"):
        load(path)


def test_a_diffusers_unet_with_parts_of_another_is_refused_by_name(
    host, load, models, small, tmp_path
) -> None:
    weights = host.module("gm_core.unet_keys").to_diffusers(small)
    path = models.save({**weights, "encoder_hid_proj.weight": torch.zeros(1)}, tmp_path / "d.safetensors")
    with pytest.raises(
        host.module("gm_core.errors").ModelFileError, match=r"^d\.safetensors: .*encoder_hid_proj"
    ):
        load(path)
