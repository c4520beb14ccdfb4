"""Adds to a tone net the one for phones that keep hues (`gm_core.tone.net.PhoneNet`): first what it answers,
from pictures of such phones, then how far to believe it, from others of them and pictures of all cameras.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gm_core.tone.net import PhoneNet, ToneNet
from training.exit_codes import exit_code
from training.tensor_files import save_whole

from .cache import Rows
from .loop import fit_for
from .objective import PerceptualScale
from .train_tone import DROPOUT, average_of, fit, linear_layers, load_tone_rows, loss_of, parts_of

log = logging.getLogger(__name__)
JUDGED = 256
"""Pictures of a step of the judge."""
KEPT_FOR_JUDGE = 0.2
"""Share of phones' pictures that only the judge sees: of those that a net has learned, it knows too much."""
MORE_PHONES = 0.15
"""Share of those among what the judge sees, beside the phones among all cameras. With a half instead, the
validation's phones are 0.4 dB better, and clipped, logarithmic and smooth cameras 0.2 dB worse.
"""
SELDOM = -1.0
"""What the judge begins with, before the sigmoid: mostly the other net is right."""


def fit_answers(tone_net: ToneNet, phones: Rows, *, nets: int, minutes: float, lr: float = 3e-4) -> ToneNet:
    """The tone net's parts, trained on phones' pictures alone, a share of `minutes` each, and averaged."""
    parts = parts_of(tone_net, nets)
    for part in parts:
        fit(part, phones, minutes=minutes / nets, lr=lr)
    return average_of(parts)


def phone_net(answers: ToneNet) -> PhoneNet:
    """The net with these answers, and a judge that knows nothing yet."""
    net = PhoneNet(width=linear_layers(answers)[0].out_features, dropout=DROPOUT)
    net.layers.load_state_dict(answers.layers.state_dict())
    verdict = net.judge[-1]
    assert isinstance(verdict, nn.Linear)
    nn.init.zeros_(verdict.weight)
    nn.init.constant_(verdict.bias, SELDOM)
    return net


def fit_judge(tone_net: ToneNet, phones: Rows, others: Rows, *, minutes: float, lr: float = 1e-3) -> None:
    """Trains the judge of `tone_net.phones` by the curves that come of its verdicts."""
    net, scale = tone_net.phones, PerceptualScale()
    assert net is not None
    tone_net.train().requires_grad_(False)
    net.layers.eval()
    net.judge.requires_grad_(True)

    def draw() -> tuple[Tensor, Tensor]:
        shares = (phones, MORE_PHONES), (others, 1 - MORE_PHONES)
        drawn = []
        for rows, share in shares:
            chosen = torch.randint(len(rows["sdr"]), (round(share * JUDGED),))
            drawn.append(share * torch.stack(loss_of(tone_net, rows, chosen, scale)))
        loss, decibels = torch.stack(drawn).sum(dim=0)
        return loss, decibels.detach()

    fit_for(net.judge, draw, minutes=minutes, lr=lr, weight_decay=0.1)
    tone_net.eval()


def split(rows: Rows, share: float) -> tuple[Rows, Rows]:
    """All but the last `share` of the rows, and those."""
    first = round(len(rows["sdr"]) * (1 - share))
    return {name: rows[name][:first] for name in rows}, {name: rows[name][first:] for name in rows}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    folder = "folder written by training.builtin.cache"
    parser.add_argument("--phones", type=Path, required=True, help=f"{folder} --mix phones")
    parser.add_argument("--pictures", type=Path, required=True, help=f"{folder}: all cameras")
    parser.add_argument("--tone-net", type=Path, required=True, help="file of train_tone: what is added to")
    parser.add_argument("--output", type=Path, required=True, help="all of it (.safetensors)")
    parser.add_argument("--minutes", type=float, default=5, help="half of them for the answers")
    parser.add_argument("--nets", type=int, default=3, help="nets that the tone net was averaged of")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(options.seed)
    tone_net = ToneNet.from_weights(load_file(options.tone_net), str(options.tone_net))
    phones, others = load_tone_rows(options.phones), load_tone_rows(options.pictures)
    log.info("%d pictures of phones, %d of all cameras", len(phones["sdr"]), len(others["sdr"]))
    learned, unseen = split(phones, KEPT_FOR_JUDGE)
    answers = fit_answers(tone_net, learned, nets=options.nets, minutes=options.minutes / 2)
    tone_net.phones = phone_net(answers)
    fit_judge(tone_net, unseen, others, minutes=options.minutes / 2)
    save_whole(tone_net.state_dict(), options.output, {})


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
