"""Dual sampling on a card that has room for one UNet only, as with --lowvram."""

from __future__ import annotations

import pytest
import torch

CARD = torch.device("cpu", 0)
"""Computes on the CPU, but ComfyUI tells it from its own torch.device("cpu") and manages its memory."""


@pytest.fixture
def unets(host, models):
    """SDR and gain-map MODEL that are used on the card and kept in RAM."""
    path = host.base / "models/diffusion_models/for_a_small_card.safetensors"
    models.save(models.unet(models.TINY, seed=20), path)
    pair = models.sdr_model(), host.call("GMHDRLoadUNet", unet_name=path.name).args[0]
    for patcher in pair:
        patcher.load_device = CARD
    return pair


@pytest.fixture
def room(comfy, unets, monkeypatch):
    """Weights the card can hold in --lowvram mode: 1.1 times the larger UNet, beside what inference needs."""
    management = comfy.model_management
    size = int(1.1 * max(patcher.model_size() for patcher in unets))

    def free(device=None, torch_free_too=False):
        used = sum(model.model_loaded_memory() for model in management.current_loaded_models)
        left = size + management.minimum_inference_memory() - used
        return (left, left) if torch_free_too else left

    management.unload_all_models()
    monkeypatch.setattr(management, "current_loaded_models", [])
    monkeypatch.setattr(management, "get_free_memory", free)
    monkeypatch.setattr(management, "is_device_cpu", lambda device: device == torch.device("cpu"))
    monkeypatch.setattr(management, "vram_state", management.VRAMState.LOW_VRAM)
    yield size
    management.free_memory(1e30, CARD)


def sample(host, models, unets, mode):
    return host.call(
        "GMHDRDualSampler",
        model=unets[0],
        gm_model=unets[1],
        positive=models.prompt(1),
        negative=models.prompt(2),
        latent_image={"samples": torch.zeros(1, 4, 8, 8)},
        steps=3,
        gm_condition=mode,
    ).args


@pytest.mark.parametrize("mode", ["trajectory", "final"])
def test_only_the_unet_that_runs_is_on_the_card(host, models, unets, room, mode) -> None:
    seen = []
    for patcher in unets:
        patcher.model.diffusion_model.register_forward_pre_hook(
            lambda *_, running=patcher: seen.append((running, [other.loaded_size() for other in unets]))
        )
    for _ in range(2):
        sample(host, models, unets, mode)
    sdr_model, gm_model = unets
    assert [running for running, _ in seen] == ([sdr_model] * 3 + [gm_model] * 3) * 2
    for running, loaded in seen:
        assert loaded[unets.index(running)] == running.model_size()
        assert sum(loaded) <= room < sum(patcher.model_size() for patcher in unets)


def test_the_pictures_are_those_of_a_large_card(host, models, unets, request) -> None:
    whole = sample(host, models, unets, "trajectory")
    request.getfixturevalue("room")
    for small, large in zip(sample(host, models, unets, "trajectory"), whole, strict=True):
        assert torch.equal(small["samples"], large["samples"])
