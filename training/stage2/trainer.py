"""`python -m training stage2`: the gain-map UNet."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from gm_core.model_info import GainMapModelInfo
from training.base_model import load_scheduler, load_unet, load_vae, trainable_count
from training.config import Stage2Config
from training.data.cache import ContentCache, network_hash
from training.data.crop import bucket_sizes, nearest_bucket
from training.data.decode import image_size, read_bytes
from training.data.rows import Reject
from training.data.samples import CropRule, Loaded, SampleDataset, Triple, load_triple
from training.data.table import RowTable, open_table, stated_sizes
from training.errors import RejectedSample
from training.gm_unet import WEIGHTS, save_gm_unet, widen
from training.optimisation import Optimisation
from training.random_streams import uniform
from training.session import Session, train
from training.stage2.latents import LatentEncoder
from training.stage2.objective import denoising_loss, draw_noise
from training.stage2.text import CaptionEncoder, ConstantContext, open_captions
from training.stage2.validation import Stage2Validation
from training.tensor_files import read_tensors
from training.trackers import Trackers

logger = logging.getLogger(__name__)


class Stage2Task:
    """One optimiser step of Stage 2, and what of it must survive a restart."""

    def __init__(self, config: Stage2Config, accelerator: Accelerator, table: RowTable) -> None:
        self.config = config
        self.accelerator = accelerator
        # Now, not with the first checkpoint: what cannot be said of a model is refused before it is trained.
        self.info = model_info(config)
        model = config.pretrained_model_name_or_path
        self.unet = widen(load_unet(model)).train()
        if config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.alphas: Tensor = load_scheduler(model).alphas_cumprod
        cache = latent_cache(config)
        vae = load_vae(model).to(accelerator.device)
        self.captions = _captions(config, self.unet.config["cross_attention_dim"], cache, accelerator)
        self.prompts = self.captions.as_at_inference()
        posteriors = None
        if cache is not None:
            identity = network_hash(vae, config.spec, config.coding, config.match_qmax)
            posteriors = ContentCache(cache / "latents", identity)
        self.latents = LatentEncoder(
            vae,
            spec=config.spec,
            coding=config.coding,
            match_spec=config.match_qmax,
            sample=config.sample_latents,
            seed=config.seed,
            cache=posteriors,
        )
        rule = CropRule(
            config.seed,
            config.center_crop,
            config.random_flip,
            config.cache_variants if cache is not None else None,
        )
        known = posteriors.get if posteriors is not None else _nothing_cached
        self.dataset = SampleDataset(table, functools.partial(load_triple, rule, known))
        self.validation = None
        if accelerator.is_main_process:
            self.validation = Stage2Validation(config, vae, self.prompts, self.alphas)

    def prepare(self, total_steps: int) -> None:
        """Place the UNet and create its optimiser."""
        self.unet.to(self.accelerator.device)
        self.optimisation = Optimisation(
            accelerator=self.accelerator,
            module=self.unet,
            rate=self.config.learning_rate,
            config=self.config,
            total_steps=total_steps,
        )
        self.network = self.accelerator.prepare_model(self.unet)
        logger.info("GM UNet: %d trainable values", trainable_count(self.unet))

    def update(self, step: int, batches: Sequence[list[Loaded[Triple]]]) -> dict[str, float]:
        """Accumulate gradients over the micro-batches, then step."""
        total = 0.0
        for position, batch in enumerate(batches):
            last = position == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.network):
                loss = self.loss(batch) / len(batches)
                self.accelerator.backward(loss)
            total += float(loss.detach())
        return {"loss": total, **self.optimisation.apply(step)}

    def loss(self, batch: list[Loaded[Triple]]) -> Tensor:
        """Mean denoising loss of a micro-batch."""
        config, device = self.config, self.accelerator.device
        triples = [loaded.sample for loaded in batch]
        numbers = [triple.number for triple in triples]
        condition, gain_map = self.latents(triples, device)
        noise = draw_noise(
            config.seed,
            numbers,
            gain_map.shape[1:],
            timesteps=len(self.alphas),
            offset=config.noise_offset,
            perturbation=config.input_perturbation,
        )
        return denoising_loss(
            self.predict,
            condition=condition,
            gain_map=gain_map,
            context=self.captions(self.spoken(triples), device),
            noise=noise,
            alphas=self.alphas,
            prediction=config.prediction_type,
            snr_gamma=config.snr_gamma,
        ).mean()

    def predict(self, sample: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The UNet as a function of tensors."""
        return self.network(sample, t, encoder_hidden_states=context).sample

    def spoken(self, triples: Sequence[Triple]) -> list[str]:
        """Captions after dropout."""
        if self.config.text != "captions":
            return [""] * len(triples)
        draws = uniform(self.config.seed, "caption dropout", [triple.number for triple in triples])
        dropped = (draws < self.config.caption_dropout).tolist()
        return ["" if drop else triple.row.text for triple, drop in zip(triples, dropped, strict=True)]

    def save(self, folder: Path) -> None:
        """UNet, its average and the optimiser."""
        context = self.prompts([""], self.accelerator.device)
        save_gm_unet(self.unet.state_dict(), self.unet, self.info, context, folder / "unet")
        if self.optimisation.ema is not None:
            averaged = dict(self.unet.state_dict()) | self.optimisation.ema.shadow
            save_gm_unet(averaged, self.unet, self.info, context, folder / "unet_ema")
        self.optimisation.save(folder, "optimiser")

    def load(self, folder: Path) -> None:
        """Continue from `save`."""
        self.unet.load_state_dict(read_tensors(folder / "unet" / WEIGHTS)[0])
        self.optimisation.load(folder, "optimiser")

    def validate(self, step: int, trackers: Trackers) -> dict[str, float]:
        """Strips and figures with the averaged weights where there are any; the first process's work."""
        assert self.validation is not None
        ema = self.optimisation.ema
        with ema.swapped_in() if ema is not None else nullcontext():
            self.unet.eval()
            values = self.validation.run(step, self.unet, trackers, self.accelerator.device)
            self.unet.train()
        return values


def model_info(config: Stage2Config) -> GainMapModelInfo:
    """What the saved model says about itself. Raises: GainMapError for values that no model can state."""
    return GainMapModelInfo(
        spec=config.spec,
        coding=config.coding,
        gamut=config.gamut,
        prediction=config.prediction_type,
        steps=config.recommended_steps,
        working_side=config.working_side,
        training=f"stage2 {config.preset}, text {config.text}, {config.resolution} px",
    )


def latent_cache(config: Stage2Config) -> Path | None:
    """Folder of cached latents and text states, None when caching is off or nothing may be written."""
    if not config.cache_latents or config.dry_run:
        return None
    return Path(config.dataset_cache_dir or Path(config.output_dir) / "cache")


def training_sizes(config: Stage2Config, table: RowTable) -> list[tuple[int, int]]:
    """(height, width) to which each row is cropped."""
    square = (config.resolution, config.resolution)
    if not config.buckets:
        return [square] * len(table)
    buckets = bucket_sizes(config.resolution, config.bucket_step)
    stated = stated_sizes(table)
    if stated is not None:
        found = {size: nearest_bucket(size, buckets) for size in set(stated)}
        return [found[size] for size in stated]
    return [_bucket(table[index], buckets, square) for index in range(len(table))]


def run(config: Stage2Config) -> None:
    """Train as configured."""

    def build(accelerator: Accelerator) -> Session:
        table = open_table(
            config.train_metadata,
            cache_dir=config.dataset_cache_dir,
            image_root=config.image_root,
            limit=config.max_train_samples,
        )
        task = Stage2Task(config, accelerator, table)
        return Session(task, task.dataset, training_sizes(config, table))

    train(config, build)


def _bucket(row: Any, buckets: list[tuple[int, int]], fallback: tuple[int, int]) -> tuple[int, int]:
    if isinstance(row, Reject):
        return fallback
    try:
        return nearest_bucket(image_size(read_bytes(row.image)), buckets)
    except RejectedSample:
        return fallback


def _captions(
    config: Stage2Config, width: int, cache: Path | None, accelerator: Accelerator
) -> CaptionEncoder | ConstantContext:
    return open_captions(
        config.text,
        config.pretrained_model_name_or_path,
        width=width,
        mask_padding=config.mask_padding,
        cache_root=cache,
        device=accelerator.device,
    )


def _nothing_cached(content: str) -> dict[str, Tensor] | None:
    return None
