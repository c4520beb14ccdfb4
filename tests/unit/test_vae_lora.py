import copy
import json

import peft
import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from gm_core import vae_keys, vae_lora
from gm_core.errors import ModelFileError

PICTURE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()


@pytest.fixture(scope="module")
def adapted(vae):
    """The VAE as Stage 1 trains it: LoRA everywhere, and the base of decoder.conv_out moved as well."""
    torch.manual_seed(2)
    targets = list(vae_keys.lora_key_map(vae.state_dict()))
    model = peft.get_peft_model(
        copy.deepcopy(vae), peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "decoder.conv_out.base_layer" in name:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


@pytest.fixture(scope="module")
def lora(adapted):
    return {name.replace(".default", ""): t for name, t in adapted.state_dict().items() if "lora_" in name}


@pytest.fixture(scope="module")
def ema(adapted):
    return {"decay": 0.9999, "shadow_params": [parameter.detach() for parameter in adapted.parameters()]}


def picture_from(vae: AutoencoderKL, weights) -> torch.Tensor:
    model = copy.deepcopy(vae)
    model.load_state_dict(vae_keys.to_diffusers(weights))
    with torch.no_grad():
        return model.decode(model.encode(PICTURE).latent_dist.mode()).sample


@pytest.mark.parametrize("names", [dict, vae_keys.to_ldm])
def test_merged_vae_equals_the_adapted_one(vae, adapted, lora, ema, names):
    base = names(vae.state_dict())
    complete = lora | vae_lora.conv_out_from_ema(ema, base)
    merged = vae_lora.merge_lora(base, complete, scale=vae_lora.lora_scale({"r": 4, "lora_alpha": 8}))
    assert merged.keys() == base.keys()
    with torch.no_grad():
        expected = adapted.decode(adapted.encode(PICTURE).latent_dist.mode()).sample
    assert_close(picture_from(vae, merged), expected, rtol=1e-4, atol=1e-5)


def test_strength_zero_is_the_vae_itself_and_nothing_is_mutated(vae, lora, ema):
    base = vae_keys.to_ldm(vae.state_dict())
    before = {name: tensor.clone() for name, tensor in base.items()}
    complete = lora | vae_lora.conv_out_from_ema(ema, base)
    unchanged = vae_lora.merge_lora(base, complete, strength=0.0)
    assert all(torch.equal(unchanged[name], before[name]) for name in before)
    vae_lora.merge_lora(base, complete)
    assert all(torch.equal(base[name], before[name]) for name in before)


@given(strength=st.floats(-2, 2))
def test_merging_is_linear_in_strength(strength):
    generator = torch.Generator().manual_seed(0)
    base = {"quant_conv.weight": torch.randn(4, 6, 3, 3, generator=generator)}
    lora = {
        "quant_conv.lora_A.weight": torch.randn(2, 6, 3, 3, generator=generator),
        "quant_conv.lora_B.weight": torch.randn(4, 2, 1, 1, generator=generator),
    }
    one = vae_lora.merge_lora(base, lora)["quant_conv.weight"] - base["quant_conv.weight"]
    part = vae_lora.merge_lora(base, lora, strength=strength)["quant_conv.weight"] - base["quant_conv.weight"]
    assert_close(part, one * strength, rtol=1e-4, atol=1e-5)
    b, a = lora["quant_conv.lora_B.weight"][:, :, 0, 0], lora["quant_conv.lora_A.weight"]
    assert_close(one, torch.einsum("or,rihw->oihw", b, a), rtol=1e-4, atol=1e-5)


def test_stored_alpha_overrides_the_scale():
    base = {"quant_conv.weight": torch.zeros(3, 3, 1, 1)}
    lora = {
        "quant_conv.lora_down.weight": torch.eye(2, 3)[..., None, None],
        "quant_conv.lora_up.weight": torch.eye(3, 2),
    }
    merged = vae_lora.merge_lora(base, lora | {"quant_conv.alpha": torch.tensor(6.0)}, scale=9.0)
    assert_close(merged["quant_conv.weight"][..., 0, 0], torch.diag(torch.tensor([3.0, 3.0, 0.0])))


def test_half_precision_vae_stays_half(vae, lora):
    base = {name: tensor.half() for name, tensor in vae.state_dict().items()}
    assert {t.dtype for t in vae_lora.merge_lora(base, lora).values()} == {torch.float16}


def test_missing_conv_out_is_noticed(vae, lora, ema):
    assert vae_lora.missing_conv_out(lora)
    assert not vae_lora.missing_conv_out(lora | vae_lora.conv_out_from_ema(ema, vae.state_dict()))
    assert not vae_lora.missing_conv_out({"quant_conv.lora_A.weight": torch.zeros(1, 1)})


def test_modules_to_save_of_peft_are_merged_whole(vae):
    base, saved = vae.state_dict(), torch.randn(3, 32, 3, 3)
    merged = vae_lora.merge_lora(base, {"base_model.model.decoder.conv_out.weight": saved})
    assert torch.equal(merged["decoder.conv_out.weight"], saved)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        (None, 1.0),
        ({"format": "pt"}, 1.0),
        ({"r": 64, "lora_alpha": 64}, 1.0),
        ({"r": 16, "lora_alpha": 8}, 0.5),
        ({"r": 16, "lora_alpha": 8, "use_rslora": True}, 2.0),
        ({"lora_adapter_metadata": json.dumps({"vae.r": 4, "vae.lora_alpha": 8})}, 2.0),
    ],
)
def test_scale_is_read_from_either_configuration(config, scale):
    assert vae_lora.lora_scale(config) == scale


@pytest.mark.parametrize(
    "config",
    [
        {"r": 0, "lora_alpha": 8},
        {"r": "many"},
        {"r": None},
        {"lora_adapter_metadata": "{"},
        {"lora_adapter_metadata": "[1]"},
        {"r": 4, "rank_pattern": {"conv_in": 8}},
        {"r": 4, "alpha_pattern": {"conv_in": 8}},
    ],
)
def test_unusable_configurations_are_refused(config):
    with pytest.raises(ModelFileError):
        vae_lora.lora_scale(config)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"unet.conv_in.lora_A.weight": torch.zeros(2, 4, 3, 3)}, "1 of 1 adapter layers.*unet.conv_in"),
        ({"quant_conv.lora_A.weight": torch.zeros(2, 8, 1, 1)}, "only one of"),
        ({"quant_conv.lora_magnitude_vector": torch.zeros(8)}, "lora_magnitude_vector"),
        (
            {
                "quant_conv.lora_A.weight": torch.zeros(2, 9, 1, 1),
                "quant_conv.lora_B.weight": torch.zeros(8, 2, 1, 1),
            },
            "does not fit",
        ),
        ({"quant_conv.weight": torch.zeros(5)}, "holds a \\[5\\]"),
    ],
)
def test_misfitting_adapters_are_named(vae, lora, message):
    with pytest.raises(ModelFileError, match=message):
        vae_lora.merge_lora(vae.state_dict(), lora)


@pytest.mark.parametrize(
    ("ema", "message"),
    [
        ({}, "no list 'shadow_params'"),
        ({"shadow_params": ["x"]}, "no list 'shadow_params'"),
        ({"shadow_params": [torch.zeros(3, 3)]}, "0 candidates"),
        ({"shadow_params": [torch.zeros(3, 32, 3, 3), torch.zeros(32)]}, "0 candidates"),
        ({"shadow_params": [torch.zeros(3, 32, 3, 3), torch.zeros(3)] * 2}, "2 candidates"),
    ],
)
def test_unusable_ema_files_are_refused(vae, ema, message):
    with pytest.raises(ModelFileError, match=message):
        vae_lora.conv_out_from_ema(ema, vae.state_dict())
