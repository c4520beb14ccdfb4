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

PREFIX = "gmhdr.tone."
"""Tensors of a ToneNet in a model file start with this."""
HIGHLIGHTS = "highlights."
"""Among those, the tensors of its HighlightNet start with this."""


class ToneNet(nn.Module):
    """Statistics of a picture to the curves of its gain: a multilayer perceptron, or several side by side.
    With it travels the net that judges clipped areas, of which curves know nothing, if a model has one.
    """

    mean: Tensor
    scale: Tensor
    highlights: HighlightNet | None

    def __init__(self, *, width: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(STATISTICS))
        self.register_buffer("scale", torch.ones(STATISTICS))
        self.layers = nn.Sequential(
            nn.Linear(STATISTICS, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, 2 * KNOTS),
        )
        self.highlights = None

    @classmethod
    def pop_from(cls, weights: dict[str, Tensor], name: str) -> ToneNet | None:
        """Takes a tone net out of the tensors of a model file; None if it brings none."""
        keys = [key for key in weights if key.startswith(PREFIX)]
        own = {key.removeprefix(PREFIX): weights.pop(key) for key in keys}
        return cls.from_weights(own, name) if own else None

    @classmethod
    def from_weights(cls, weights: dict[str, Tensor], name: str) -> ToneNet:
        """From its own tensors, `PREFIX` removed; raises ModelFileError when they do not fit."""
        first = weights.get("layers.0.weight")
        net = cls(width=len(first) if first is not None else 256)
        if any(key.startswith(HIGHLIGHTS) for key in weights):
            net.highlights = HighlightNet()
        try:
            net.load_state_dict({key: tensor.float() for key, tensor in weights.items()})
        except RuntimeError as error:
            raise ModelFileError(
                f"{name}: the tensors {PREFIX}* do not form a tone net ({error})."
            ) from error
        return net.eval().requires_grad_(False)

    def forward(self, statistics: Tensor) -> ToneCurves:
        """`[B,STATISTICS]` to curves."""
        return ToneCurves(*self.layers((statistics - self.mean) / self.scale).split(KNOTS, dim=1))
