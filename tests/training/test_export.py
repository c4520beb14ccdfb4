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
from gm_core.vae_lora import ADAPTER_CONFIG, merge_lora
from training.base_model import load_unet, load_vae
from training.cli import main
from training.export import run
from training.gm_unet import TEXT_CONTEXT, WEIGHTS, find_weights, load_gm_unet, save_gm_unet, widen
from training.stage1.adapter import FILE, install_adapter, merge_adapter, save_adapter, stated_info
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

    path = tmp_path / "new folder" / "gm_unet.safetensors"
    save_whole({"a": torch.zeros(2)}, path, {})
    before = path.read_bytes()
    monkeypatch.setattr(training.tensor_files, "save_file", full)
    with pytest.raises(ModelFileError, match=r"could not write .*gm_unet\.safetensors: .*No space left"):
        save_whole({"a": torch.ones(2)}, path, {})
    assert path.read_bytes() == before and [*path.parent.iterdir()] == [path]


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


def test_files_of_weights_are_as_readable_as_all_new_files(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    written = {file.stat().st_mode for file in exported.rglob("*.safetensors")}
    assert written == {(tmp_path / "new").stat().st_mode}


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


def save_new_adapter(base: Path, folder: Path) -> None:
    """An adapter of rank 2 that changes the VAE."""
    vae = install_adapter(load_vae(str(base)), 2)
    named = {name: p for name, p in vae.named_parameters() if p.requires_grad}
    for name, parameter in named.items():
        parameter.data += 0.01 * ("lora_B" in name)
    save_adapter(named, folder, GainMapModelInfo())


@pytest.mark.parametrize("beside", [{}, {"r": 2, "lora_alpha": 2}])
def test_an_adapter_is_merged_and_exported_with_the_scale_in_its_own_metadata(
    configure: Callable[..., Any], base: Path, tmp_path: Path, beside: dict[str, int]
) -> None:
    save_new_adapter(base, tmp_path)
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps(beside))
    tensors = load_file(tmp_path / FILE)
    stated = {"lora_adapter_metadata": json.dumps({"vae.r": 2, "vae.lora_alpha": 6})}
    save_file(tensors, tmp_path / FILE, metadata=stated)
    expected = merge_lora(load_vae(str(base)).state_dict(), tensors, scale=3.0)
    merged = merge_adapter(load_vae(str(base)), tmp_path / FILE).state_dict()
    assert all(torch.equal(merged[name], value) for name, value in expected.items())
    given = {"stage1": tmp_path, "pretrained_model_name_or_path": base, "dtype": "float32"}
    run(configure("export", output_dir=tmp_path / "once", **given))
    lora = load_file(tmp_path / "once" / "gm_vae_lora.safetensors")
    assert {value.item() for name, value in lora.items() if name.endswith(".alpha")} == {6.0}


def test_an_exported_adapter_is_exported_again_with_its_scale(
    configure: Callable[..., Any], base: Path, tmp_path: Path
) -> None:
    save_new_adapter(base, tmp_path)
    (tmp_path / ADAPTER_CONFIG).write_text('{"r": 2, "lora_alpha": 6}')
    given = {"pretrained_model_name_or_path": base, "dtype": "float32"}
    run(configure("export", output_dir=tmp_path / "once", stage1=tmp_path, **given))
    lora = tmp_path / "once" / "gm_vae_lora.safetensors"
    run(configure("export", output_dir=tmp_path / "twice", stage1=lora, **given))
    again = load_file(tmp_path / "twice" / lora.name)
    assert {value.item() for name, value in again.items() if name.endswith(".alpha")} == {6.0}


def test_a_damaged_adapter_config_is_named(base: Path, tmp_path: Path) -> None:
    save_new_adapter(base, tmp_path)
    for content, fault in (("{", "not readable as JSON"), ("[]", "expected an object")):
        (tmp_path / ADAPTER_CONFIG).write_text(content)
        with pytest.raises(ModelFileError, match=f"{ADAPTER_CONFIG} .*{fault}.*; copy it again"):
            merge_adapter(load_vae(str(base)), tmp_path / FILE)


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


def test_overflowing_weights_are_refused(
    exported: Path, configure: Callable[..., Any], tmp_path: Path
) -> None:
    file = exported / "stage2" / "checkpoint-00000002" / "unet" / WEIGHTS
    tensors, metadata = read_tensors(file)
    tensors["conv_in.weight"] = tensors["conv_in.weight"] + 1e6
    save_file(tensors, tmp_path / "big.safetensors", metadata=metadata)
    config = configure(
        "export", output_dir=tmp_path / "x", stage2=tmp_path / "big.safetensors", dtype="float16"
    )
    with pytest.raises(ModelFileError, match="not finite in torch.float16"):
        run(config)


@pytest.mark.skipif(not os.environ.get("COMFYUI_PATH"), reason="COMFYUI_PATH is not set")
def test_the_real_host_computes_the_same(exported: Path, tmp_path: Path) -> None:
    """The pack's own loader in ComfyUI, which appends the condition after the noise."""
    x, t = inputs()
    file = exported / "export" / "gm_unet.safetensors"
    context = load_file(file)[TEXT_CONTEXT_KEY].expand(2, -1, -1).contiguous()
    save_file({"x": x, "t": t, "context": context}, tmp_path / "inputs.safetensors")
    command = [
        sys.executable,
        str(HOST_SCRIPT),
        os.environ["COMFYUI_PATH"],
        str(ROOT),
        str(file),
        str(tmp_path),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    with torch.no_grad():
        expected = trained_unet(exported)(x, t, encoder_hidden_states=context).sample
    found = load_file(tmp_path / "outputs.safetensors")["out"]
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


def test_the_text_encoders_description_in_a_checkpoint_of_the_original_is_not_exported(
    base: Path, configure: Callable[..., Any], tmp_path: Path
) -> None:
    gm_unet(base).save_pretrained(tmp_path / "unet")
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"architectures": ["CLIPTextModel"]}))
    run(configure("export", stage2=tmp_path / "unet", output_dir=tmp_path / "export"))
    assert not (tmp_path / "export" / "unet" / "config.json").exists()


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


def test_a_text_context_of_another_name_is_refused(base: Path, tmp_path: Path) -> None:
    unet = widen(load_unet(str(base)))
    save_gm_unet(unet.state_dict(), unet, GainMapModelInfo(), torch.zeros(1, 1, 32), tmp_path)
    save_file({"context": torch.zeros(1, 1, 32)}, tmp_path / TEXT_CONTEXT)
    with pytest.raises(ModelFileError, match=f"{TEXT_CONTEXT} has no tensor .*; copy it again, or remove it"):
        load_gm_unet(str(tmp_path), unet.config)


def test_a_damaged_description_of_a_unet_ends_the_command_with_one_line(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "unet"
    widened = widen(load_unet(str(base)))
    save_gm_unet(widened.state_dict(), widened, GainMapModelInfo(), torch.zeros(1, 1, 32), folder)
    (folder / "config.json").write_text("{")
    models = ["--pretrained_model_name_or_path", str(base), "--unet_ckpt", str(folder)]
    files = ["--output_dir", str(tmp_path / "out"), "--validation_prompts", "a lamp"]
    assert main(["generate", *models, *files]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error and error.endswith("to take the base model's architecture\n")
    assert f"error: {folder / 'config.json'} is not readable as JSON" in error
