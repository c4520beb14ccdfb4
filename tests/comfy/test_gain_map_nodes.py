"""GM VAE Decode, HDR Merge, Extract Gain Map, HDR Preview."""

from __future__ import annotations

import dataclasses

import pytest
import torch


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def vae(host):
    return host.call("GMHDRLoadUNet").args[1]


@pytest.fixture
def info(host):
    core = (
        host.module("gm_core.model_info"),
        host.module("gm_core.gain_map"),
        host.module("gm_core.gain_coding"),
    )
    model_info, gain_map, coding = core
    return model_info.GainMapModelInfo(
        spec=gain_map.GainMapSpec(qmax=31.0), coding=coding.GainCoding("log2", -3.0, 5.0), gamut="bt709"
    )


def latent(batch=1, height=8, width=8):
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(1))


def test_decode_gives_equation_one_units_whatever_the_models_coding(host, vae, info) -> None:
    samples = {"samples": latent(), "gmhdr": info}
    gain_map, qmax, primaries = host.call("GMHDRDecode", samples=samples, vae=vae).args
    coded = vae.decode(samples["samples"])
    torch.testing.assert_close(1 + gain_map * 31, 2 ** (coded * 8 - 3), rtol=1e-4, atol=1e-4)
    assert (qmax, primaries) == (31.0, "bt709") and gain_map.dtype == torch.float32


def test_decode_without_any_mark_takes_the_papers_constants_and_says_so(host, comfy, vae, caplog) -> None:
    other = comfy.sd.VAE(sd=vae.get_sd(), dtype=torch.float32)
    gain_map, qmax, primaries = host.call("GMHDRDecode", samples={"samples": latent()}, vae=other).args
    assert torch.equal(gain_map, other.decode(latent())) and (qmax, primaries) == (99.0, "bt2020")
    assert "samples does not say which model painted it" in caplog.text
    assert "connect vae of Load GM UNet" in caplog.text


def test_decode_believes_the_latent_more_than_the_vae(host, vae, info) -> None:
    marked = {"samples": latent(), "gmhdr": dataclasses.replace(info, gamut="bt2020")}
    _, _, primaries = host.call("GMHDRDecode", samples=marked, vae=vae).args
    assert primaries == "bt2020"


def test_decode_in_fp32_even_if_the_vae_is_not(host, comfy, vae) -> None:
    half = comfy.sd.VAE(sd=vae.get_sd(), dtype=torch.bfloat16)
    rounded = comfy.sd.VAE(sd=half.get_sd(), dtype=torch.float32)
    got = host.call("GMHDRDecode", samples={"samples": latent()}, vae=half).args[0]
    assert torch.equal(got, rounded.decode(latent())) and half.vae_dtype == torch.bfloat16


def test_decode_moves_tones_only_as_far_as_asked(host, vae, info) -> None:
    tone = host.module("gm_core.tone.net")
    torch.manual_seed(3)
    samples = {"samples": latent(), "gmhdr": info, "gmhdr_tone": tone.ToneNet(width=8).eval()}
    guide = picture(1, 64, 64, 3)
    off, on = (
        host.call("GMHDRDecode", samples=samples, vae=vae, guide=guide, tone_correction=strength).args[0]
        for strength in (0.0, 1.0)
    )
    plain = host.call("GMHDRDecode", samples={**samples, "gmhdr_tone": None}, vae=vae, guide=guide).args[0]
    assert torch.equal(off, plain) and not torch.allclose(on, plain, atol=1e-3)


def test_decode_gives_frames_of_a_film_the_same_tones(host, vae, info) -> None:
    tone = host.module("gm_core.tone.net")
    torch.manual_seed(3)
    samples = {"samples": latent(), "gmhdr": info, "gmhdr_tone": tone.ToneNet(width=8).eval()}
    frames = (picture(1, 64, 64, 3) + 0.02 * torch.randn(6, 64, 64, 3)).clamp(0, 1)
    alone, film = (
        host.call("GMHDRDecode", samples=samples, vae=vae, guide=frames, film=together).args[0]
        for together in (False, True)
    )
    # Where values are the same from frame to frame, only the tones read of each can differ.
    same = (frames.diff(dim=0).abs() < 0.002).all(dim=-1)
    assert same.any()
    flicker, steady = (gain_map.diff(dim=0)[same].std() for gain_map in (alone, film))
    assert steady < flicker / 2
    single = {"samples": samples, "vae": vae, "guide": frames[:1]}
    one, one_of_film = (host.call("GMHDRDecode", **single, film=f).args[0] for f in (False, True))
    assert torch.equal(one, one_of_film)


def test_decode_leaves_dark_colours_their_light(host, vae, info) -> None:
    guide = picture(1, 64, 64, 3) ** 3
    samples = {"samples": latent(), "gmhdr": info}
    gain_map = host.call("GMHDRDecode", samples=samples, vae=vae, guide=guide).args[0]
    hdr = host.call("GMHDRMerge", sdr=guide, gain_map=gain_map, qmax=31.0).args[0]
    assert (hdr >= guide**2.2 / 8 - 1e-5).all()


def test_decode_follows_the_guides_size(host, vae, info) -> None:
    samples = {"samples": latent(2), "gmhdr": info}
    gain_map = host.call("GMHDRDecode", samples=samples, vae=vae, guide=picture(1, 77, 131, 3)).args[0]
    assert gain_map.shape == (2, 77, 131, 3)


def test_tiles_agree_with_the_whole_picture(host, vae, info) -> None:
    samples = {"samples": latent(1, 24, 24) * 0.2, "gmhdr": info}
    whole = host.call("GMHDRDecode", samples=samples, vae=vae).args[0]
    tiled = host.call("GMHDRDecode", samples=samples, vae=vae, tile_size=128, overlap=64).args[0]
    assert ((tiled - whole).abs() > 2e-3).float().mean() < 1e-2


@pytest.mark.parametrize("shape", [(1, 16, 8, 8), (4, 8, 8), (0, 4, 8, 8)])
def test_other_latents_are_refused(host, vae, shape) -> None:
    with pytest.raises(ValueError, match="samples: expected an SD 1.5 latent"):
        host.call("GMHDRDecode", samples={"samples": torch.zeros(shape)}, vae=vae)


def test_merge_is_equation_one(host) -> None:
    sdr, gain_map = picture(2, 5, 7, 3), picture(1, 5, 7, 3, seed=1)
    hdr = host.call("GMHDRMerge", sdr=sdr, gain_map=gain_map, qmax=9.0).args[0]
    torch.testing.assert_close(hdr, (sdr**2.2 + 1 / 64) * (1 + gain_map * 9) - 1 / 64)


def test_white_at_full_gain_is_the_papers_peak(host) -> None:
    white = torch.ones(1, 1, 1, 3)
    assert host.call("GMHDRMerge", sdr=white, gain_map=white).args[0].max().item() == pytest.approx(
        101.546875
    )


def test_merge_converts_primaries_only_when_asked(host) -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 1, 1, 3)
    zero = torch.zeros(1, 1, 1, 3)
    as_is = host.call("GMHDRMerge", sdr=red, gain_map=zero).args[0]
    converted = host.call("GMHDRMerge", sdr=red, gain_map=zero, primaries="bt2020").args[0]
    expected = torch.tensor([1.660491, -0.124550, -0.018151]).view(1, 1, 1, 3)
    torch.testing.assert_close(as_is, red)
    torch.testing.assert_close(converted, expected, rtol=0, atol=1e-5)


def test_extract_inverts_merge_also_where_it_darkens(host) -> None:
    sdr, gain_map = 0.5 + picture(1, 6, 6, 3) / 2, picture(1, 6, 6, 3, seed=1)
    gain_map[:, :2] = -0.009
    hdr = host.call("GMHDRMerge", sdr=sdr, gain_map=gain_map).args[0]
    back = host.call("GMHDRExtract", sdr=sdr, hdr=hdr).args[0]
    torch.testing.assert_close(back, gain_map, rtol=0, atol=1e-5)


def test_gain_map_cropped_by_a_vae_is_aligned(host) -> None:
    sdr = torch.full((1, 11, 13, 3), 0.5)
    gain_map = torch.zeros(1, 8, 8, 3)
    gain_map[:, 0, 0] = 1.0
    hdr = host.call("GMHDRMerge", sdr=sdr, gain_map=gain_map, qmax=1.0).args[0][0, :, :, 0]
    lifted = (hdr > hdr.min() * 1.5).nonzero()
    assert lifted.max(0).values.tolist() == [1, 2] and lifted.min(0).values.tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(1, 4, 4, 3), (1, 40, 16, 3), (3, 16, 16, 3)])
def test_pictures_that_do_not_belong_together_are_refused(host, shape) -> None:
    message = "batch|Batch" if shape[0] == 3 else "'guide' of GM VAE Decode"
    with pytest.raises(ValueError, match=message):
        host.call("GMHDRMerge", sdr=picture(2, 16, 16, 3), gain_map=torch.zeros(shape))


def test_single_channel_maps_and_half_pictures(host) -> None:
    sdr, gain_map = picture(1, 4, 4, 3).half(), picture(1, 4, 4, 1, seed=1).half()
    hdr = host.call("GMHDRMerge", sdr=sdr, gain_map=gain_map).args[0]
    full = host.call("GMHDRMerge", sdr=sdr.float(), gain_map=gain_map.float().expand(-1, -1, -1, 3)).args[0]
    assert torch.equal(hdr, full) and hdr.dtype == torch.float32 and hdr.is_contiguous()


def test_inputs_are_not_mutated(host) -> None:
    sdr, gain_map = picture(1, 4, 4, 3) * 2 - 0.5, picture(1, 4, 4, 3, seed=1) * 2
    kept = sdr.clone(), gain_map.clone()
    hdr = host.call("GMHDRMerge", sdr=sdr, gain_map=gain_map).args[0]
    host.call("GMHDRExtract", sdr=sdr, hdr=hdr)
    host.call("GMHDRPreview", hdr=hdr)
    assert torch.equal(sdr, kept[0]) and torch.equal(gain_map, kept[1])


@pytest.mark.parametrize("operator", ["reinhard", "aces-like", "clip", "false colour"])
def test_preview_is_displayable_even_with_nan(host, operator) -> None:
    hdr = picture(1, 8, 8, 3) * 50
    hdr[0, 0, 0] = float("nan")
    result = host.call("GMHDRPreview", hdr=hdr, operator=operator)
    shown = result.ui.as_dict()["images"][0]
    assert (host.base / "temp" / shown["filename"]).is_file()
    assert result.args[0].min() >= 0 and result.args[0].max() <= 1


@pytest.mark.parametrize("primaries", ["bt709", "p3", "bt2020", "acescg"])
@pytest.mark.parametrize("operator", ["reinhard", "aces-like", "clip", "false colour"])
def test_preview_shows_infinite_light_as_the_brightest(host, operator, primaries) -> None:
    hdr = torch.ones(1, 1, 3, 3) * 0.25
    hdr[0, 0, 0], hdr[0, 0, 1] = float("inf"), torch.tensor([float("inf"), 0.25, float("-inf")])
    brightest = host.call("GMHDRPreview", hdr=torch.full_like(hdr, 1e4), operator=operator).args[0][0, 0, 0]
    for exposure in (0.0, 1.0, 12.0):
        options = {"operator": operator, "primaries": primaries, "exposure": exposure}
        sdr = host.call("GMHDRPreview", hdr=hdr, **options).args[0]
        assert sdr.min() >= 0 and sdr.max() <= 1
        torch.testing.assert_close(sdr[0, 0, 0], brightest, rtol=0, atol=0.02)


def test_preview_exposure_is_in_stops(host) -> None:
    hdr = torch.full((1, 2, 2, 3), 4.0)
    shown = host.call("GMHDRPreview", hdr=hdr, exposure=-3.0, operator="clip").args[0]
    torch.testing.assert_close(shown, torch.full((1, 2, 2, 3), 0.7353569), rtol=0, atol=1e-5)
