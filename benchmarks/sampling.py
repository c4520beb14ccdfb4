"""`make bench-sampling`: what dual sampling costs beside the network evaluations it needs.

The networks are SD 1.5's, with random weights: cost does not depend on them. Needs 5 GB of memory.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from benchmarks.figures import Figure, at_most, report
from benchmarks.stages import PACK, Engine, load_engine
from scripts.console import Step
from scripts.host import current_host

REPEATS = 3
PAPER_EVALUATIONS = 3
"""Of the paper's loop, per step: CFG's two of the SDR branch, one of the gain map's (no CFG on it)."""
OVERHEAD_PERCENT = 3.0
FINAL_PERCENT = 10.0
SHORTEST_RUN = 4
"""Steps: as few as a usual run ever has."""

SD15_LAYOUT = {
    **{"image_size": 32, "out_channels": 4, "channel_mult": [1, 2, 4, 4], "num_res_blocks": [2, 2, 2, 2]},
    **{"transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1, "context_dim": 768},
    **{"transformer_depth_output": [1] * 9 + [0] * 3, "use_spatial_transformer": True, "legacy": False},
    **{"use_linear_in_transformer": False, "adm_in_channels": None, "use_temporal_attention": False},
}
SD15_WIDTH, NARROW = 320, 64
SIDE = 32
"""Of the latents: 256x256 pixels. At 64 the attention that ComfyUI has for CPUs would take minutes."""


class Evaluation(NamedTuple):
    """One call of a network: pictures in its batch, and when it ran."""

    rows: int
    start: float
    end: float


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def watched(patcher: Any) -> Iterator[list[Evaluation]]:
    """Every evaluation of a model's network while it is entered."""
    seen: list[Evaluation] = []
    starts: list[float] = []
    network = patcher.model.diffusion_model
    before = network.register_forward_pre_hook(lambda *_: starts.append(now()))
    after = network.register_forward_hook(
        lambda _, inputs, __: seen.append(Evaluation(len(inputs[0]), starts.pop(), now()))
    )
    yield seen
    before.remove()
    after.remove()


def random_model(family: str, *, channels: int, width: int) -> Any:
    """A ComfyUI MODEL of one of core's SD 1.5 families with random weights in fp32."""
    management = importlib.import_module("comfy.model_management")
    layout = {**SD15_LAYOUT, "in_channels": channels, "model_channels": width}
    config = getattr(importlib.import_module("comfy.supported_models"), family)(layout)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    for parameter in model.parameters():
        parameter.uniform_(-0.02, 0.02)
    return importlib.import_module("comfy.model_patcher").ModelPatcher(
        model, load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
    )


def dual_sampling(sdr_model: Any, gm_model: Any, mode: str, *, steps: int) -> Callable[[], Any]:
    """What GM Dual Sampler runs."""
    latents = importlib.import_module(f"{PACK}.nodes.engine.latents")
    prompt = [[torch.randn(1, 77, 768), {"pooled_output": None}]]
    latent = {"samples": torch.zeros(1, 4, SIDE, SIDE)}
    settings = {"seed": 0, "steps": steps, "cfg": 7.5, "sampler_name": "euler", "scheduler": "normal"}

    def run() -> Any:
        gm_pass = latents.gain_map_pass(gm_model, prompt, None, None, latent, mode)
        return latents.sample_like_ksampler(
            sdr_model, gm_pass, latent, positive=prompt, negative=prompt, denoise=1.0, **settings
        )

    return run


def measure_trajectory() -> list[Figure]:
    """The paper's mode: evaluations, and the time of a run that is spent outside of them."""
    steps = 4
    sdr_model = random_model("SD15", channels=4, width=NARROW)
    gm_model = random_model("SD15_instructpix2pix", channels=8, width=NARROW)
    load = importlib.import_module(f"{PACK}.nodes.engine.load")
    info = importlib.import_module(f"{PACK}.gm_core.model_info").GainMapModelInfo()
    gm_model.set_attachments(load.INFO_KEY, info)
    run = dual_sampling(sdr_model, gm_model, "trajectory", steps=steps)
    run()
    counts, overheads = [], []
    for _ in range(REPEATS):
        start = now()
        with watched(sdr_model) as sdr, watched(gm_model) as gain_map:
            run()
        whole, inside = now() - start, sum(call.end - call.start for call in (*sdr, *gain_map))
        counts.append(sum(call.rows for call in (*sdr, *gain_map)) / steps)
        overheads.append(100 * (whole / inside - 1))
    return [
        at_most("UNet evaluations per step of dual sampling", max(counts), PAPER_EVALUATIONS),
        at_most("time outside of its evaluations", statistics.median(overheads), OVERHEAD_PERCENT, "%"),
    ]


def measure_final(engine: Engine) -> list[Figure]:
    """The built-in model beside a short run of SD 1.5 at its real width; 30 steps would hide far more."""
    sdr_model = random_model("SD15", channels=4, width=SD15_WIDTH)
    run = dual_sampling(sdr_model, engine.unet, "final", steps=SHORTEST_RUN)
    run()
    added = []
    for _ in range(REPEATS):
        start = now()
        with watched(sdr_model) as sdr:
            run()
        plain, whole = sdr[-1].end - start, now() - start
        added.append(100 * (whole / plain - 1))
    name = f"`final` added to {SHORTEST_RUN} steps of SD 1.5"
    return [at_most(name, statistics.median(added), FINAL_PERCENT, "%")]


@torch.inference_mode()
def main() -> None:
    engine = load_engine(current_host())
    with Step("Both branches step by step"):
        figures = measure_trajectory()
    with Step("The built-in model after SD 1.5 at full width"):
        figures += measure_final(engine)
    report(figures)


if __name__ == "__main__":
    main()
