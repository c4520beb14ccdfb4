"""How close an HDR picture is to its ground truth: perceptual, photometric and volume figures.

Pictures are `[B,3,H,W]` linear BT.709 with 1.0 = SDR white; `white_nits` says how many cd/m2 that is. Every
function returns one value per picture, `[B]` float64, so that confidence intervals can be drawn over
pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .color import apply_matrix, convert_primaries, luminance, pq_encode

PU21_BANDING_GLARE = (
    0.353487901,
    0.3734658629,
    8.277049286e-05,
    0.9062562627,
    0.09150303166,
    0.9099517204,
    596.3148142,
)
"""Published `banding_glare` parameters (Azimi and Mantiuk, PU21, PCS 2021)."""
PU21_RANGE = (0.005, 10000.0)
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
EXPOSURE_SEARCH_PIXELS = 16384


def pu21_encode(nits: Tensor) -> Tensor:
    """Absolute luminance or colour (cd/m2) to perceptually uniform units: 100 cd/m2 is about 256."""
    p = PU21_BANDING_GLARE
    power = nits.double().clamp(*PU21_RANGE) ** p[3]
    return (p[6] * (((p[0] + p[1] * power) / (1 + p[2] * power)) ** p[4] - p[5])).clamp(min=0)


def _mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    weight = mask.to(values).expand_as(values)
    return (values * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))


def _psnr(error: Tensor, peak: float) -> Tensor:
    return 10 * torch.log10(peak**2 / error.clamp(min=1e-12))


def pu21_psnr(
    hdr: Tensor,
    truth: Tensor,
    *,
    white_nits: float = 100.0,
    top_nits: float = 1000.0,
    mask: Tensor | None = None,
) -> Tensor:
    """PSNR in PU21 units, peak 256, of values clipped at `top_nits`; `mask` `[B,1,H,W]` restricts it (NaN if
    empty).
    """
    encoded = [pu21_encode((picture.double() * white_nits).clamp(max=top_nits)) for picture in (hdr, truth)]
    return _psnr(_mean((encoded[0] - encoded[1]) ** 2, mask), 256.0)


def highlight_mask(truth: Tensor) -> Tensor:
    """Pixels with any channel above SDR white in the ground truth, `[B,1,H,W]` bool."""
    return truth.amax(dim=1, keepdim=True) > 1.0


def best_exposure(
    hdr: Tensor, truth: Tensor, *, white_nits: float = 100.0, top_nits: float = 1000.0
) -> Tensor:
    """The factor per picture, 1/32 to 8, that maximises PU21-PSNR: takes differences of convention out,
    `[B]`.
    """
    stride = max(1, round((truth.shape[-1] * truth.shape[-2] / EXPOSURE_SEARCH_PIXELS) ** 0.5))
    hdr, truth = hdr[..., ::stride, ::stride], truth[..., ::stride, ::stride]
    centre, span = torch.full((len(hdr),), -1.0, dtype=torch.float64, device=hdr.device), 4.0
    for _ in range(4):
        offsets = torch.linspace(-span, span, 17, dtype=torch.float64, device=hdr.device)
        stops = (centre + offsets[:, None]).clamp(-5, 3)
        scores = torch.stack(
            [pu21_psnr(_exposed(hdr, s), truth, white_nits=white_nits, top_nits=top_nits) for s in stops]
        )
        centre, span = stops.gather(0, scores.argmax(dim=0, keepdim=True))[0], span / 6
    return 2**centre


def _exposed(hdr: Tensor, stops: Tensor) -> Tensor:
    return hdr.double() * (2 ** stops.double()).view(-1, 1, 1, 1)


def align(hdr: Tensor, truth: Tensor, **options: float) -> Tensor:
    """`hdr` times its best exposure."""
    return (hdr.double() * best_exposure(hdr, truth, **options).view(-1, 1, 1, 1)).to(hdr.dtype)


def crf_correct(hdr: Tensor, truth: Tensor, *, floor: float = 0.01) -> Tensor:
    """Maps luminance through the best cubic in log2 luminance: removes grading, keeps (or shows missing)
    detail.
    """
    corrected = []
    for picture, target in zip(hdr, truth, strict=True):
        source, wanted = (
            luminance(p[None]).double().clamp(min=floor).log2().flatten() for p in (picture, target)
        )
        basis = torch.stack([source**power for power in range(4)], dim=1)
        fit = torch.linalg.lstsq(basis, wanted[:, None], driver="gelsd").solution
        change = (basis @ fit)[:, 0] - source
        corrected.append(picture * change.exp2().view(1, *picture.shape[1:]))
    return torch.stack(corrected).to(hdr.dtype)


def _gaussian_window(dtype: torch.dtype) -> Tensor:
    offsets = torch.arange(SSIM_WINDOW, dtype=dtype) - SSIM_WINDOW // 2
    weights = torch.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    return weights / weights.sum()


def _smooth(picture: Tensor) -> Tensor:
    channels, window = picture.shape[1], _gaussian_window(picture.dtype)
    rows = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    picture = torch.nn.functional.conv2d(picture, rows, groups=channels)
    return torch.nn.functional.conv2d(picture, rows.transpose(2, 3), groups=channels)


def pu21_ssim(hdr: Tensor, truth: Tensor, *, white_nits: float = 100.0, top_nits: float = 1000.0) -> Tensor:
    """SSIM (Wang et al. 2004, 11x11 Gaussian window, dynamic range 256) of PU21-encoded luminance."""
    x, y = (pu21_encode((luminance(p) * white_nits).clamp(max=top_nits)) for p in (hdr, truth))
    c1, c2 = (0.01 * 256) ** 2, (0.03 * 256) ** 2
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x, var_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return similarity.mean(dim=(1, 2, 3))


def _pq_bt2020(picture: Tensor, white_nits: float) -> Tensor:
    return pq_encode(convert_primaries(picture, "bt709", "bt2020") * white_nits)


def pq_psnr(hdr: Tensor, truth: Tensor, *, white_nits: float = 100.0) -> Tensor:
    """PSNR of BT.2020 PQ codes (SMPTE ST 2084), peak 1."""
    return _psnr(_mean((_pq_bt2020(hdr, white_nits) - _pq_bt2020(truth, white_nits)) ** 2), 1.0)


def log_rmse(hdr: Tensor, truth: Tensor, *, floor: float = 0.01) -> Tensor:
    """Root mean square error of log2 values in stops, floored at 1 % of white."""
    logs = [picture.double().clamp(min=floor).log2() for picture in (hdr, truth)]
    return _mean((logs[0] - logs[1]) ** 2).sqrt()


def _ictcp(picture: Tensor, white_nits: float) -> Tensor:
    """ICtCp of BT.2100 (PQ), `[B,3,H,W]`."""
    to_lms = torch.tensor([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]], dtype=torch.float64) / 4096
    to_itp = (
        torch.tensor([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]], dtype=torch.float64)
        / 4096
    )
    wide = convert_primaries(picture, "bt709", "bt2020").clamp(min=0) * white_nits
    return apply_matrix(pq_encode(apply_matrix(wide, to_lms)), to_itp)


def delta_e_itp(hdr: Tensor, truth: Tensor, *, white_nits: float = 100.0) -> Tensor:
    """Mean colour difference of ITU-R BT.2124: 1.0 is a just noticeable difference."""
    difference = _ictcp(hdr, white_nits) - _ictcp(truth, white_nits)
    difference[:, 1] *= 0.5
    return 720 * difference.pow(2).sum(dim=1).sqrt().mean(dim=(1, 2))


def highlight_volume(
    hdr: Tensor, *, white_nits: float = 100.0, unit_nits: float = 1000.0
) -> tuple[Tensor, Tensor]:
    """FHLP and EHL (Guo et al., HDRTVDM, CVPR 2023): share of channel samples at or above white, and their
    excess.

    Returns two `[B]` tensors in [0,1]: the share, and the mean excess over white divided by the largest
    possible.
    """
    value = (hdr.double() * white_nits / unit_nits).clamp(0, 1)
    threshold = white_nits / unit_nits
    share = _mean((value >= threshold).double())
    return share, _mean((value - threshold).clamp(min=0)) / (1 - threshold)


def gamut_volume(
    wide: Tensor, *, white_nits: float = 100.0, unit_nits: float = 1000.0
) -> tuple[Tensor, Tensor]:
    """FWGP and EWG of a BT.2020 picture: share of pixels outside BT.709, and their mean distance to it.

    Args:
        wide: `[B,3,H,W]` linear BT.2020, 1.0 = SDR white.

    Returns:
        Two `[B]` tensors: the share of pixels with a negative BT.709 component, and the mean absolute
        difference (of normalised BT.2020 values) to the nearest non-negative BT.709 triplet.
    """
    value = (wide.double() * white_nits / unit_nits).clamp(0, 1)
    narrow = convert_primaries(value, "bt2020", "bt709")
    outside = (narrow < -1e-6).any(dim=1, keepdim=True)
    return _mean(outside.double()), _mean(
        (convert_primaries(narrow.clamp(min=0), "bt709", "bt2020") - value).abs()
    )
