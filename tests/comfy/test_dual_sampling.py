"""Dual sampling: the SDR picture is KSampler's own, the gain map is the lock-step loop's."""

from __future__ import annotations

import functools
import gc

import pytest
import torch

QUICK = (
    "euler",
    "heun",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "euler_ancestral",
    "euler_cfg_pp",
    "uni_pc",
    "dpm_adaptive",
)
DETERMINISTIC = (
    *("euler", "heun", "heunpp2", "dpm_2", "lms", "dpm_fast", "dpmpp_2m", "ipndm", "ipndm_v", "deis"),
    *("res_multistep", "gradient_estimation", "ddim", "uni_pc", "uni_pc_bh2"),
)
ALL_0_3_75 = (
    *DETERMINISTIC,
    *("euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "dpm_2_ancestral", "dpm_adaptive"),
    *("dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m_cfg_pp"),
    *("dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde"),
    *("dpmpp_3m_sde_gpu", "ddpm", "lcm", "res_multistep_cfg_pp", "res_multistep_ancestral"),
    *("res_multistep_ancestral_cfg_pp", "gradient_estimation_cfg_pp", "er_sde", "seeds_2", "seeds_3"),
    *("sa_solver", "sa_solver_pece"),
)
SETTINGS = {"seed": 3, "steps": 4, "cfg": 7.5, "scheduler": "normal", "denoise": 1.0}


def all_but_quick_slow(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture
def prompts(models):
    return {"positive": models.prompt(1), "negative": models.prompt(2)}


def empty(batch=1, height=8, width=8, **extra):
    return {"samples": torch.zeros(batch, 4, height, width), **extra}


@pytest.fixture
def dual(host, sdr_model, gm_model, prompts):
    def run(latent=None, **changes):
        inputs = {"model": sdr_model, "gm_model": gm_model, **prompts, "sampler_name": "euler", **SETTINGS}
        return host.call("GMHDRDualSampler", **{**inputs, "latent_image": latent or empty(), **changes}).args

    return run


@pytest.fixture
def stock(host, sdr_model, prompts):
    def run(latent=None, **changes):
        inputs = {"model": sdr_model, **prompts, "sampler_name": "euler", **SETTINGS, **changes}
        return host.node("KSampler")().sample(**inputs, latent_image=latent or empty())[0]["samples"]

    return run


@pytest.fixture
def lock_step(host, comfy, sdr_model, gm_model, prompts):
    """Both branches as one 8-channel state of one sampler: what the paper's loop does, step by step."""
    guiders = host.module("nodes.engine.guider")

    class Condition:
        def next(self, sigma):
            return self.x0

    class JointGuider(comfy.samplers.CFGGuider):
        def inner_sample(self, noise, latent_image, device, *args, **kwargs):
            self.branch = guiders.GainMapGuider(gm_model, Condition())
            self.branch.set_conds(prompts["positive"])
            conds = {k: [c.copy() for c in v] for k, v in self.branch.original_conds.items()}
            self.branch.inner_model = gm_model.model
            self.branch.conds = comfy.samplers.process_conds(gm_model.model, noise[:, :4], conds, device)
            gm_model.pre_run()
            return super().inner_sample(noise, latent_image, device, *args, **kwargs)

        def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006
            sdr, gain_map = x.chunk(2, dim=1)
            self.branch.source.x0 = super().predict_noise(sdr, timestep, model_options, seed)
            x0 = self.branch.predict_noise(gain_map, timestep, gm_model.model_options, seed)
            return torch.cat([self.branch.source.x0, x0], dim=1)

    def run(sampler_name):
        stock = comfy.samplers.KSampler(sdr_model, SETTINGS["steps"], "cpu", sampler_name, "normal", 1.0)
        guider = JointGuider(sdr_model)
        guider.set_conds(prompts["positive"], prompts["negative"])
        guider.set_cfg(SETTINGS["cfg"])
        noise = torch.randn(1, 4, 8, 8, generator=torch.manual_seed(SETTINGS["seed"])).repeat(1, 2, 1, 1)
        sampler = comfy.samplers.sampler_object(sampler_name)
        joint = guider.sample(noise, torch.zeros_like(noise), sampler, stock.sigmas, seed=SETTINGS["seed"])
        return joint.chunk(2, dim=1)

    return run


def test_the_list_of_samplers_is_the_hosts(comfy) -> None:
    assert set(comfy.samplers.SAMPLER_NAMES) == set(ALL_0_3_75)


@pytest.mark.parametrize("name", all_but_quick_slow(ALL_0_3_75))
def test_sdr_is_ksamplers_bit_for_bit(dual, stock, name) -> None:
    sdr, gain_map = dual(sampler_name=name)
    assert torch.equal(sdr["samples"], stock(sampler_name=name))
    assert torch.isfinite(gain_map["samples"]).all() and gain_map["samples"].abs().max() > 0


@pytest.mark.parametrize("name", all_but_quick_slow(DETERMINISTIC))
def test_gain_map_is_the_lock_step_loops(dual, lock_step, name) -> None:
    sdr, gain_map = dual(sampler_name=name)
    joint_sdr, joint_gain_map = lock_step(name)
    torch.testing.assert_close(sdr["samples"], joint_sdr, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gain_map["samples"], joint_gain_map, rtol=1e-5, atol=1e-5)


def test_a_ksampler_that_samples_in_its_own_way(comfy, dual, stock, monkeypatch) -> None:
    class Own(comfy.samplers.KSAMPLER):
        def sample(self, model_wrap, sigmas, extra_args, callback, noise, *rest):
            return super().sample(model_wrap, sigmas, extra_args, callback, noise * 0.5, *rest)

    euler = comfy.samplers.sampler_object("euler")
    monkeypatch.setattr(comfy.samplers, "sampler_object", lambda name: Own(euler.sampler_function))
    assert torch.equal(dual()[0]["samples"], stock())


@pytest.mark.parametrize("scheduler", ["karras", "beta", "ddim_uniform"])
def test_schedulers(dual, stock, scheduler) -> None:
    assert torch.equal(dual(scheduler=scheduler)[0]["samples"], stock(scheduler=scheduler))


@pytest.mark.parametrize("cfg", [0.0, 1.0, 30.0])
def test_any_cfg(dual, stock, cfg) -> None:
    """The original fails at CFG <= 1; the gain-map branch never uses it."""
    sdr, gain_map = dual(cfg=cfg)
    assert torch.equal(sdr["samples"], stock(cfg=cfg)) and torch.isfinite(gain_map["samples"]).all()


def test_batch_row_is_the_single_run(dual) -> None:
    """The original fails for batches; batch_index picks the noise of one row."""
    both = dual(empty(3))
    for row in range(3):
        single = dual(empty(1, batch_index=[row]))
        for whole, part in zip(both, single, strict=True):
            torch.testing.assert_close(whole["samples"][row : row + 1], part["samples"], rtol=1e-3, atol=1e-3)


def test_inpainting_mask(dual, stock) -> None:
    known = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(8))
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1.0
    latent = {"samples": known, "noise_mask": mask}
    sdr, gain_map = dual(latent)
    assert torch.equal(sdr["samples"], stock(latent))
    torch.testing.assert_close(sdr["samples"][..., :3], known[..., :3])
    assert "noise_mask" in sdr and "noise_mask" not in gain_map


def test_gain_map_of_an_inpainted_picture_keeps_its_known_part(dual) -> None:
    known, old = (torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(s)) for s in (8, 9))
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1.0
    gain_map = dual({"samples": known, "noise_mask": mask}, gm_latent={"samples": old})[1]["samples"]
    torch.testing.assert_close(gain_map[..., :3], old[..., :3])
    assert not torch.allclose(gain_map[..., 5:], old[..., 5:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_16_bit_gain_map_is_continued_in_fp32(dual, models, dtype) -> None:
    """Half of it is under no prompt: in fp16 core divides by zero there."""
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(8)).to(dtype)
    half = models.prompt(1, area=(8, 4, 0, 0), strength=1.0)
    rounded, exact = (
        dual(empty(2), denoise=0.5, gm_positive=half, gm_latent={"samples": samples})[1]["samples"]
        for samples in (start, start.float())
    )
    assert torch.isfinite(exact).all() and torch.equal(rounded, exact)


def test_image_to_image_paints_the_whole_gain_map_of_the_result(dual, stock) -> None:
    latent = {"samples": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(8))}
    sdr, gain_map = dual(latent, denoise=0.5)
    assert torch.equal(sdr["samples"], stock(latent, denoise=0.5))
    final = dual(sdr, denoise=0.0)[1]["samples"]
    assert torch.isfinite(gain_map["samples"]).all() and final.shape == gain_map["samples"].shape


def test_no_denoising_returns_the_picture_and_its_gain_map(dual) -> None:
    latent = {"samples": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(8))}
    sdr, gain_map = dual(latent, denoise=0.0)
    assert torch.equal(sdr["samples"], latent["samples"]) and gain_map["samples"].abs().max() > 0


@pytest.mark.parametrize(
    ("scheduler", "picture", "mode"),
    [
        ("ddim_uniform", False, "trajectory"),
        ("ddim_uniform", True, "final"),
        ("normal", True, "trajectory"),
    ],
)
def test_auto_takes_a_picture_below_full_noise_as_final(dual, scheduler, picture, mode) -> None:
    """ddim_uniform never reaches full noise: what was in latent_image shows through even at denoise 1."""
    latent = {"samples": torch.full((1, 4, 8, 8), float(picture))}
    auto, chosen = (
        dual(latent, scheduler=scheduler, gm_condition=condition)[1]["samples"]
        for condition in ("auto", mode)
    )
    assert torch.equal(auto, chosen)


@pytest.mark.parametrize("name", QUICK)
def test_gain_map_never_sees_more_noise_than_its_model_knows(
    host, dual, stock, sdr_model, gm_model, name
) -> None:
    """Zero terminal SNR begins at sigma 4518, where 1 % of error in the noise is 45 in the gain map."""
    zero_snr = host.node("ModelSamplingDiscrete")().patch(sdr_model, "v_prediction", True)[0]
    seen, watched = [], gm_model.clone()

    def watch(apply_model, call):
        seen.extend(call["timestep"].tolist())
        return apply_model(call["input"], call["timestep"], **call["c"])

    watched.set_model_unet_function_wrapper(watch)
    sdr, gain_map = dual(model=zero_snr, gm_model=watched, sampler_name=name)
    assert torch.equal(sdr["samples"], stock(model=zero_snr, sampler_name=name))
    assert max(seen) == pytest.approx(float(gm_model.get_model_object("model_sampling").sigma_max))
    assert torch.isfinite(gain_map["samples"]).all()


def test_replaying_a_partial_schedule_needs_a_gain_map(dual) -> None:
    latent = {"samples": torch.ones(1, 4, 8, 8)}
    with pytest.raises(ValueError, match="gm_condition: .*gm_latent"):
        dual(latent, denoise=0.5, gm_condition="trajectory")
    dual(latent, denoise=0.5, gm_condition="trajectory", gm_latent={"samples": torch.ones(1, 4, 8, 8)})


def test_final_condition_is_the_up_conversion_of_the_result(host, comfy, dual, gm_model, prompts) -> None:
    sdr, gain_map = dual(gm_condition="final")
    upconvert = host.module("nodes.engine.upconvert").sample_gain_map
    settings = {"seed": 3, "steps": 4, "sampler_name": "euler", "scheduler": "normal"}
    expected = upconvert(gm_model, sdr["samples"], prompts["positive"], **settings)
    torch.testing.assert_close(gain_map["samples"], expected, rtol=1e-5, atol=1e-5)


def test_built_in_model_follows_its_own_steps_size_and_text(host, dual) -> None:
    gm_model = host.call("GMHDRLoadUNet").args[0]
    gain_map = dual(empty(1, 32, 16), gm_model=gm_model)[1]
    assert gain_map["samples"].shape == (1, 4, 16, 8) and gain_map["gmhdr"].steps == 2


def test_a_run_with_the_built_in_model_reads_no_model_file(host, comfy, dual, monkeypatch) -> None:
    gm_model = host.call("GMHDRLoadUNet").args[0]
    monkeypatch.setattr(comfy.utils, "load_torch_file", lambda *_, **__: pytest.fail("a file was read"))
    dual(empty(1, 32, 16), gm_model=gm_model)


def test_latent_dictionaries_keep_their_keys_and_are_not_mutated(dual) -> None:
    latent = empty(1, batch_index=[2], custom="kept")
    kept = {**latent, "samples": latent["samples"].clone()}
    sdr, gain_map = dual(latent)
    assert latent.keys() == kept.keys() and torch.equal(latent["samples"], kept["samples"])
    assert sdr["custom"] == gain_map["custom"] == "kept" and sdr["batch_index"] == [2]
    assert gain_map["gmhdr"].spec.qmax == 99.0


def test_number_of_unet_evaluations_is_the_papers(dual, sdr_model, gm_model, monkeypatch) -> None:
    counts = {}
    for name, patcher in (("sdr", sdr_model), ("gm", gm_model)):
        network = patcher.model.diffusion_model
        forward = network.forward

        @functools.wraps(forward)
        def counted(x, *args, _name=name, _forward=forward, **kwargs):
            counts[_name] = counts.get(_name, 0) + len(x)
            return _forward(x, *args, **kwargs)

        monkeypatch.setattr(network, "forward", counted)
    dual()
    assert counts == {"sdr": 2 * SETTINGS["steps"], "gm": SETTINGS["steps"]}


@pytest.fixture
def shown(comfy, host, monkeypatch):
    """What the progress bar is told: (value, total, preview)."""
    seen = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *a, **_: seen.append(a))
    monkeypatch.setattr(host.args, "preview_method", type(host.args.preview_method).Latent2RGB)
    return seen


def test_one_progress_bar_and_previews_of_both_branches(dual, shown) -> None:
    dual(empty(1, 8, 12))
    assert [(value, total) for value, total, _ in shown] == [(n, 8) for n in range(1, 9)]
    assert [preview[1].size for *_, preview in shown] == [(12, 8)] * 4 + [(24, 8)] * 4


def test_the_bar_never_goes_back(dual, shown) -> None:
    """dpm_adaptive takes more steps than it was asked for."""
    dual(sampler_name="dpm_adaptive")
    values = [value for value, *_ in shown]
    assert values == sorted(values) and len(values) > SETTINGS["steps"] * 2


def test_previews_show_a_smaller_gain_map_beside_the_picture_too(host, dual, shown) -> None:
    dual(empty(1, 16, 24), gm_model=host.call("GMHDRLoadUNet").args[0])
    assert [preview[1].size for *_, preview in shown] == [(24, 16)] * 4 + [(48, 16)] * 2


def test_cancel_stops_within_a_step_and_frees_what_was_recorded(host, comfy, dual, monkeypatch) -> None:
    trajectory = host.module("gm_core.trajectory").Trajectory
    recorded = lambda: {id(kept) for kept in gc.get_objects() if type(kept) is trajectory}  # noqa: E731
    others = recorded()
    for stop in (2, 6):
        seen = []

        def cancel(value, total, preview, _stop=stop, _seen=seen, **_):
            _seen.append(value)
            if value == _stop:
                comfy.model_management.interrupt_current_processing()
            comfy.model_management.throw_exception_if_processing_interrupted()

        monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", cancel)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            dual()
        assert seen[-1] == stop
        assert recorded() <= others


def test_text_of_another_width_is_refused(dual, models) -> None:
    with pytest.raises(ValueError, match="gm_positive: the text is 32 wide"):
        dual(gm_positive=models.prompt(1, width=32))


def test_gain_map_latent_of_another_size_is_refused(dual) -> None:
    with pytest.raises(ValueError, match="gm_latent: expected the size"):
        dual(gm_latent=empty(1, 4, 4))


def test_a_gain_map_model_as_the_sdr_model_is_refused(dual, gm_model) -> None:
    with pytest.raises(ValueError, match="model: this is a gain-map UNet"):
        dual(model=gm_model)


@pytest.mark.parametrize("shape", [(1, 16, 8, 8), (1, 4, 3, 8, 8), (0, 4, 8, 8)])
def test_a_latent_of_another_family_is_refused(dual, shape) -> None:
    with pytest.raises(ValueError, match="latent_image: expected an SD 1.5 latent"):
        dual(latent_image={"samples": torch.ones(shape)})


def test_a_model_with_other_latents_is_refused(comfy, dual, sdr_model) -> None:
    other = sdr_model.clone()
    other.add_object_patch("latent_format", comfy.latent_formats.SDXL())
    with pytest.raises(ValueError, match="model: .*GM Sampler"):
        dual(model=other)
