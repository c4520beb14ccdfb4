import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_core.exposure import EXPOSURES, ExposureChange, adjust_exposure, draw_exposure


def change(exposure: list[float], n: float = 0.65, sigma: float = 0.6) -> ExposureChange:
    return ExposureChange(
        *(torch.tensor(v) for v in (exposure, [n] * len(exposure), [sigma] * len(exposure)))
    )


@pytest.mark.parametrize(
    ("encoded", "linear"),
    [(0.0, 0.0), (0.25, 0.0340), (0.5, 0.1355), (0.75, 0.3759), (0.9, 0.6708), (1.0, 1.0)],
)
def test_camera_curve_golden_numbers(encoded, linear):
    out = adjust_exposure(torch.full((1, 3, 1, 1), encoded), change([1.0]), gamma=1.0)
    assert_close(out, torch.full((1, 3, 1, 1), linear), rtol=0, atol=6e-5)


def test_exposures_golden_numbers_one_per_sample():
    out = adjust_exposure(torch.full((6, 3, 1, 1), 0.5), change([0.1, 0.25, 0.5, 1, 4, 8]))
    assert_close(out[:, 0, 0, 0], torch.tensor([0.142, 0.215, 0.294, 0.403, 0.757, 1.0]), rtol=0, atol=6e-4)


@given(encoded=st.floats(0, 1, width=32))
def test_the_linear_signal_is_quantised_to_16_bits(encoded):
    code = adjust_exposure(torch.full((1, 3, 1, 1), encoded), change([1.0]), gamma=1.0) * 65535
    assert_close(code, code.round(), rtol=0, atol=0.01)


@given(a=st.floats(0, 1), b=st.floats(0, 1), exposure=st.sampled_from(EXPOSURES))
def test_exposure_is_monotone(a, b, exposure):
    low, high = (adjust_exposure(torch.full((1, 3, 1, 1), v), change([exposure])) for v in sorted((a, b)))
    assert (low <= high).all()


def test_unchanged_samples_keep_their_pixels():
    sdr = torch.rand(2, 3, 4, 4)
    kept = ExposureChange(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 0.65]), torch.tensor([0.0, 0.6]))
    out = adjust_exposure(sdr, kept)
    assert torch.equal(out[0], sdr[0]) and not torch.equal(out[1], sdr[1])


def test_draws_follow_the_paper_and_the_generator():
    drawn = draw_exposure(20000, generator=torch.Generator().manual_seed(1))
    changed = drawn.sigma > 0
    assert changed.float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert set(drawn.exposure[changed].tolist()) == set(torch.tensor(EXPOSURES).tolist())
    assert drawn.n[changed].mean().item() == pytest.approx(0.65, abs=0.01)
    assert 0.4 <= drawn.n[changed].min() and drawn.n[changed].max() <= 0.9
    assert 0.4 <= drawn.sigma[changed].min() and drawn.sigma[changed].max() <= 0.8
    assert all((values[~changed] == 1).all() for values in drawn[:2])
    again = draw_exposure(20000, generator=torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_half_precision_comes_out_float32():
    assert adjust_exposure(torch.rand(1, 3, 2, 2).half(), change([4.0])).dtype == torch.float32
