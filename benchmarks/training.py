"""`make bench-training`: images per second and peak memory of both trainers and of the triple builder.

Stage 2's step is measured beside the step of diffusers' text-to-image example (same UNet class and batch; it
encodes one picture a sample, Stage 2 encodes two). `--size sd15` needs a GPU with 40 GB; weights are random.
"""

from __future__ import annotations

import argparse
import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.training_reference import ReferenceStep
from training.config import Stage1Config, Stage2Config, TriplesConfig
from training.data.plan import RankBatches, SamplingPlan
from training.data.samples import Loaded, make_loader
from training.data.table import open_table
from training.stage1.trainer import Stage1Task
from training.stage2.trainer import Stage2Task
from training.tiny import make_base_model, make_photos
from training.triples import run as run_triples

WARM_UP = 2
PHOTOS = 32


@dataclass(frozen=True)
class Size:
    """resolution and batch of a measurement; steps are timed after WARM_UP more."""

    resolution: int
    batch: int
    steps: int


SIZES = {"tiny": Size(64, 4, 10), "sd15": Size(512, 8, 20)}


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    size = SIZES[options.size]
    with TemporaryDirectory() as name:
        folder = Path(name)
        base = prepare(folder, options.size)
        print(
            f"{options.size}: {size.resolution} px, batch {size.batch}, {options.precision}, {device_name()}"
        )
        report("triples", measure_triples(folder, base, size), 1)
        report("stage 1 step", measure_stage1(folder, base, size, options.precision), size.batch)
        report(
            "stage 1 step, no discriminator",
            measure_stage1(folder, base, size, options.precision, 0.0),
            size.batch,
        )
        ours = measure_stage2(folder, base, size, options.precision)
        report("stage 2 step", ours, size.batch)
        cached = measure_stage2(folder, base, size, options.precision, cache_latents=True)
        report("stage 2 step, latents cached", cached, size.batch)
        reference = measure_reference(base, size, options.precision)
        report("diffusers text-to-image step", reference, size.batch)
        print(f"stage 2 takes {ours / reference:.2f} of that, {cached / reference:.2f} with cached latents")


def prepare(folder: Path, name: str) -> Path:
    """Random models, photos and closed-form triples."""
    base = make_base_model(folder / "base")
    side = SIZES[name].resolution
    if name == "sd15":
        from benchmarks.training_reference import write_sd15

        write_sd15(base)
    make_photos(folder / "photos", PHOTOS, side=side)
    return base


def measure_triples(folder: Path, base: Path, size: Size) -> float:
    """Seconds per picture, decoding and writing included."""
    started = time.perf_counter()
    run_triples(
        TriplesConfig(
            source=[str(folder / "photos")],
            pretrained_model_name_or_path=str(base),
            output_dir=str(folder / "triples"),
            resolution=size.resolution,
            batch_size=size.batch,
            rows_per_shard=PHOTOS,
        )
    )
    return (time.perf_counter() - started) / PHOTOS


def measure_stage1(folder: Path, base: Path, size: Size, precision: str, adversarial: float = 1.0) -> float:
    """Seconds per step of generator and discriminator."""
    config = Stage1Config(
        train_metadata=[str(folder / "photos")],
        adversarial_weight=adversarial,
        discr_start_step=0,
        discr_depth=6 if size.resolution >= 256 else 3,
        **shared(folder, base, size, precision),
    )
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    task = Stage1Task(config, accelerator)
    return seconds_per_step(task, config)


def measure_stage2(
    folder: Path, base: Path, size: Size, precision: str, cache_latents: bool = False
) -> float:
    """Seconds per step; with the cache every latent is known before the first timed step."""
    config = Stage2Config(
        train_metadata=[str(folder / "triples")],
        dataset_cache_dir=str(folder / "cache"),
        cache_latents=cache_latents,
        center_crop=True,
        random_flip=False,
        **shared(folder, base, size, precision),
    )
    table = open_table(config.train_metadata, cache_dir=config.dataset_cache_dir, image_root=None, limit=None)
    task = Stage2Task(config, Accelerator(mixed_precision=config.mixed_precision), table)
    if cache_latents:
        # Writing the cache is the first epoch's cost, not a step's.
        for batch in draws(task, config, PHOTOS // size.batch + 1):
            task.latents([loaded.sample for loaded in batch], task.accelerator.device)
            task.captions(task.spoken([loaded.sample for loaded in batch]), task.accelerator.device)
    return seconds_per_step(task, config)


def measure_reference(base: Path, size: Size, precision: str) -> float:
    """Seconds per step of the text-to-image example's loop body."""
    step = ReferenceStep(base, Accelerator(mixed_precision=precision), size.resolution, size.batch)
    return timed(step, size.steps)


def shared(folder: Path, base: Path, size: Size, precision: str) -> dict[str, Any]:
    """Settings of both trainers."""
    return {
        "pretrained_model_name_or_path": str(base),
        "output_dir": str(folder / "run"),
        "resolution": size.resolution,
        "train_batch_size": size.batch,
        "max_train_steps": size.steps,
        "mixed_precision": precision,
        "gradient_checkpointing": size.resolution >= 512,
        "dataloader_num_workers": 0,
        "use_ema": False,
    }


def draws(task: Any, config: Any, steps: int) -> list[list[Loaded[Any]]]:
    """Batches as the loader gives them, decoded beforehand."""
    square = (config.resolution, config.resolution)
    plan = SamplingPlan([square] * len(task.dataset), config.train_batch_size, config.seed)
    batches = RankBatches(plan, start=0, stop=steps, rank=0, world=1, micro_batch=config.train_batch_size)
    return list(make_loader(task.dataset, batches, 0))


def seconds_per_step(task: Any, config: Any) -> float:
    """Time of `task.update` alone."""
    task.prepare(config.max_train_steps)
    batches = draws(task, config, config.max_train_steps + WARM_UP)
    source = iter(range(len(batches)))

    def step() -> None:
        number = next(source)
        task.update(number, [batches[number]])

    return timed(step, config.max_train_steps)


def timed(step: Callable[[], None], steps: int) -> float:
    """Median seconds of a call after a warm-up."""
    synchronise = torch.cuda.synchronize if torch.cuda.is_available() else partial(int, 0)
    times = []
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        step()
        synchronise()
        times.append(time.perf_counter() - started)
    return sorted(times[WARM_UP:])[steps // 2]


def report(name: str, seconds: float, images: int) -> None:
    """One line: time, rate, and the peak of memory so far."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
    print(
        f"{name:<34}{seconds * 1000:>9.1f} ms{images / seconds:>9.2f} images/s{memory:>8.2f} GiB", flush=True
    )


def device_name() -> str:
    """Where it runs."""
    return (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
