"""`training generate` and the sampler node paint the same gain map, both at their defaults."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gm_core.model_info import GainMapModelInfo
from training.base_model import load_unet
from training.generate import GainMapDiffusion, Settings
from training.gm_unet import WEIGHTS, save_gm_unet, widen

ROOT = Path(__file__).resolve().parents[2]
HOST_SCRIPT = Path(__file__).with_name("generate_in_host.py")
# Of five steps the third lies halfway between two timesteps, and a CPU's rounding chooses.
STEPS, SEED = 4, 11


@pytest.mark.skipif(not os.environ.get("COMFYUI_PATH"), reason="COMFYUI_PATH is not set")
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_nodes_paint_the_same_gain_map(
    configure: Any, base: Path, tmp_path: Path, prediction: Any
) -> None:
    torch.manual_seed(0)
    unet = widen(load_unet(str(base)))
    unet.conv_in.weight.data += 0.1 * torch.randn_like(unet.conv_in.weight)
    info = GainMapModelInfo(prediction=prediction)
    save_gm_unet(unet.state_dict(), unet, info, torch.randn(1, 16, 32), tmp_path / "unet")
    config = configure(
        "generate", pretrained_model_name_or_path=base, unet_ckpt=tmp_path / "unet", sdr_input_path="x"
    )
    models = GainMapDiffusion(config, with_text=False)
    condition = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = models.from_latent(condition, "", Settings(STEPS, config.scheduler, None, 1.0, SEED))
    save_file({"condition": condition, "context": models.context("")}, tmp_path / "inputs.safetensors")
    weights = tmp_path / "unet" / WEIGHTS
    command = [sys.executable, str(HOST_SCRIPT), os.environ["COMFYUI_PATH"], str(ROOT), str(weights)]
    command += [str(tmp_path), str(STEPS), str(SEED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = load_file(tmp_path / "outputs.safetensors")["latent"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
