"""Writes the two files that ship in `weights/`: float16, ComfyUI key names, self-describing metadata."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file

from gm_core.gain_coding import GainCoding
from gm_core.gain_map import GainMapSpec
from gm_core.model_info import TEXT_CONTEXT_KEY, GainMapModelInfo
from gm_core.shipped import UNET_FILE, VAE_FILE
from gm_core.tone.net import HIGHLIGHTS, TINTS
from gm_core.tone.net import PREFIX as TONE_PREFIX
from gm_core.unet_keys import to_ldm
from training.tensor_files import save_whole

from .autoencoder import TinyAutoencoder
from .samples import LOG2_MAX, LOG2_MIN
from .unet import text_context

TRAINING = (
    "HDR panoramas of Poly Haven (CC0) seen through random cameras, COCO photos (CC BY, CC BY-SA) as scenes "
    "of low dynamic range; no text. Recipe: training/builtin."
)
CARD = {
    "modelspec.sai_model_spec": "1.0.1",
    "modelspec.architecture": "stable-diffusion-v1/gain-map",
    "modelspec.implementation": "https://github.com/comfyanonymous/ComfyUI",
    "modelspec.license": "Apache-2.0",
    "modelspec.author": "GM-HDR",
}


def model_info(*, steps: int, working_side: int) -> GainMapModelInfo:
    """What the shipped UNet's header says: log2-coded map of 8 stops, BT.709, v prediction, few steps."""
    return GainMapModelInfo(
        spec=GainMapSpec(qmax=2.0**LOG2_MAX - 1),
        coding=GainCoding(encoding="log2", log2_min=LOG2_MIN, log2_max=LOG2_MAX),
        gamut="bt709",
        prediction="v",
        steps=steps,
        working_side=working_side,
        training=TRAINING,
    )


def export(
    unet: Path,
    autoencoder: TinyAutoencoder,
    folder: Path,
    info: GainMapModelInfo,
    tone_nets: Mapping[str, Path | None],
) -> None:
    """Both files into `folder`; `unet` holds diffusers names. In its file travel `tone_nets`: what the names
    of a net's tensors are to start with, and its file, if there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.half().contiguous() for key, value in to_ldm(load_file(unet)).items()}
    weights[TEXT_CONTEXT_KEY] = text_context().half()
    for prefix, path in tone_nets.items():
        if path:
            weights |= {prefix + key: value.half() for key, value in load_file(path).items()}
    card = {"modelspec.title": "GM-HDR built-in gain-map UNet", **CARD}
    save_whole(weights, folder / UNET_FILE, {**card, **info.to_metadata()})
    card = {
        "modelspec.title": "GM-HDR tiny autoencoder (SD1.5 latent space, fine-tuned from TAESD, MIT)",
        **CARD,
    }
    save_whole(autoencoder.state_for_comfyui(), folder / VAE_FILE, card)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--unet", type=Path, required=True, help="averaged weights from training.builtin.train"
    )
    parser.add_argument("--teacher", type=Path, help="TAESD's two files, when no autoencoder was fine-tuned")
    parser.add_argument("--autoencoder", type=Path, help="file from training.builtin.train_autoencoder")
    parser.add_argument("--tone-net", type=Path, help="file from training.builtin.train_tone")
    parser.add_argument(
        "--highlight-net", type=Path, help="file from training.builtin.train_highlights; needs --tone-net"
    )
    parser.add_argument(
        "--tint-net", type=Path, help="file from training.builtin.train_tints; needs --tone-net"
    )
    parser.add_argument("--output", type=Path, default=Path("weights"))
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--working-side", type=int, default=128)
    options = parser.parse_args(arguments)
    if (options.highlight_net or options.tint_net) and not options.tone_net:
        parser.error("--highlight-net and --tint-net add to a tone net: give --tone-net")
    autoencoder = TinyAutoencoder()
    if options.autoencoder:
        autoencoder.load_exported(options.autoencoder)
    elif options.teacher:
        autoencoder.load_teacher(options.teacher)
    else:
        parser.error("give --autoencoder or --teacher")
    export(
        options.unet,
        autoencoder,
        options.output,
        model_info(steps=options.steps, working_side=options.working_side),
        {
            TONE_PREFIX: options.tone_net,
            TONE_PREFIX + HIGHLIGHTS: options.highlight_net,
            TONE_PREFIX + TINTS: options.tint_net,
        },
    )


if __name__ == "__main__":
    main()
