import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_core import color
from gm_core.errors import GainMapError

unit = st.floats(0, 1, width=32)
PAIRS = list(itertools.product(color.PRIMARIES, repeat=2))


@given(x=unit)
def test_srgb_round_trip(x):
    assert_close(
        color.srgb_to_linear(color.linear_to_srgb(torch.tensor(x))), torch.tensor(x), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("encoded", "linear"), [(0.0, 0.0), (0.04045, 0.0031308), (0.5, 0.2140411), (1.0, 1.0)]
)
def test_srgb_golden_numbers(encoded, linear):
    assert_close(color.srgb_to_linear(torch.tensor(encoded)), torch.tensor(linear), rtol=0, atol=2e-7)


def test_srgb_extends_beyond_the_unit_range():
    x = torch.tensor([-0.5, 4.0])
    assert_close(color.srgb_to_linear(color.linear_to_srgb(x)), x)


# BT.2408 and ST 2084 reference levels.
@pytest.mark.parametrize(
    ("nits", "code"), [(0.0, 7.3e-7), (100.0, 0.50808), (203.0, 0.58069), (1000.0, 0.75183), (10000.0, 1.0)]
)
def test_pq_golden_numbers(nits, code):
    assert_close(color.pq_encode(torch.tensor(nits)), torch.tensor(code), rtol=0, atol=1e-5)


@given(nits=st.floats(0.01, 10000))
def test_pq_round_trip(nits):
    assert_close(
        color.pq_decode(color.pq_encode(torch.tensor(nits))), torch.tensor(nits), rtol=2e-3, atol=1e-4
    )


@pytest.mark.parametrize(("scene", "signal"), [(0.0, 0.0), (1 / 12, 0.5), (1.0, 1.0), (0.26496, 0.75)])
def test_hlg_golden_numbers(scene, signal):
    assert_close(color.hlg_encode(torch.tensor(scene)), torch.tensor(signal), rtol=0, atol=2e-5)


@given(scene=unit)
def test_hlg_round_trip(scene):
    assert_close(
        color.hlg_decode(color.hlg_encode(torch.tensor(scene))), torch.tensor(scene), rtol=1e-4, atol=1e-6
    )


def test_codes_outside_their_range_count_as_its_ends():
    codes = torch.tensor([-0.5, 1.5])
    assert_close(color.pq_decode(codes), torch.tensor([0.0, 10000.0]), rtol=1e-5, atol=0)
    assert_close(color.hlg_decode(codes), torch.tensor([0.0, 1.0]), rtol=0, atol=1e-6)


def test_bt2020_to_bt709_is_the_matrix_of_the_paper():
    paper = [
        [1.660491, -0.587641, -0.072850],
        [-0.124550, 1.132900, -0.008349],
        [-0.018151, -0.100579, 1.118730],
    ]
    assert_close(
        color.rgb_to_rgb("bt2020", "bt709"), torch.tensor(paper, dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_bt709_luminance_coefficients():
    expected = torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)
    assert_close(color.rgb_to_xyz("bt709")[1], expected, rtol=0, atol=5e-5)


def test_bt709_to_acescg_matches_the_published_bradford_matrix():
    expected = [[0.6131, 0.3395, 0.0474], [0.0702, 0.9164, 0.0134], [0.0206, 0.1096, 0.8698]]
    assert_close(
        color.rgb_to_rgb("bt709", "acescg"), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-4
    )


def test_p3_is_display_p3_of_css():
    """CSS Color 4, section 10.8: linear Display P3 to CIE XYZ."""
    expected = [
        [0.4865709486, 0.2656676932, 0.1982172852],
        [0.2289745641, 0.6917385218, 0.0792869141],
        [0.0, 0.0451133819, 1.0439443689],
    ]
    assert_close(color.rgb_to_xyz("p3"), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_white_maps_to_white_and_back(source, target):
    matrix = color.rgb_to_rgb(source, target)
    assert matrix.dtype == torch.float64
    assert_close(matrix.sum(1), torch.ones(3, dtype=torch.float64))
    assert_close(color.rgb_to_rgb(target, source) @ matrix, torch.eye(3, dtype=torch.float64))


def test_convert_primaries_is_the_column_vector_product():
    rgb = torch.rand(2, 3, 4, 5)
    expected = torch.einsum("ij,bjhw->bihw", color.rgb_to_rgb("bt709", "bt2020").float(), rgb)
    assert_close(color.convert_primaries(rgb, "bt709", "bt2020"), expected)


def test_converting_to_the_same_primaries_keeps_the_pixels():
    rgb = torch.rand(1, 3, 2, 2).half()
    assert_close(color.convert_primaries(rgb, "p3", "p3"), rgb.float())


def test_a_picture_is_cut_to_what_narrower_primaries_hold():
    """Green of BT.2020 in BT.709 is (-0.59, 1.13, -0.10)."""
    green = torch.tensor([0.0, 1.0, 0.0]).reshape(1, 3, 1, 1)
    assert_close(color.convert_sdr(green, "bt2020", "bt709"), green)


@pytest.mark.parametrize("name", color.PRIMARIES)
def test_luminance_of_white_is_one(name):
    assert_close(color.luminance(torch.ones(1, 3, 2, 2), name), torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_curves_return_float32(dtype):
    x = torch.rand(8).to(dtype)
    curves = (color.srgb_to_linear, color.linear_to_srgb)
    for curve in (*curves, color.pq_encode, color.pq_decode, color.hlg_encode, color.hlg_decode):
        assert curve(x).dtype == torch.float32


def test_unknown_primaries_are_refused():
    with pytest.raises(GainMapError, match="'adobe'.*bt709"):
        color.rgb_to_rgb("bt709", "adobe")


@pytest.mark.parametrize("shape", [(1, 4, 2, 2), (1, 1, 2, 2), (3, 2, 2)])
def test_a_picture_of_another_shape_is_named(shape):
    with pytest.raises(GainMapError, match="without alpha"):
        color.luminance(torch.ones(shape))
