"""HDR metrics against published coefficients, closed forms and invariances."""

import math

import pytest
import torch

from gm_core import metrics


def picture(seed: int = 0, size: int = 48) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.exp(torch.randn(2, 3, size, size, generator=generator)) * 0.5


def test_pu21_maps_100_nits_near_256_and_rises():
    codes = metrics.pu21_encode(torch.tensor([0.005, 1.0, 100.0, 1000.0, 10000.0]))
    assert codes[0] == pytest.approx(0, abs=0.05)
    assert codes[2] == pytest.approx(256, abs=1.5)
    assert codes[4] == pytest.approx(595.39, abs=0.5)
    assert (codes.diff() > 0).all()


def test_pu21_psnr_is_the_closed_form_for_a_constant_error():
    truth = torch.full((1, 3, 8, 8), 0.5)
    hdr = torch.full((1, 3, 8, 8), 0.6)
    error = metrics.pu21_encode(torch.tensor(60.0)) - metrics.pu21_encode(torch.tensor(50.0))
    expected = 20 * math.log10(256 / error.item())
    assert metrics.pu21_psnr(hdr, truth).item() == pytest.approx(expected, abs=1e-3)


def test_alignment_finds_the_exposure():
    truth = picture()
    factor = metrics.best_exposure(truth / torch.tensor([2.0, 0.4]).view(2, 1, 1, 1), truth)
    assert factor.tolist() == pytest.approx([2.0, 0.4], rel=0.02)


def test_crf_correction_undoes_a_power_curve_of_luminance():
    truth = picture().mean(dim=1, keepdim=True).expand(-1, 3, -1, -1).clamp(min=0.02)
    assert (metrics.pu21_psnr(metrics.crf_correct(truth**0.7, truth), truth) > 60).all()


@pytest.mark.parametrize("figure", [metrics.pu21_ssim, lambda a, b: -metrics.delta_e_itp(a, b)])
def test_identical_pictures_score_best(figure):
    truth = picture()
    best = figure(truth, truth)
    assert best.tolist() == pytest.approx([best[0].item()] * 2)
    assert (figure(truth * 1.1, truth) < best).all()


def test_log_rmse_of_one_stop_is_one():
    truth = picture().clamp(min=0.05)
    assert metrics.log_rmse(2 * truth, truth).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


def test_delta_e_itp_of_grey_is_the_intensity_difference():
    # Neutral greys have no chroma, so BT.2124 reduces to 720 times the difference of PQ codes.
    low, high = (torch.full((1, 3, 4, 4), v) for v in (1.0, 1.02))
    assert metrics.delta_e_itp(high, low).item() == pytest.approx(720 * (0.510086 - 0.508078), rel=0.02)


def test_highlight_volume_of_a_known_picture():
    hdr = torch.zeros(1, 3, 2, 2)
    hdr[..., 0, 0] = 10.0
    hdr[..., 0, 1] = 5.5
    share, excess = metrics.highlight_volume(hdr)
    assert share.item() == pytest.approx(0.5)
    assert excess.item() == pytest.approx((0.9 + 0.45) / 4 / 0.9)


def test_gamut_volume_sees_only_what_lies_outside_bt709():
    wide = torch.full((1, 3, 2, 2), 0.5)
    assert metrics.gamut_volume(wide)[0].item() == 0
    wide[:, :, 0, 0] = torch.tensor([0.0, 1.0, 0.0])
    share, excess = metrics.gamut_volume(wide)
    assert share.item() == pytest.approx(0.25)
    assert excess.item() > 0
