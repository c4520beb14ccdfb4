"""The model that ships with the pack."""

from pathlib import Path

from safetensors.torch import load_file

from gm_core.shipped import UNET_FILE, VAE_FILE
from gm_core.tone.net import ToneNet

WEIGHTS = Path(__file__).parents[2] / "weights"


def test_it_is_small_enough_to_ship():
    assert sum((WEIGHTS / name).stat().st_size for name in (UNET_FILE, VAE_FILE)) <= 35e6


def test_its_highlights_are_judged():
    net = ToneNet.pop_from(load_file(WEIGHTS / UNET_FILE), UNET_FILE)
    assert net is not None and net.highlights is not None
    assert net.highlights.leave.weight.abs().max() > 0


def test_its_clipped_areas_have_colours():
    net = ToneNet.pop_from(load_file(WEIGHTS / UNET_FILE), UNET_FILE)
    assert net is not None and net.tints is not None
    assert net.tints.leave.weight.abs().max() > 0


def test_it_knows_phones():
    net = ToneNet.pop_from(load_file(WEIGHTS / UNET_FILE), UNET_FILE)
    assert net is not None and net.phones is not None
    assert net.phones.judge[-1].weight.abs().max() > 0
