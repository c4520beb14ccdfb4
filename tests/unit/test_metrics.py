"""HDR metrics against published coefficients, closed forms and invariances."""

import math

import numpy as np
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


def pq(nits: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084 by its published fractions."""
    power = (nits / 10000) ** (2610 / 16384)
    return ((3424 + 2413 * 32 * power) / (4096 + 2392 * 32 * power)) ** (2523 / 32)


def test_delta_e_itp_of_colours_is_bt_2124s():
    colours = np.array([[1.0, 0.2, 0.1], [0.1, 1.0, 0.4]])
    wide = (
        colours
        @ np.array(
            [[0.627404, 0.329283, 0.043313], [0.069097, 0.919541, 0.011362], [0.016391, 0.088013, 0.895595]]
        ).T
    )
    lms = pq(wide * 100 @ np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]).T / 4096)
    i, t, p = (lms @ np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]).T / 4096).T
    expected = 720 * math.sqrt(np.ptp(i) ** 2 + (0.5 * np.ptp(t)) ** 2 + np.ptp(p) ** 2)
    pair = [torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1) for colour in colours]
    assert metrics.delta_e_itp(*pair).item() == pytest.approx(expected, rel=1e-3)


def test_pq_psnr_compares_codes_in_bt2020():
    red, brighter = (torch.tensor([value, 0.0, 0.0]).view(1, 3, 1, 1) for value in (1.0, 2.0))
    wide = np.array([0.627404, 0.069097, 0.016391]) * 100
    expected = -10 * math.log10(np.mean((pq(wide) - pq(2 * wide)) ** 2))
    assert metrics.pq_psnr(brighter, red).item() == pytest.approx(expected, abs=1e-3)


def test_pu21_ssim_of_one_window_is_the_published_formula():
    hdr, truth = (picture(seed, size=11)[:1, :1].expand(-1, 3, -1, -1) for seed in (1, 2))
    x, y = (metrics.pu21_encode((p[0, 0] * 100).clamp(max=1000)).numpy() for p in (hdr, truth))
    bell = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weight = np.outer(bell, bell) / bell.sum() ** 2

    def moment(values: np.ndarray) -> float:
        return float((weight * values).sum())

    mean_x, mean_y = moment(x), moment(y)
    spread = moment((x - mean_x) ** 2) + moment((y - mean_y) ** 2)
    shared = moment((x - mean_x) * (y - mean_y))
    c1, c2 = (0.01 * 256) ** 2, (0.03 * 256) ** 2
    expected = (2 * mean_x * mean_y + c1) * (2 * shared + c2) / ((mean_x**2 + mean_y**2 + c1) * (spread + c2))
    assert metrics.pu21_ssim(hdr, truth).item() == pytest.approx(expected, rel=1e-5)


def test_highlights_begin_at_white_itself():
    assert metrics.highlight_volume(torch.ones(1, 3, 2, 2))[0].item() == 1


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
    # Of this green BT.709 keeps 1.1329 of its own, which is (0.3293, 0.9195, 0.0880) in BT.2020.
    kept = 0.11329 * torch.tensor([0.3293, 0.9195, 0.0880])
    away = (kept - torch.tensor([0.0, 0.1, 0.0])).abs().mean().item()
    assert excess.item() == pytest.approx(away / 4, rel=2e-3)
