"""`make bench-model`: CPU seconds that the built-in model takes from an SDR picture to an HDR picture on one
core, and memory; exit code 1 if one is over its limit.

The nodes of the shipped workflow run one after the other with their defaults: GM Sampler (SDR to HDR), GM VAE
Decode with its guide, HDR Merge. CPU time does not depend on what else runs, but for a share of the caches.
"""

from __future__ import annotations

import importlib
import resource
import statistics
import time
from collections.abc import Callable

import torch
from PIL import Image, ImageOps

from benchmarks.figures import at_most, report
from benchmarks.stages import PACK, REPEATS, Engine, load_engine
from scripts.console import Step
from scripts.demo import PHOTO
from scripts.host import current_host

LIMITS = {(512, 512): 2.0, (1920, 1080): 6.0}
"""CPU seconds by width and height."""
MEMORY_GB = 2.0


def read_photo(size: tuple[int, int]) -> torch.Tensor:
    """The demo photo as IMAGE [1,H,W,3], cropped to a size."""
    with Image.open(PHOTO) as image:
        fitted = ImageOps.fit(image.convert("RGB"), size)
    pixels = torch.frombuffer(bytearray(fitted.tobytes()), dtype=torch.uint8)
    return pixels.view(1, fitted.height, fitted.width, 3).float() / 255


def pipeline(engine: Engine) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the shipped workflow does between LoadImage and the savers."""
    sampling, decoding, images = (
        importlib.import_module(f"{PACK}.nodes.{name}") for name in ("sampling", "decoding", "images")
    )
    sampler = {"seed": 0, "steps": 0, "sampler_name": "euler", "scheduler": "normal", "working_side": 0}

    def run(sdr: torch.Tensor) -> torch.Tensor:
        (latent,) = sampling.UpconvertSampler.execute(engine.unet, engine.vae, sdr, **sampler).args
        decoded = decoding.GainMapDecode.execute(latent, engine.vae, tile_size=0, overlap=64, guide=sdr)
        gain_map, qmax, primaries = decoded.args
        return images.Merge.execute(sdr, gain_map, qmax, primaries, "bt709").args[0]

    return run


def cpu_seconds(run: Callable[[], object]) -> float:
    """Median over a few runs after a first one that does not count."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    run = pipeline(load_engine(current_host(), cpu=True))
    figures = []
    for size, limit in LIMITS.items():
        sdr, name = read_photo(size), f"SDR to HDR, {size[0]}x{size[1]}, one core"
        with Step(name):
            figures.append(at_most(name, cpu_seconds(lambda sdr=sdr: run(sdr)), limit, "s"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    figures.append(at_most("peak memory of the process", peak, MEMORY_GB, "GB"))
    report(figures)


if __name__ == "__main__":
    main()
