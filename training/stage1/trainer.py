"""`python -m training stage1`: the unsupervised gain-map VAE."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from gm_core.exposure import ExposureChange, adjust_exposure, draw_exposure
from gm_core.model_info import GainMapModelInfo
from training.base_model import load_vae, trainable_count
from training.config import Stage1Config
from training.data.samples import CropRule, Loaded, Photo, SampleDataset, load_photo
from training.data.table import open_table
from training.optimisation import Optimisation
from training.random_streams import generator, normal, uniform
from training.session import Session, train
from training.stage1.adapter import FILE, fill_adapter, install_adapter, last_conv, save_adapter
from training.stage1.discriminator import Discriminator, DiscriminatorLoss
from training.stage1.losses import PerceptualLoss, adaptive_weight, reconstruction_loss, supervised_loss
from training.stage1.model import Explained, Stage1Model
from training.stage1.validation import Stage1Validation
from training.tensor_files import save_tensors
from training.trackers import Trackers

logger = logging.getLogger(__name__)


class Stage1Task:
    """One optimiser step of Stage 1, generator and discriminator, and what must survive a restart."""

    def __init__(self, config: Stage1Config, accelerator: Accelerator) -> None:
        self.config = config
        self.accelerator = accelerator
        # Now, not with the first checkpoint: what no adapter can state is refused before it is trained.
        self.info = GainMapModelInfo(spec=config.spec, coding=config.coding)
        vae = install_adapter(load_vae(config.pretrained_model_name_or_path), config.lora_rank)
        if config.gradient_checkpointing:
            vae.enable_gradient_checkpointing()
        self.model = Stage1Model(
            vae,
            spec=config.spec,
            coding=config.coding,
            operator=config.bright_tmo,
            clamp_peak=config.clamp_peak,
        )
        self.perceptual = None
        if config.perceptual_weights is not None and config.perceptual_weight > 0:
            self.perceptual = PerceptualLoss(Path(config.perceptual_weights)).to(accelerator.device)
        self.discriminator: Discriminator | None = None
        if config.adversarial_weight > 0:
            sigmoid = config.discr_objective == "sigmoid"
            self.discriminator = Discriminator(config.discr_width, config.discr_depth, sigmoid=sigmoid)
        table = open_table(
            config.train_metadata,
            cache_dir=config.dataset_cache_dir,
            image_root=config.image_root,
            limit=config.max_train_samples,
        )
        rule = CropRule(config.seed, config.center_crop, config.random_flip)
        self.dataset = SampleDataset(table, functools.partial(load_photo, rule))
        self.validation = Stage1Validation(config) if accelerator.is_main_process else None
        self.figures: dict[str, float] = {}

    def prepare(self, total_steps: int) -> None:
        """Place the networks and create their optimisers."""
        device = self.accelerator.device
        self.model.to(device)
        shared: dict[str, Any] = {
            "accelerator": self.accelerator,
            "config": self.config,
            "total_steps": total_steps,
        }
        self.optimisation = Optimisation(module=self.model.vae, rate=self.config.learning_rate, **shared)
        self.network = self.accelerator.prepare_model(self.model)
        logger.info("gain-map VAE: %d trainable values", trainable_count(self.model.vae))
        if self.discriminator is None:
            return
        self.discriminator.to(device)
        self.critic_optimisation = Optimisation(
            module=self.discriminator, rate=self.config.discr_learning_rate, auxiliary=True, **shared
        )
        loss = DiscriminatorLoss(
            self.discriminator, self.config.gradient_penalty, self.config.gradient_penalty_weight
        )
        self.critic = self.accelerator.prepare_model(loss)

    def update(self, step: int, batches: Sequence[list[Loaded[Photo]]]) -> dict[str, float]:
        """One step of the generator, of the discriminator, or of both.

        Where they take turns, the figures of the step before go with it: every other line of the log, or all
        of them, would know of one network only.
        """
        playing = self.discriminator is not None and step >= self.config.discr_start_step
        alternate = self.config.alternate_updates and playing
        generate, criticise = not alternate or step % 2 == 0, playing and (not alternate or step % 2 == 1)
        values: dict[str, float] = {}
        for position, batch in enumerate(batches):
            last = position == len(batches) - 1
            for name, value in self._backward(
                batch, len(batches), generate, criticise, playing, last
            ).items():
                values[name] = values.get(name, 0.0) + value / len(batches)
        applied = self.optimisation.apply(step) if generate else {"skipped": 0.0}
        if criticise:
            critic = self.critic_optimisation.apply(step)
            applied["skipped"] = max(applied["skipped"], critic["skipped"])
            applied["discr_grad_norm"] = critic["grad_norm"]
        values |= applied
        before, self.figures = self.figures, values
        return before | values if alternate else dict(values)

    def _backward(
        self,
        batch: list[Loaded[Photo]],
        parts: int,
        generate: bool,
        criticise: bool,
        playing: bool,
        last: bool,
    ) -> dict[str, float]:
        photos = [loaded.sample for loaded in batch]
        target = torch.stack([photo.sdr for photo in photos]).to(self.accelerator.device)
        values: dict[str, float] = {}
        with self._sync(self.network, last and generate), torch.set_grad_enabled(generate):
            explained = self.explain(target, [photo.number for photo in photos])
            if generate:
                loss, values = self.generator_loss(explained, target, photos, playing)
                self.accelerator.backward(loss / parts)
        if criticise:
            mix = uniform(self.config.seed, "penalty", [photo.number for photo in photos])
            with self._sync(self.critic, last):
                loss = self.critic(explained.sdr, target, mix)
                (loss / parts).backward()
            values["discr_loss"] = float(loss.detach())
        return values

    def explain(self, target: Tensor, numbers: Sequence[int]) -> Explained:
        """Damage the pictures where asked and send them through the network."""
        config = self.config
        sdr = target
        if config.clip_pixel:
            sdr = adjust_exposure(target, draw_changes(config, numbers))
        noise = None
        if config.sample_posterior:
            shape = (4, target.shape[2] // 8, target.shape[3] // 8)
            noise = normal(config.seed, "posterior", numbers, shape).to(target.device)
        return self.network(sdr, noise)

    def generator_loss(
        self, explained: Explained, target: Tensor, photos: Sequence[Photo], playing: bool
    ) -> tuple[Tensor, dict[str, float]]:
        """Weighted sum of the terms, and each of them."""
        config = self.config
        terms = {"reconstruction_loss": reconstruction_loss(explained.sdr, target, config.vae_loss)}
        reference = terms["reconstruction_loss"]
        total = reference
        if self.perceptual is not None:
            reference = terms["perceptual_loss"] = self.perceptual(explained.sdr, target)
            total = total + config.perceptual_weight * reference
        known = [index for index, photo in enumerate(photos) if photo.hdr is not None]
        if known and config.supervised_weight > 0:
            truth = torch.stack([photos[index].hdr for index in known]).to(target)  # type: ignore[misc]
            truth = truth.clamp(max=config.qmax + 1)
            # Every picture counts as one of its batch, or small micro-batches would weigh the term otherwise.
            share = len(known) / len(photos)
            error = supervised_loss(explained.hdr[known], truth, config.spec.offset)
            terms["supervised_loss"] = share * error
            total = total + config.supervised_weight * terms["supervised_loss"]
        if playing:
            terms["adversarial_loss"] = self._adversarial(explained.sdr)
            terms["adversarial_weight"] = self._balance(reference, terms["adversarial_loss"])
            weight = config.adversarial_weight * terms["adversarial_weight"]
            total = total + weight * terms["adversarial_loss"]
        return total, {"loss": float(total.detach()), **{k: float(v.detach()) for k, v in terms.items()}}

    def _adversarial(self, explained: Tensor) -> Tensor:
        assert self.discriminator is not None
        # Only the picture gets a gradient here; the discriminator's own comes from its own step.
        self.discriminator.requires_grad_(False)
        with torch.autocast(explained.device.type, enabled=False):
            loss = -self.discriminator(explained).mean()
        self.discriminator.requires_grad_(True)
        return loss

    def _balance(self, reference: Tensor, adversarial: Tensor) -> Tensor:
        gradients: list[Any] = [
            self.accelerator.reduce(self._last_gradient(loss), reduction="mean")
            for loss in (reference, adversarial)
        ]
        return adaptive_weight(*gradients)

    def _last_gradient(self, loss: Tensor) -> Tensor:
        weight, scaler = last_conv(self.model.vae).weight, self.accelerator.scaler
        if scaler is None:
            return torch.autograd.grad(loss, weight, retain_graph=True)[0]
        # Per pixel it is below fp16's smallest number, like the gradients that the scaler is there for.
        return torch.autograd.grad(scaler.scale(loss), weight, retain_graph=True)[0] / scaler.get_scale()

    def _sync(self, network: Any, last: bool) -> Any:
        return nullcontext() if last else self.accelerator.no_sync(network)

    def save(self, folder: Path) -> None:
        """Adapter, its average, discriminator, optimisers."""
        save_adapter(self.optimisation.parameters, folder / "vae_adapter", self.info)
        if self.optimisation.ema is not None:
            save_adapter(self.optimisation.ema.shadow, folder / "vae_adapter_ema", self.info)
        self.optimisation.save(folder, "optimiser")
        if self.discriminator is not None:
            weights = {
                name: value.cpu().contiguous() for name, value in self.discriminator.state_dict().items()
            }
            (folder / "discriminator").mkdir()
            save_tensors(weights, folder / "discriminator" / "diffusion_pytorch_model.safetensors")
            self.critic_optimisation.save(folder, "discr_optimiser")

    def load(self, folder: Path) -> None:
        """Continue from `save`."""
        fill_adapter(self.model.vae, load_file(folder / "vae_adapter" / FILE), str(folder))
        self.optimisation.load(folder, "optimiser")
        if self.discriminator is not None:
            file = folder / "discriminator" / "diffusion_pytorch_model.safetensors"
            self.discriminator.load_state_dict(load_file(file))
            self.critic_optimisation.load(folder, "discr_optimiser")

    def validate(self, step: int, trackers: Trackers) -> dict[str, float]:
        """Strips and figures with the averaged weights where there are any; the first process's work."""
        assert self.validation is not None
        ema = self.optimisation.ema
        with ema.swapped_in() if ema is not None else nullcontext():
            return self.validation.run(step, self.model, trackers, self.accelerator.device)


def draw_changes(config: Stage1Config, numbers: Sequence[int]) -> ExposureChange:
    """Exposure damage per sample, or (as published) the same for the whole batch."""
    drawn = numbers if config.exposure_per_sample else numbers[:1]
    changes = [
        draw_exposure(
            1, generator=generator(config.seed, "exposure", n), probability=config.exposure_probability
        )
        for n in drawn
    ]
    repeats = 1 if config.exposure_per_sample else len(numbers)
    return ExposureChange(*(torch.cat(values).repeat(repeats) for values in zip(*changes, strict=True)))


def run(config: Stage1Config) -> None:
    """Train as configured."""

    def build(accelerator: Accelerator) -> Session:
        task = Stage1Task(config, accelerator)
        size = (config.resolution, config.resolution)
        return Session(task, task.dataset, [size] * len(task.dataset))

    train(config, build)
