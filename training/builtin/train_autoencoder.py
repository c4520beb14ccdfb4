"""Fine-tunes the tiny autoencoder for the two kinds of picture it carries: photos and coded gain maps.

The encoder is held to its teacher's latents, so they stay SD1.5 latents. The decoder learns to paint gain
maps as well as photos, and, when a trained GM UNet is given, to paint them from the latents that UNet really
makes.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gm_core.sampling import Denoiser, sample_gain_map
from gm_core.schedule import sampling_sigmas
from training.exit_codes import exit_code
from training.tensor_files import save_whole

from .autoencoder import TinyAutoencoder
from .cache import add_scene_arguments, load_scenes, picture_rows, render_batch
from .loop import quick_networks, timed_steps
from .unet import make_unet, text_context

log = logging.getLogger(__name__)
WARMUP, LOG_EVERY = 20, 20
"""Steps in which the learning rate rises, and between two lines of the log."""
Painter = Callable[[Tensor], Tensor]
"""SDR latents to the gain-map latents that the trained UNet makes of them."""


def one_step_painter(weights: Path) -> Painter:
    """Samples the UNet in a single step, as the built-in model is used."""
    unet = make_unet().eval()
    unet.load_state_dict(load_file(weights))

    @torch.no_grad()
    def paint(sdr: Tensor) -> Tensor:
        denoiser = Denoiser(lambda x, t: unet(x, t, text_context(len(x))).sample.float(), "v")
        return sample_gain_map(denoiser, sdr, torch.randn_like(sdr), sampling_sigmas(1, "trailing"))

    return paint


def l1_and_edges(decoded: Tensor, picture: Tensor) -> Tensor:
    """Mean absolute error of the picture and of its horizontal and vertical differences."""
    error = decoded - picture
    return error.abs().mean() + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def loss_of(
    student: TinyAutoencoder, teacher: TinyAutoencoder, sdr: Tensor, coded: Tensor, paint: Painter | None
) -> Tensor:
    """Reconstruction of both kinds (gain maps count four times), and staying near the teacher's latents."""
    pictures = torch.cat([sdr, coded])
    with torch.no_grad():
        wanted = teacher.encoder(pictures)
    latents = student.encoder(pictures)
    decoded_sdr, decoded_map = student.decoder(latents).chunk(2)
    loss = nn.functional.l1_loss(latents, wanted) + l1_and_edges(decoded_sdr, sdr)
    loss = loss + 4 * l1_and_edges(decoded_map, coded)
    if paint is not None:
        loss = loss + 4 * (student.decoder(paint(wanted[: len(sdr)])) - coded).abs().mean()
    return loss


def train(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    scenes = load_scenes(options, photo_share=0.4)
    teacher = TinyAutoencoder().load_teacher(options.teacher).eval()
    student = TinyAutoencoder().load_teacher(options.teacher)
    if options.resume:
        student.load_exported(options.resume)
    paint = one_step_painter(options.unet) if options.unet else None
    optimiser = torch.optim.Adam(student.parameters(), lr=options.lr)
    running = 0.0
    for step, progress in timed_steps(options.minutes):
        optimiser.param_groups[0]["lr"] = options.lr * min((step + 1) / WARMUP, 1) * (1 - progress)
        rows = picture_rows(render_batch(scenes, options.seed, step, range(options.batch)))
        sdr, coded = (rows[name].float() / 255 for name in ("sdr", "gain_map"))
        with quick_networks():
            loss = loss_of(student, teacher, sdr, coded, paint)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        running += float(loss.detach())
        if step % LOG_EVERY == LOG_EVERY - 1:
            log.info("step %d  %.0f %%  loss %.4f", step + 1, 100 * progress, running / LOG_EVERY)
            running = 0.0
    save_whole(student.state_for_comfyui(), options.output, {})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_scene_arguments(parser)
    parser.add_argument("--teacher", type=Path, required=True, help="folder of TAESD's two safetensors files")
    parser.add_argument("--unet", type=Path, help="averaged weights from training.builtin.train")
    parser.add_argument("--resume", type=Path, help="an earlier output to go on from")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=7)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
