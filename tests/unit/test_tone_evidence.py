"""What a single picture tells of the tone curve that made it: slopes from shading, bends from blends."""

import math

import pytest
import torch
from torch.nn.functional import interpolate

from gm_core.tone.blends import BENDS, USUAL_BEND, blend_statistics
from gm_core.tone.slopes import CELLS, slope_statistics

MU = 200.0
CURVES = {
    "gamma": lambda light: light ** (1 / 2.2),
    "square root": lambda light: light**0.5,
    "log": lambda light: torch.log1p(MU * light) / math.log1p(MU),
}


def shaded_picture(curve) -> torch.Tensor:
    """Coloured stripes under light that rises and falls along them, through a curve."""
    colours = torch.tensor([[0.9, 0.3, 0.6], [0.35, 0.8, 0.5], [0.2, 0.55, 0.95], [0.4, 0.7, 0.25]])
    stripes = colours.T.reshape(1, 3, 1, 4).repeat_interleave(32, dim=3)
    light = 10 ** (0.7 * torch.linspace(0, 25, 128).sin() - 0.7)
    return curve(stripes * light.view(1, 1, -1, 1))


def edges_picture(curve) -> torch.Tensor:
    """Random colours that a lens blends, through a curve."""
    colours = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    return curve(interpolate(colours, size=(200, 200), mode="bilinear") * 0.95 + 0.01)


def slope_ratios(sdr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """By how much more the brighter of two channels changes, and by how much it is brighter, each as a log,
    for all pairs of values that occur often.
    """
    count = CELLS * (CELLS + 1) // 2
    ratio, support = (part / 4 for part in slope_statistics(sdr)[0, : 2 * count].split(count))
    rows, columns = torch.tril_indices(CELLS, CELLS)
    often = (support > support.max() / 2) & (columns > 0) & (rows > columns)
    return ratio[often], torch.log((rows + 0.5) / (columns + 0.5))[often]


def bends(sdr: torch.Tensor) -> torch.Tensor:
    """The estimate of the bend at `BENDS` values under the weakest prior."""
    usual = USUAL_BEND / (torch.linspace(0, 1, BENDS) + 0.1)
    return blend_statistics(sdr)[0, :BENDS] / 0.3 + usual


def test_shading_tells_slopes():
    ratio, brighter = slope_ratios(shaded_picture(CURVES["gamma"]))
    assert len(ratio) > 5 and (ratio - brighter).abs().median() < 0.1
    ratio, brighter = slope_ratios(shaded_picture(CURVES["log"]))
    assert len(ratio) > 5 and ratio.abs().median() < 0.1 < brighter.median()


@pytest.mark.parametrize(
    "name, bend",
    [
        ("gamma", lambda v: 1.2 / v),
        ("square root", lambda v: 1 / v),
        ("log", lambda v: math.log1p(MU) + 0 * v),
    ],
)
def test_blends_tell_bends(name, bend):
    found, value = bends(edges_picture(CURVES[name])), torch.linspace(0, 1, BENDS)
    inner = slice(4, 9)
    assert torch.allclose(found[inner], bend(value[inner]), rtol=0.15)


@pytest.mark.parametrize("statistics", [slope_statistics, blend_statistics])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (9, 5), (130, 700)])
def test_pictures_of_any_size_give_finite_evidence(statistics, size):
    generator = torch.Generator().manual_seed(1)
    for sdr in (torch.rand(2, 3, *size, generator=generator), torch.ones(1, 3, *size)):
        assert torch.isfinite(statistics(sdr)).all()


def test_grey_pictures_tell_nothing():
    grey = edges_picture(CURVES["log"])[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(slope_statistics(grey), slope_statistics(torch.zeros_like(grey)))
    usual = blend_statistics(torch.zeros_like(grey))[0, :BENDS]
    assert torch.allclose(blend_statistics(grey)[0, :BENDS], usual, atol=1e-4)
