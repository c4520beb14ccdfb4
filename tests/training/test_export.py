"""Exported files: metadata, names, and the same numbers in every reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import training.tensor_files
from gm_core import unet_keys, vae_keys
from gm_core.errors import ModelFileError
from gm_core.gain_coding import GainCoding
from gm_core.gain_map import GainMapSpec
from gm_core.model_info import TEXT_CONTEXT_KEY, GainMapModelInfo
from gm_core.vae_lora import merge_lora
from training.base_model import load_unet, load_vae
from training.export import run
from training.gm_unet import WEIGHTS, find_weights, load_gm_unet, widen
from training.stage1.adapter import FILE, install_adapter, save_adapter, stated_info
from training.stage1.trainer import run as run_stage1
from training.stage2.trainer import run as run_stage2
from training.tensor_files import read_tensors, save_whole

ROOT = Path(__file__).resolve().parents[2]
HOST_SCRIPT = Path(__file__).with_name("load_in_host.py")


def test_a_full_disk_is_named_and_keeps_the_file_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(weights: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    path = tmp_path / "gm_unet.safetensors"
    save_whole({"a": torch.zeros(2)}, path, {})
    before = path.read_bytes()
    monkeypatch.setattr(training.tensor_files, "save_file", full)
    with pytest.raises(ModelFileError, match=r"could not write .*gm_unet\.safetensors: .*No space left"):
        save_whole({"a": torch.ones(2)}, path, {})
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.fixture(scope="module")
def exported(
    configure: Callable[..., Any],
    base: Path,
    photos: Path,
    triples: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Two steps of each stage, exported in float32."""
    work = tmp_path_factory.mktemp("exported")
    common = {"pretrained_model_name_or_path": base, "max_train_steps": 2}
    first = {"train_metadata": [photos], "output_dir": work / "stage1", "learning_rate": 1e-2}
    run_stage1(configure("stage1", **common, **first))
    coding = {"prediction_type": "v", "gain_encoding": "log2", "gain_log2_min": -3.0}
    second = {"train_metadata": [triples], "output_dir": work / "stage2", "dataset_cache_dir": work / "cache"}
    run_stage2(configure("stage2", **common, **second, **coding))
    run(
        configure(
            "export",
            output_dir=work / "export",
            stage1=work / "stage1",
            stage2=work / "stage2",
            pretrained_model_name_or_path=base,
            dtype="float32",
            use_ema=False,
            author="A. Nonymous",
        )
    )
    return work


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(2, 8, 8, 8, generator=random), torch.tensor([10, 800])


def trained_unet(folder: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(folder / "stage2" / "checkpoint-00000002" / "unet")


def test_the_single_file_computes_what_was_trained(exported: Path, base: Path) -> None:
    loaded = load_gm_unet(str(exported / "export" / "gm_unet.safetensors"), load_unet(str(base)).config)
    x, t = inputs()
    assert loaded.text_context is not None
    context = loaded.text_context.expand(2, -1, -1)
    with torch.no_grad():
        expected = trained_unet(exported)(x, t, encoder_hidden_states=context).sample
        found = loaded.unet(x, t, encoder_hidden_states=context).sample
        folder = UNet2DConditionModel.from_pretrained(exported / "export" / "unet")
        again = folder(x, t, encoder_hidden_states=context).sample
    assert (found - expected).abs().max() < 1e-5 and (again - expected).abs().max() < 1e-5


def test_the_single_file_describes_itself(exported: Path) -> None:
    tensors, metadata = read_tensors(exported / "export" / "gm_unet.safetensors")
    info = GainMapModelInfo.from_metadata(metadata)
    assert (info.prediction, info.coding.encoding, info.coding.log2_min) == ("v", "log2", -3.0)
    assert info.steps == 30 and info.gamut == "bt2020" and info.input_order == "sdr_gm"
    assert unet_keys.is_ldm(tensors) and tensors[TEXT_CONTEXT_KEY].shape == (1, 16, 32)
    assert (
        metadata["modelspec.author"] == "A. Nonymous" and metadata["modelspec.color_space"] == "cicp:9,8,0,1"
    )
    assert metadata["modelspec.hash_sha256"].startswith("0x") and "modelspec.license" not in metadata


def test_an_exported_file_is_exported_again_without_loss(
    exported: Path, configure: Callable[..., Any], tmp_path: Path
) -> None:
    first = exported / "export" / "gm_unet.safetensors"
    run(configure("export", output_dir=tmp_path, stage2=first, dtype="float32"))
    expected, found = load_file(first), load_file(tmp_path / "gm_unet.safetensors")
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_exported_folder_has_the_files_text_context(exported: Path, base: Path) -> None:
    config = load_unet(str(base)).config
    file = load_gm_unet(str(exported / "export" / "gm_unet.safetensors"), config).text_context
    folder = load_gm_unet(str(exported / "export" / "unet"), config).text_context
    assert file is not None and folder is not None and torch.equal(file, folder)


def test_another_input_order_is_exported_as_the_papers(
    base: Path, configure: Callable[..., Any], tmp_path: Path
) -> None:
    weights = gm_unet(base).state_dict()
    swapped = unet_keys.swap_condition_first(weights)
    save_file(swapped, tmp_path / "swapped.safetensors", metadata={"gmhdr.input_order": "gm_sdr"})
    config = configure(
        "export", output_dir=tmp_path, stage2=tmp_path / "swapped.safetensors", dtype="float32"
    )
    run(config)
    tensors, metadata = read_tensors(tmp_path / "gm_unet.safetensors")
    assert GainMapModelInfo.from_metadata(metadata).input_order == "sdr_gm"
    assert torch.equal(unet_keys.to_diffusers(tensors)["conv_in.weight"], weights["conv_in.weight"])


def test_the_merged_vae_and_the_lora_compute_what_was_trained(exported: Path, base: Path) -> None:
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    merged = AutoencoderKL.from_pretrained(exported / "export" / "vae")
    single = load_file(exported / "export" / "gm_vae.safetensors")
    again = load_vae(str(base))
    again.load_state_dict(vae_keys.to_diffusers(single))
    lora = load_file(exported / "export" / "gm_vae_lora.safetensors")
    patched = load_vae(str(base))
    patched.load_state_dict(merge_lora(patched.state_dict(), lora, scale=123.0))
    with torch.no_grad():
        expected = merged(picture).sample
        assert not torch.allclose(expected, load_vae(str(base))(picture).sample, atol=1e-3)
        for vae in (again, patched):
            assert (vae(picture).sample - expected).abs().max() < 1e-5


def test_vae_files_say_what_their_maps_mean_where_the_adapter_does(
    configure: Callable[..., Any], base: Path, tmp_path: Path
) -> None:
    vae = install_adapter(load_vae(str(base)), 2)
    named = {name: p for name, p in vae.named_parameters() if p.requires_grad}
    learned = GainMapModelInfo(spec=GainMapSpec(qmax=49.0), coding=GainCoding("log2", 0.0, 5.0))
    save_adapter(named, tmp_path / "new", learned)
    save_adapter(named, tmp_path / "old", learned)
    old = tmp_path / "old" / FILE
    save_file(load_file(old), old)
    for name, expected in (("new", learned), ("old", None)):
        output = tmp_path / f"export_{name}"
        adapter = {"stage1": tmp_path / name, "pretrained_model_name_or_path": base}
        run(configure("export", output_dir=output, **adapter))
        for file in ("gm_vae.safetensors", "gm_vae_lora.safetensors"):
            assert stated_info(output / file) == expected
            assert read_tensors(output / file)[1]["gmhdr.vae_output"] == "sigmoid"


def test_averages_are_preferred_and_files_have_the_dtype_that_was_asked_for(
    exported: Path, configure: Callable[..., Any], base: Path, tmp_path: Path
) -> None:
    stages = {"stage1": exported / "stage1", "stage2": exported / "stage2"}
    run(configure("export", output_dir=tmp_path, pretrained_model_name_or_path=base, **stages))
    last = "checkpoint-00000002"
    average = load_file(exported / "stage2" / last / "unet_ema" / WEIGHTS)
    found = unet_keys.to_diffusers(load_file(tmp_path / "gm_unet.safetensors"))
    assert torch.equal(found["conv_in.weight"], average["conv_in.weight"].half())
    average = load_file(exported / "stage1" / last / "vae_adapter_ema" / FILE)
    lora = load_file(tmp_path / "gm_vae_lora.safetensors")
    assert all(torch.equal(lora[name], value) for name, value in average.items())


def test_overflowing_weights_are_refused(exported: Path, configure: Callable[..., Any]) -> None:
    file = exported / "stage2" / "checkpoint-00000002" / "unet" / WEIGHTS
    tensors, metadata = read_tensors(file)
    tensors["conv_in.weight"] = tensors["conv_in.weight"] + 1e6
    save_file(tensors, exported / "big.safetensors", metadata=metadata)
    config = configure(
        "export", output_dir=exported / "x", stage2=exported / "big.safetensors", dtype="float16"
    )
    with pytest.raises(ModelFileError, match="not finite in torch.float16"):
        run(config)


@pytest.mark.skipif(not os.environ.get("COMFYUI_PATH"), reason="COMFYUI_PATH is not set")
def test_the_real_host_computes_the_same(exported: Path) -> None:
    """The pack's own loader in ComfyUI, which appends the condition after the noise."""
    x, t = inputs()
    file = exported / "export" / "gm_unet.safetensors"
    context = load_file(file)[TEXT_CONTEXT_KEY].expand(2, -1, -1).contiguous()
    save_file({"x": x, "t": t, "context": context}, exported / "inputs.safetensors")
    command = [sys.executable, str(HOST_SCRIPT), os.environ["COMFYUI_PATH"], str(ROOT), str(exported)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    with torch.no_grad():
        expected = trained_unet(exported)(x, t, encoder_hidden_states=context).sample
    found = load_file(exported / "outputs.safetensors")["out"]
    assert (found - expected).abs().max() < 1e-5


def gm_unet(base: Path) -> UNet2DConditionModel:
    torch.manual_seed(0)
    unet = widen(load_unet(str(base)))
    unet.conv_in.weight.data += 0.1 * torch.randn_like(unet.conv_in.weight)
    return unet


def test_whatever_a_user_of_the_original_points_at_is_found(base: Path, tmp_path: Path) -> None:
    unet = gm_unet(base)
    unet.save_pretrained(tmp_path / "save_pipeline" / "unet")
    poisoned = tmp_path / "checkpoint-500" / "unet"
    unet.save_pretrained(poisoned)
    rewritten = json.dumps({"architectures": ["CLIPTextModel"], "attention_head_dim": 12})
    (poisoned / "config.json").write_text(rewritten)
    (poisoned / "model.safetensors").write_bytes(b"text encoder")
    save_file(unet.state_dict(), tmp_path / "bare.safetensors")
    ldm = {f"model.diffusion_model.{name}": v for name, v in unet_keys.to_ldm(unet.state_dict()).items()}
    save_file(ldm, tmp_path / "ldm.safetensors")
    swapped = unet_keys.swap_condition_first(unet.state_dict())
    save_file(swapped, tmp_path / "swapped.safetensors", metadata={"gmhdr.input_order": "gm_sdr"})
    config = load_unet(str(base)).config
    paths = [
        "save_pipeline",
        "save_pipeline/unet",
        "checkpoint-500",
        "checkpoint-500/unet",
        "bare.safetensors",
        "ldm.safetensors",
        "swapped.safetensors",
        f"save_pipeline/unet/{WEIGHTS}",
    ]
    for path in paths:
        found = load_gm_unet(str(tmp_path / path), config).unet.state_dict()
        assert all(torch.equal(found[name], value) for name, value in unet.state_dict().items()), path
    assert (poisoned / "config.json").read_text() == rewritten


def test_wrong_models_are_named(base: Path, tmp_path: Path) -> None:
    unet = load_unet(str(base))
    save_file(unet.state_dict(), tmp_path / "plain.safetensors")
    for plain in (tmp_path / "plain.safetensors", base / "unet"):
        with pytest.raises(ModelFileError, match="no GM UNet: conv_in.weight .*4, 3, 3.*expected 8 input"):
            load_gm_unet(str(plain), unet.config)
    with pytest.raises(ModelFileError, match="does not exist"):
        find_weights(tmp_path / "gone")
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(ModelFileError, match="not opened"):
        find_weights(tmp_path / "model.ckpt")
