"""Seconds of every stage of SDR to HDR, run one by one inside ComfyUI's own modules.

The limits share out the 20 s that one 768x512 picture may take on two cores.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from PIL import Image

from benchmarks.figures import Figure, at_most
from gm_core.codecs.exr import encode_exr
from gm_core.codecs.radiance import encode_radiance
from gm_core.codecs.ultrahdr import encode_ultrahdr
from gm_core.gain_map import merge_hdr
from gm_core.resample import resize_to_working
from gm_core.shipped import UNET_FILE, VAE_FILE
from gm_core.tone.apply import finished_gain_map
from scripts.comfy_server import device_arguments
from scripts.host import ROOT, Host

REPEATS = 3
LIMITS = {"encode": 1.0, "sampling": 12.0, "decode": 2.0, "upsample": 1.0, "merge": 0.5, "save": 3.0}
PACK = "gmhdr_benchmarked"

Stage = Callable[[], Any]


class Engine(NamedTuple):
    """The pack's code that needs ComfyUI, and the shipped model."""

    vae_engine: ModuleType
    upconvert: ModuleType
    load: ModuleType
    unet: Any
    vae: Any


def load_engine(host: Host, *, cpu: bool = False) -> Engine:
    """Imports ComfyUI and the pack into this process, as ComfyUI would; `cpu` leaves a GPU alone."""
    sys.path.insert(0, str(host.comfyui))
    args = importlib.import_module("comfy.cli_args").args
    args.cpu = cpu or "--cpu" in device_arguments(host.python)
    spec = importlib.util.spec_from_file_location(
        PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACK])
    importlib.import_module("comfy.utils").set_progress_bar_enabled(False)
    vae_engine, upconvert, load = (
        importlib.import_module(f"{PACK}.nodes.engine.{name}") for name in ("vae", "upconvert", "load")
    )
    weights = ROOT / "weights"
    unet = load.load_gm_unet(weights / UNET_FILE)
    vae = vae_engine.load_vae(weights / VAE_FILE)
    unet.set_attachments(load.VAE_KEY, vae)
    return Engine(vae_engine, upconvert, load, unet, vae)


def read_sdr(photo: Path) -> torch.Tensor:
    """[1,3,H,W] in [0,1]."""
    with Image.open(photo) as image:
        pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        return pixels.view(image.height, image.width, 3).permute(2, 0, 1)[None].float() / 255


def seconds(stage: Stage) -> tuple[float, Any]:
    """Median over a few runs after a first one that does not count, and what the stage returns."""
    result, times = stage(), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = stage()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


@torch.inference_mode()
def measure_stages(host: Host, photo: Path) -> list[Figure]:
    engine, sdr = load_engine(host), read_sdr(photo)
    info = engine.load.model_info(engine.unet)
    small = resize_to_working(sdr, info.side_for(*sdr.shape[-2:]))
    taken: dict[str, float] = {}
    taken["encode"], latent = seconds(lambda: engine.vae_engine.encode(engine.vae, small.movedim(1, -1)))
    taken["sampling"], sampled = seconds(lambda: sample(engine, latent, info.steps_for()))
    taken["decode"], coded = seconds(lambda: engine.vae_engine.decode(engine.vae, sampled))
    taken["upsample"], gain_map = seconds(lambda: upsample(engine, coded, sdr))
    taken["merge"], hdr = seconds(lambda: merge_hdr(sdr=sdr, gain_map=gain_map, spec=info.spec))
    taken["save"], _ = seconds(lambda: save(sdr, hdr))
    return [at_most(name, taken[name], limit, "s") for name, limit in LIMITS.items()]


def sample(engine: Engine, latent: torch.Tensor, steps: int) -> torch.Tensor:
    text = engine.load.stored_context(engine.unet)
    return engine.upconvert.sample_gain_map(
        engine.unet, latent, text, seed=0, steps=steps, sampler_name="euler", scheduler="normal"
    )


def upsample(engine: Engine, coded: torch.Tensor, sdr: torch.Tensor) -> torch.Tensor:
    """As GM VAE Decode does it, tones corrected."""
    net = engine.unet.get_attachment(engine.load.TONE_KEY)
    return finished_gain_map(coded, sdr, engine.load.model_info(engine.unet), net=net)


def save(sdr: torch.Tensor, hdr: torch.Tensor) -> None:
    """Encodes every format the demo writes."""
    picture, base = (tensor[0].movedim(0, -1).contiguous().numpy() for tensor in (hdr, sdr))
    encode_ultrahdr(sdr=base, hdr=picture)
    encode_exr(picture)
    encode_radiance(picture)
