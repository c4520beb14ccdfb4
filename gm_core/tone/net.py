"""The net that tells from a picture's statistics how much gain each of its tones deserves.

A gain-map UNet sees a small latent and has to guess the camera's tone curve from it. The curve leaves
clearer traces in the pixels: how often each value occurs, how much contrast is left around it, how colourful
it is, and how one channel changes beside another along shadings and edges.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ModelFileError
from .curves import KNOTS, ToneCurves
from .highlights import HighlightNet
from .statistics import STATISTICS
from .tints import TintNet

PREFIX = "gmhdr.tone."
"""Tensors of a ToneNet in a model file start with this."""
HIGHLIGHTS, PHONES, TINTS = "highlights.", "phones.", "tints."
"""Among those, the tensors of its HighlightNet, its PhoneNet and its TintNet start with these."""
JUDGE_WIDTH = 64


def curve_layers(width: int, dropout: float) -> nn.Sequential:
    """Standardised statistics `[B,STATISTICS]` to both curves' stops `[B,2 KNOTS]`."""
    return nn.Sequential(
        nn.Linear(STATISTICS, width),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(width, 2 * KNOTS),
    )


class PhoneNet(nn.Module):
    """For pictures that came from their HDR picture by one gain a pixel, as phones make them.

    One gain for all channels leaves no trace of the tone curve between them, so such a picture looks as if
    nothing had been done to it. What is left is habit: what phones do to scenes of such a range. One net for
    all cameras forgets the others over it, so this is one of its own, with a judge who says how far to
    believe it.
    """

    def __init__(self, *, width: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = curve_layers(width, dropout)
        self.judge = nn.Sequential(
            nn.Linear(STATISTICS, JUDGE_WIDTH), nn.GELU(), nn.Dropout(2 * dropout), nn.Linear(JUDGE_WIDTH, 1)
        )

    def forward(self, standardised: Tensor, stops: Tensor) -> Tensor:
        """The given stops `[B,2 KNOTS]` where the judge of the statistics `[B,STATISTICS]` says 0, its own
        where it says 1, a mix between.
        """
        return torch.lerp(stops, self.layers(standardised), torch.sigmoid(self.judge(standardised)))


class ToneNet(nn.Module):
    """Statistics of a picture to the curves of its gain: a multilayer perceptron, or several side by side.
    With it travel, if a model has them, the net that knows phones, and the nets that judge how bright clipped
    areas were and of which colour, of which curves know nothing.
    """

    mean: Tensor
    scale: Tensor
    phones: PhoneNet | None
    highlights: HighlightNet | None
    tints: TintNet | None

    def __init__(self, *, width: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(STATISTICS))
        self.register_buffer("scale", torch.ones(STATISTICS))
        self.layers = curve_layers(width, dropout)
        self.phones = None
        self.highlights = None
        self.tints = None

    @classmethod
    def pop_from(cls, weights: dict[str, Tensor], name: str) -> ToneNet | None:
        """Takes a tone net out of the tensors of a model file; None if it brings none."""
        keys = [key for key in weights if key.startswith(PREFIX)]
        own = {key.removeprefix(PREFIX): weights.pop(key) for key in keys}
        return cls.from_weights(own, name) if own else None

    @classmethod
    def from_weights(cls, weights: dict[str, Tensor], name: str) -> ToneNet:
        """From its own tensors, `PREFIX` removed; raises ModelFileError when they do not fit."""
        net = cls(width=_width(weights))
        if any(key.startswith(PHONES) for key in weights):
            net.phones = PhoneNet(width=_width(weights, PHONES))
        if any(key.startswith(HIGHLIGHTS) for key in weights):
            net.highlights = HighlightNet()
        if any(key.startswith(TINTS) for key in weights):
            net.tints = TintNet()
        try:
            net.load_state_dict({key: tensor.float() for key, tensor in weights.items()})
        except RuntimeError as error:
            raise ModelFileError(
                f"{name}: the tensors {PREFIX}* do not form a tone net ({error})."
            ) from error
        return net.eval().requires_grad_(False)

    def forward(self, statistics: Tensor) -> ToneCurves:
        """`[B,STATISTICS]` to curves."""
        standardised = (statistics - self.mean) / self.scale
        stops = self.layers(standardised)
        if self.phones is not None:
            stops = self.phones(standardised, stops)
        return ToneCurves(*stops.split(KNOTS, dim=1))


def _width(weights: dict[str, Tensor], prefix: str = "") -> int:
    first = weights.get(prefix + "layers.0.weight")
    return len(first) if first is not None else 256
