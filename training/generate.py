"""`python -m training generate`: text or pictures to SDR, gain map and HDR files, without ComfyUI."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gm_core.gain_map import GainMapSpec, merge_hdr
from gm_core.model_info import GainMapModelInfo
from gm_core.resample import resize_to_working, upsample_gain_map
from training.base_model import load_scheduler, load_text, load_unet, load_vae
from training.config import GenerateConfig
from training.data.decode import decode_sdr, read_bytes
from training.data.sources import PICTURES, pictures_below
from training.errors import ConfigError, DatasetError, RejectedSample
from training.gm_unet import load_gm_unet
from training.outputs import Result, write_result
from training.pictures import decode_latent, encode_picture, from_image
from training.processes import is_alone, is_first, own_device, own_share
from training.sampling import PREDICTIONS, make_scheduler, sample_dual, sample_gain_map
from training.stage2.text import CaptionEncoder, ConstantContext
from training.stage2.validation import read_prompts

logger = logging.getLogger(__name__)

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Settings:
    """What a generation needs beside the networks."""

    steps: int
    scheduler: str
    scheduler_config: str | None
    guidance_scale: float
    seed: int


class GainMapDiffusion:
    """The networks of Stage 3 on one device.

    Args:
        config: names the files.
        with_text: also load what text to HDR needs: SDR UNet and text encoder.
    """

    def __init__(self, config: GenerateConfig, *, with_text: bool) -> None:
        self.device = own_device()
        self.dtype = DTYPES[config.mixed_precision]
        model = config.pretrained_model_name_or_path
        base_unet: Any = load_unet(model)
        loaded = load_gm_unet(config.unet_ckpt, base_unet.config)
        gm_unet: Any = loaded.unet
        self.info: GainMapModelInfo = loaded.info
        self.stored_context = loaded.text_context
        self.gm_unet = gm_unet.to(self.device, self.dtype)
        self.sdr_unet = base_unet.eval().to(self.device, self.dtype) if with_text else None
        vae: Any = load_vae(model)
        self.vae = vae.to(self.device)
        schedule = load_scheduler(model)
        self.alphas: Tensor = schedule.alphas_cumprod
        self.base_prediction = stated_prediction(schedule, model)
        self.captions: CaptionEncoder | ConstantContext | None = None
        if with_text or self.stored_context is None:
            tokenizer, encoder = load_text(model)
            self.captions = CaptionEncoder(tokenizer, encoder.to(self.device), mask_padding=False, cache=None)

    def context(self, prompt: str) -> Tensor:
        """Text state [1,n,c] of the gain-map branch: stored where there is no prompt or no text at all."""
        stored = self.stored_context
        if stored is not None and (not prompt or stored.shape[1] == 1):
            return stored.to(self.device, self.dtype)
        return self._spoken(prompt)

    def from_latent(self, latent: Tensor, prompt: str, settings: Settings) -> Tensor:
        """Gain-map latent of SDR latents [1,4,h,w] in model space."""
        scheduler = self._scheduler(settings, self.info.prediction)
        noise = start_noise(latent, settings.seed)
        return sample_gain_map(
            self._network(self.gm_unet, self.context(prompt)),
            latent,
            noise,
            scheduler,
            settings.steps,
            settings.seed,
        )

    def from_text(self, prompt: str, negative: str, size: int, settings: Settings) -> tuple[Tensor, Tensor]:
        """SDR and gain-map latents [1,4,h,w] in model space for a prompt."""
        like = torch.empty(1, 4, size // 8, size // 8, device=self.device)
        guided = self._guided(self._spoken(prompt), self._spoken(negative), settings.guidance_scale)
        return sample_dual(
            guided,
            self._network(self.gm_unet, self.context(prompt)),
            start_noise(like, settings.seed),
            self._scheduler(settings, self.base_prediction),
            settings.steps,
            self.info.prediction,
            settings.seed,
        )

    def _spoken(self, text: str) -> Tensor:
        assert self.captions is not None
        return self.captions([text], self.device).to(self.dtype)

    def _scheduler(self, settings: Settings, prediction: str) -> Any:
        return make_scheduler(settings.scheduler, self.alphas, prediction, settings.scheduler_config)

    def _network(self, unet: Any, context: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        def predict(sample: Tensor, t: Tensor) -> Tensor:
            # The sampler's arithmetic stays in float32 whatever the network runs in.
            return unet(sample.to(self.dtype), t, encoder_hidden_states=context).sample.float()

        return predict

    def _guided(self, positive: Tensor, negative: Tensor, scale: float) -> Callable[[Tensor, Tensor], Tensor]:
        conditional = self._network(self.sdr_unet, positive)
        if scale <= 1:
            return conditional
        unconditional = self._network(self.sdr_unet, negative)

        def predict(sample: Tensor, t: Tensor) -> Tensor:
            free = unconditional(sample, t)
            return free + scale * (conditional(sample, t) - free)

        return predict


def run(config: GenerateConfig) -> None:
    """Convert every picture, or render every prompt."""
    prompts = read_prompts(config.validation_prompts, config.validation_prompt_file)
    files = [] if config.sdr_input_path is None else find_pictures(Path(config.sdr_input_path))
    if files and len(prompts) not in (0, 1, len(files)):
        raise ConfigError(f"{len(prompts)} prompts for {len(files)} pictures; give none, one, or one each")
    output = Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    if is_first():
        config.save(output / "config.yaml")
    models = GainMapDiffusion(config, with_text=not files or bool(prompts))
    settings = Settings(
        steps=models.info.steps_for(config.num_inference_steps),
        scheduler=config.scheduler,
        scheduler_config=config.scheduler_config,
        guidance_scale=config.guidance_scale,
        seed=config.seed,
    )
    spec = models.info.spec if config.qmax is None else GainMapSpec(qmax=config.qmax)
    done = _convert(models, config, settings, spec, files, prompts) if files else 0
    if not files:
        done = _render(models, config, settings, spec, prompts)
    logger.info("wrote %d results to %s", done, output)


def _convert(
    models: GainMapDiffusion,
    config: GenerateConfig,
    settings: Settings,
    spec: GainMapSpec,
    files: Sequence[tuple[str, Path]],
    prompts: Sequence[str],
) -> int:
    spoken = prompts if len(prompts) > 1 else [*prompts, ""][:1] * len(files)
    mine = own_share(list(zip(files, spoken, strict=True)))
    done = 0
    for (name, file), prompt in mine:
        try:
            sdr = from_image(decode_sdr(read_bytes(file), min_side=8)).to(models.device)
        except RejectedSample as reject:
            logger.warning("%s left out: %s", file, reject)
            continue
        result = convert_picture(models, config, settings, spec, sdr, prompt)
        write_result(result, Path(config.output_dir), name, config)
        logger.info("%s", name)
        done += 1
    # Beside others this process knows only of its share, and its failure would end theirs.
    if not done and is_alone():
        raise DatasetError(f"none of the {len(mine)} pictures in {config.sdr_input_path} could be read")
    return done


def convert_picture(
    models: GainMapDiffusion,
    config: GenerateConfig,
    settings: Settings,
    spec: GainMapSpec,
    sdr: Tensor,
    prompt: str,
) -> Result:
    """One picture [1,3,H,W] in [0,1] to HDR at its own size."""
    small = resize_to_working(sdr, working_side(config.resolution, models.info, sdr))
    noise = None
    if config.sample_latents:
        shape = (1, 4, small.shape[2] // 8, small.shape[3] // 8)
        # Not the sampler's noise: the picture's own uncertainty is another draw.
        seed = (settings.seed + 1) % 2**64
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(sdr)
    latent = encode_picture(models.vae, small, noise)
    coded = decode_latent(models.vae, models.from_latent(latent, prompt, settings))
    if coded.shape[2:] != sdr.shape[2:]:
        coded = upsample_gain_map(coded, sdr)
    base = sdr
    if config.base_layer == "reconstruction":
        copy = decode_latent(models.vae, latent)
        base = torch.nn.functional.interpolate(copy, size=sdr.shape[2:], mode="bicubic").clamp(0, 1)
    return merged(base, coded, models.info, spec)


def working_side(wanted: int | None, info: GainMapModelInfo, sdr: Tensor) -> int:
    """Short side at which the model works on a picture, as the nodes choose it; 0 = the picture's own."""
    if wanted is not None:
        return wanted
    return info.side_for(sdr.shape[-2], sdr.shape[-1])


def _render(
    models: GainMapDiffusion,
    config: GenerateConfig,
    settings: Settings,
    spec: GainMapSpec,
    prompts: Sequence[str],
) -> int:
    size = config.resolution or 512
    mine = own_share(list(enumerate(prompts)))
    for number, prompt in mine:
        sdr_latent, gm_latent = models.from_text(prompt, config.negative_prompt, size, settings)
        sdr, coded = decode_latent(models.vae, sdr_latent), decode_latent(models.vae, gm_latent)
        write_result(merged(sdr, coded, models.info, spec), Path(config.output_dir), f"{number:04d}", config)
        logger.info("%04d %s", number, prompt)
    return len(mine)


def merged(sdr: Tensor, coded: Tensor, info: GainMapModelInfo, spec: GainMapSpec) -> Result:
    """Eq. (1) on a picture and the model's coded map, both [1,3,H,W]."""
    gain_map = info.coding.to_gain_map(coded, spec=info.spec, sdr=sdr)
    hdr = merge_hdr(sdr=sdr, gain_map=gain_map, spec=spec)
    return Result(sdr[0].cpu(), gain_map[0].cpu(), hdr[0].cpu(), info.gamut, spec)


def stated_prediction(schedule: Any, model: str) -> str:
    """eps, v or x0, as the base model's scheduler says. Raises: ConfigError when it says something else."""
    stated = schedule.config["prediction_type"]
    if stated not in PREDICTIONS:
        known = ", ".join(PREDICTIONS)
        raise ConfigError(f"the scheduler of {model} has prediction_type {stated!r}; expected one of {known}")
    return PREDICTIONS[stated]


def start_noise(like: Tensor, seed: int) -> Tensor:
    """The noise that ComfyUI draws for this seed and shape: on the CPU, then moved."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(like.device)


def find_pictures(path: Path) -> list[tuple[str, Path]]:
    """(name, file) for a picture or for every picture below a folder; names are unique.

    Raises: ConfigError when there is none.
    """
    if path.is_file():
        return [(path.stem, path)]
    if not path.is_dir():
        raise ConfigError(f"sdr_input_path {path} does not exist; expected a picture or a folder of pictures")
    files = pictures_below(path)
    if not files:
        raise ConfigError(f"sdr_input_path {path} holds no pictures; expected {', '.join(sorted(PICTURES))}")
    stems = ["_".join(file.relative_to(path).with_suffix("").parts) for file in files]
    doubled = {stem for stem, times in Counter(stems).items() if times > 1}
    names = [
        f"{stem}_{file.suffix[1:]}" if stem in doubled else stem
        for stem, file in zip(stems, files, strict=True)
    ]
    return list(zip(_numbered(names), files, strict=True))


def _numbered(names: Sequence[str]) -> Iterator[str]:
    """The names, with a number behind those that came before (`a/b.png` after `a_b.png`)."""
    taken: set[str] = set()
    for name in names:
        candidates = chain([name], (f"{name}_{number}" for number in count(2)))
        chosen = next(candidate for candidate in candidates if candidate not in taken)
        taken.add(chosen)
        yield chosen
