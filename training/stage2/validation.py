"""What a Stage 2 model can do: strips of SDR, gain map and HDR, and figures on held-back triples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from gm_core.color import convert_primaries
from gm_core.gain_coding import restate_coded
from gm_core.gain_map import merge_hdr
from gm_core.metrics import pu21_psnr
from training.config import Stage2Config
from training.data.crop import apply_crop, plan_crop
from training.data.decode import decode_gain_map, decode_sdr, read_bytes
from training.data.rows import Reject, Row
from training.data.sources import pictures_below
from training.data.table import open_table
from training.errors import ConfigError, RejectedSample
from training.pictures import decode_latent, encode_picture, strip
from training.random_streams import normal
from training.sampling import make_scheduler, sample_gain_map
from training.stage2.objective import Noise, denoising_loss
from training.trackers import Trackers, average
from training.validation_pictures import first_usable, show_results

# Timesteps at which the denoising loss of held-back triples is measured, with fixed noise.
PROBED_TIMESTEPS = (100, 300, 500, 700, 900)


@dataclass(frozen=True)
class Case:
    """One picture to validate on. gain_map [1,3,H,W] is Eq. (1)'s, where it is known."""

    name: str
    caption: str
    sdr: Tensor
    gain_map: Tensor | None


class Stage2Validation:
    """Fixed pictures, fixed noise, so that only the weights change between validations."""

    def __init__(self, config: Stage2Config, vae: AutoencoderKL, captions: Any, alphas: Tensor) -> None:
        self.config = config
        self.vae = vae
        self.captions = captions
        self.alphas = alphas
        self.cases = load_cases(config) if config.validation_steps else []
        self._scheduler()

    @torch.no_grad()
    def run(self, step: int, unet: Any, trackers: Trackers, device: torch.device) -> dict[str, float]:
        """Write `validation/step-<n>.png` and return the figures."""
        if not self.cases:
            return {}
        results = [self._run_case(number, case, unet, device) for number, case in enumerate(self.cases)]
        show_results([picture for picture, _ in results], self.config.output_dir, step, trackers)
        return average([values for _, values in results])

    def _run_case(
        self, number: int, case: Case, unet: Any, device: torch.device
    ) -> tuple[Tensor, dict[str, float]]:
        config = self.config
        latent = encode_picture(self.vae, case.sdr.to(device))
        context = self.captions([case.caption], device)

        def network(sample: Tensor, t: Tensor) -> Tensor:
            return unet(sample, t, encoder_hidden_states=context).sample

        noise = normal(config.seed, "validation", [number], latent.shape[1:]).to(device)
        result = sample_gain_map(
            network, latent, noise, self._scheduler(), config.validation_sampling_steps, config.seed
        )
        coded = decode_latent(self.vae, result).cpu()
        gain_map = config.coding.to_gain_map(coded, spec=config.spec, sdr=case.sdr)
        hdr = merge_hdr(sdr=case.sdr, gain_map=gain_map, spec=config.spec)
        values = {}
        if case.gain_map is not None:
            values = self._figures(case.sdr, hdr, case.gain_map)
            values["val_loss"] = self._probe(network, latent, case.gain_map.to(device), noise)
        return strip(case.sdr[0], coded[0], hdr[0], config.gamut), values

    def _scheduler(self) -> Any:
        config = self.config
        return make_scheduler("euler", self.alphas, config.prediction_type, config.scheduler_config)

    def _figures(self, sdr: Tensor, hdr: Tensor, gain_map: Tensor) -> dict[str, float]:
        truth = merge_hdr(sdr=sdr, gain_map=gain_map, spec=self.config.spec)
        pair = [
            convert_primaries(picture, self.config.gamut, "bt709").clamp(min=0) for picture in (hdr, truth)
        ]
        return {"val_pu21_psnr": float(pu21_psnr(pair[0], pair[1])[0])}

    def _probe(self, network: Any, condition: Tensor, gain_map: Tensor, noise: Tensor) -> float:
        coded = self.config.coding.from_gain_map(gain_map, spec=self.config.spec)
        latent = encode_picture(self.vae, coded)
        losses = []
        for t in PROBED_TIMESTEPS:
            levels = torch.full((1,), t * len(self.alphas) // 1000, device=latent.device)
            losses.append(
                denoising_loss(
                    lambda sample, at, _: network(sample, at),
                    condition=condition,
                    gain_map=latent,
                    context=condition,
                    noise=Noise(noise, noise, levels),
                    alphas=self.alphas,
                    prediction=self.config.prediction_type,
                )
            )
        return float(torch.cat(losses).mean())


def load_cases(config: Stage2Config) -> list[Case]:
    """Held-back triples, or pictures of a folder with a caption each.

    Raises: ConfigError when captions and pictures do not pair up, and for settings that would go unheard.
    """
    prompts = read_prompts(config.validation_prompts, config.validation_prompt_file)
    _refuse_unheard(config, prompts)
    if config.validation_metadata:
        table = open_table(
            config.validation_metadata,
            cache_dir=config.dataset_cache_dir,
            image_root=config.image_root,
            limit=None,
        )
        rows = (table[index] for index in range(len(table)))
        named = ((row.key, row) for row in rows)
        return first_usable(named, lambda row: _triple_case(row, config), config.validation_samples)
    if config.validation_image_dir is None:
        if prompts:
            raise ConfigError("validation prompts need pictures to go with; give --validation_image_dir")
        return []
    folder = Path(config.validation_image_dir)
    files = pictures_below(folder)
    prompts = prompts or [""] * len(files)
    if not files or not min(len(files), config.validation_samples) <= len(prompts) <= len(files):
        raise ConfigError(
            f"{folder} holds {len(files)} pictures for {len(prompts)} validation prompts; pair them up"
        )
    pairs = ((str(file), (file, prompt)) for file, prompt in zip(files, prompts, strict=False))
    return first_usable(pairs, lambda pair: _picture_case(*pair, config), config.validation_samples)


def _refuse_unheard(config: Stage2Config, prompts: Sequence[str]) -> None:
    if config.validation_metadata and (prompts or config.validation_image_dir):
        raise ConfigError(
            "validation_metadata brings its own pictures and captions; leave it out, or validation_image_dir "
            "and the validation prompts"
        )
    if prompts and config.text != "captions":
        raise ConfigError(
            f"text is {config.text}: the model hears no captions; leave the validation prompts out"
        )


def read_prompts(given: Sequence[str], file: str | None) -> list[str]:
    """Prompts from flags and from a text file with one a line."""
    if file is None:
        return list(given)
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read the prompt file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the prompt file {file} is not UTF-8: {error}; save it as UTF-8") from error
    return [*given, *(line.strip() for line in lines if line.strip())]


def _picture_case(file: Path, prompt: str, config: Stage2Config) -> Case:
    return Case(file.stem, prompt, _cropped(file, config)[0], None)


def _triple_case(row: Row | Reject, config: Stage2Config) -> Case:
    if isinstance(row, Reject):
        raise RejectedSample(row.reason, row.detail)
    if row.gain_map is None:
        raise RejectedSample("missing_gainmap", "validation_metadata takes triples")
    sdr, crop = _cropped(row.image, config)
    stored = apply_crop(decode_gain_map(read_bytes(row.gain_map)), crop)[None]
    wanted = config.spec if config.match_qmax else row.spec
    gain_map = restate_coded(coded=stored, sdr=sdr, coding=row.coding, spec=row.spec, wanted=wanted)
    return Case(row.key, row.text if config.text == "captions" else "", sdr, gain_map)


def _cropped(source: bytes | Path, config: Stage2Config) -> tuple[Tensor, Any]:
    picture = decode_sdr(read_bytes(source), min_side=8)
    size = (config.resolution, config.resolution)
    crop = plan_crop((picture.height, picture.width), size, seed=0, number=0, center=True, flip=False)
    return apply_crop(picture, crop)[None], crop
