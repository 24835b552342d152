"""Runs of the reference samplers on a closed-form network, for tests/test_samplers.c.

    python tools/goldens/samplers.py [--comfy FILE] tests/golden/samplers

Needs torch, diffusers, scipy and k-diffusion (pip install --no-deps k-diffusion torchdiffeq torchsde trampoline).
FILE is comfy/k_diffusion/sampling.py of a ComfyUI checkout: res_multistep, er_sde and the cfg++ forms are run from it;
without it those cases of the old file are kept. Every case holds what rung_sampler_open is given, the timesteps at
which the network was called, and the final samples. The loops are our own: scale_model_input for the network alone.
"""
import argparse
import inspect
import importlib.util
import json
import math
import pathlib
import sys
import types

import numpy as np
import torch
import diffusers
from diffusers import schedulers as S

SHAPE = {16: (1, 4, 4), 27: (3, 3, 3), 10: (1, 2, 5)}
SD = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD1 = dict(SD, _class_name="PNDMScheduler", skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1,
           clip_sample=False, trained_betas=None)


def net(x, t, kind):
    """The network: f32 in, f64 inside, f32 out. tests/test_samplers.c has the same formula."""
    t = float(np.float32(float(t)))
    x = x.numpy().astype(np.float64)
    if kind == "epsilon":
        y = 0.7 * x + 0.3 * np.tanh(2 * x + math.sin(t / 150)) + 0.05 * math.sin(t / 100)
    else:
        y = 0.5 * np.tanh(1.5 * x + 0.2 * math.sin(t / 120)) + 0.1 * math.cos(t / 77)
    return torch.from_numpy(y.astype(np.float32))


class Run:
    """One case's pictures: each has a generator of its own."""

    def __init__(self, case):
        self.case, self.calls = case, []
        self.gens = [torch.Generator().manual_seed(case["seed"] + p) for p in range(case["batch"])]
        self.kind = "epsilon" if case["net"] == "epsilon" else "other"

    def noise(self):
        shape = (1,) + SHAPE[self.case["n"]]
        return torch.cat([torch.randn(shape, generator=g) for g in self.gens])

    def __call__(self, x, t):
        self.calls.append(float(np.float32(float(t))))
        return net(x, t, self.kind)

    def uncond(self, x, t):
        return net(0.5 * x, t, self.kind)


def run_diffusers(case, cls, overrides, **step_args):
    run = Run(case)
    s = cls.from_config(dict(case["config"]), **overrides)
    args = {"sigmas": np.array(case["sigmas"])} if "sigmas" in case else {"num_inference_steps": case["steps"]}
    if case.get("tokens"):
        c = s.config
        m = (c.get("max_shift", 1.15) - c.get("base_shift", 0.5)) / (
            c.get("max_image_seq_len", 4096) - c.get("base_image_seq_len", 256))
        args["mu"] = case["tokens"] * m + c.get("base_shift", 0.5) - m * c.get("base_image_seq_len", 256)
    s.set_timesteps(**args)
    x = run.noise() * s.init_noise_sigma if hasattr(s, "init_noise_sigma") else run.noise()
    for t in s.timesteps:
        out = run(s.scale_model_input(x, t) if hasattr(s, "scale_model_input") else x, t)
        x = s.step(out, t, x, **{k: (run.gens if v == "generators" else v) for k, v in step_args.items()})[0]
    return x, run.calls


class KModel:
    """k-diffusion's view of a model that was trained on alphas_cumprod."""

    def __init__(self, run, alphas_cumprod, prediction):
        from k_diffusion import external
        self.schedule = external.DiscreteSchedule(((1 - alphas_cumprod) / alphas_cumprod) ** 0.5, quantize=False)
        self.run, self.prediction = run, prediction
        self.whole = False
        ns = types.SimpleNamespace
        self.inner_model = ns(model_patcher=ns(get_model_object=lambda name: ns()), inner_model=ns(model_sampling=ns()))

    def denoised(self, x, sigma, out):
        if self.prediction == "epsilon":
            return x - out * sigma
        if self.prediction == "v_prediction":
            return out * (-sigma / (sigma**2 + 1) ** 0.5) + x / (sigma**2 + 1)
        return out

    def __call__(self, x, sigma, **extra):
        t = self.schedule.sigma_to_t(sigma[:1])[0]
        t = t.round() if self.whole else t
        sigma = sigma[0]
        x_in = x / (sigma**2 + 1) ** 0.5
        x0 = self.denoised(x, sigma, self.run(x_in, t))
        hook = extra.get("model_options", {}).get("hook")
        if hook:
            hook({"denoised": x0, "uncond_denoised": self.denoised(x, sigma, self.run.uncond(x_in, t))})
        return x0


def named_sigmas(name, n, model):
    """A1111's modules/sd_schedulers.py and ComfyUI's linear_quadratic, from their formulas."""
    from k_diffusion import sampling as K
    from scipy import stats
    sig = model.schedule.sigmas
    lo, hi, T = sig[0].item(), sig[-1].item(), len(sig)
    at = lambda ts: [model.schedule.t_to_sigma(t).item() for t in ts]
    if name in ("default", "normal"):
        return model.schedule.get_sigmas(n)
    if name == "karras":
        return K.get_sigmas_karras(n, lo, hi)
    if name == "exponential":
        return K.get_sigmas_exponential(n, lo, hi)
    if name == "polyexponential":
        return K.get_sigmas_polyexponential(n, lo, hi)
    if name == "sgm_uniform":
        out = at(torch.linspace(T - 1, 0, n + 1)[:-1])
    elif name == "simple":
        out = [sig[T - 1 - int(i * (T / n))].item() for i in range(n)]
    elif name == "ddim_uniform":
        out = sig[1:: max(T // n, 1)].flip(0).tolist()
    elif name == "beta":
        out = [lo + stats.beta.ppf(q, 0.6, 0.6) * (hi - lo) for q in 1 - np.linspace(0, 1, n)]
    elif name == "kl_optimal":
        w = np.arange(n + 1) / n
        return torch.tensor(np.tan(w * np.arctan(lo) + (1 - w) * np.arctan(hi)), dtype=torch.float32)
    elif name in ("ays", "ays_sdxl"):
        p = {"ays": [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029],
             "ays_sdxl": [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029]}[name]
        ys = np.interp(np.linspace(0, 1, n), np.linspace(0, 1, 11), np.log(p[::-1]))
        out = np.exp(ys)[::-1].tolist()
    elif name == "linear_quadratic":
        half = n // 2
        rest = n - half
        if n == 1:
            out = [1.0]
        else:
            excess = half - 0.025 * n
            q = excess / (half * rest**2)
            b = 0.025 / half - 2 * excess / rest**2
            up = [i * 0.025 / half for i in range(half)]
            up += [q * i * i + b * i + q * half**2 for i in range(half, n)]
            out = [1 - u for u in up]
        out = [o * hi for o in out]
    return torch.tensor(out + [0.0], dtype=torch.float32)


def run_k(case, function, **args):
    """A sample_* function of k-diffusion or ComfyUI."""
    run = Run(case)
    config = case["config"]
    euler = S.EulerDiscreteScheduler.from_config(config)
    vp = args.pop("vp", False)  # a diffusers method on k-diffusion's list: noise of variance 1, whole timesteps
    model = KModel(run, euler.alphas_cumprod, config.get("prediction_type", "epsilon"))
    if case["sampler"].startswith("dpm_"):
        lo, hi = model.schedule.sigmas[0].item(), model.schedule.sigmas[-1].item()
        x = run.noise() * hi
        if case["sampler"] == "dpm_fast":
            args["n"] = case["steps"]
        args.update(sigma_min=lo, sigma_max=hi)
    else:
        sigmas = torch.tensor(case["sigmas"]) if "sigmas" in case else named_sigmas(
            case.get("schedule", "default"), case["steps"], model)
        x = run.noise() * ((sigmas[0] ** 2 + 1) ** 0.5 if vp else sigmas[0])
        model.whole = vp
        args["sigmas"] = sigmas
    if "cfg_pp" in case["sampler"]:
        args["extra_args"] = {"model_options": {}}
    if "noise_sampler" in inspect.signature(function).parameters:
        args["noise_sampler"] = lambda *_: run.noise()
    x = function(model, x, disable=True, **args)
    if vp:
        x = x / (args["sigmas"][-1] ** 2 + 1) ** 0.5
    return x, run.calls


def case_of(sampler, config, steps, **more):
    case = {"sampler": sampler, "config": config, "steps": steps, "seed": 100 + steps, "batch": 2, "n": 16}
    case.update({k: v for k, v in more.items() if v is not None})
    p = config.get("prediction_type", "epsilon")
    flow = config.get("_class_name", "").startswith("FlowMatch") or p == "flow_prediction"
    case["net"] = "epsilon" if p == "epsilon" and not flow else "other"
    return case


SPACINGS = ("leading", "trailing", "linspace")
FLAG = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas",
        "lu": "use_lu_lambdas"}


def alpha_cases(add):
    rng = "generators"
    for sp in SPACINGS:
        for p in ("epsilon", "v_prediction", "sample"):
            c = dict(SD1, timestep_spacing=sp, prediction_type=p)
            for n in (1, 4, 7, 20):
                add("ddim", c, n, S.DDIMScheduler)
            if p != "sample":
                for n in (1, 2, 3, 7, 20):
                    add("pndm", c, n, S.PNDMScheduler)
            add("ddim", dict(c, clip_sample=True, clip_sample_range=0.8), 7, S.DDIMScheduler, eta=0.6, generator=rng)
            for n in (1, 7, 20):
                add("ddpm", c, n, S.DDPMScheduler, generator=rng)
        c = dict(SD1, timestep_spacing=sp)
        add("ddim", c, 50, S.DDIMScheduler)
        add("ddim", dict(c, set_alpha_to_one=True), 20, S.DDIMScheduler, eta=1.0, generator=rng, n=27)
        for n in (4, 5, 9, 20):
            add("pndm", dict(c, skip_prk_steps=False), n, S.PNDMScheduler)
            add("plms", dict(c, skip_prk_steps=False, prediction_type="v_prediction"), n, S.PNDMScheduler)
    add("pndm", dict(SD1, timestep_spacing="linspace"), 50, S.PNDMScheduler)
    add("ddim", dict(SD1, timestep_spacing="trailing"), 61, S.DDIMScheduler)  # numpy makes 62 of it
    z = dict(SD1, rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing")
    add("ddim", z, 8, S.DDIMScheduler)
    add("ddim", dict(z, beta_schedule="linear"), 20, S.DDIMScheduler, eta=0.3, generator=rng)
    add("ddpm", dict(z, timestep_spacing="leading"), 8, S.DDPMScheduler, generator=rng)
    add("ddim", {}, 10, S.DDIMScheduler)
    add("ddim", dict(SD1, beta_schedule="squaredcos_cap_v2"), 10, S.DDIMScheduler)
    add("ddim", dict(SD1, beta_schedule="linear", beta_start=0.0001, beta_end=0.02), 10, S.DDIMScheduler, n=10)
    add("ddim", dict(SD1, thresholding=True, sample_max_value=1.7), 10, S.DDIMScheduler)
    add("ddim", dict(SD1, thresholding=True, dynamic_thresholding_ratio=0.8, sample_max_value=9), 10, S.DDIMScheduler)
    betas = [0.001 + 0.0002 * i for i in range(100)]
    t = dict(num_train_timesteps=100, trained_betas=betas)
    add("ddim", t, 9, S.DDIMScheduler)
    add("euler", t, 9, S.EulerDiscreteScheduler)
    add("ddim", dict(SD1, _use_default_values=["beta_start", "clip_sample"]), 7, S.DDIMScheduler)
    add("ddim", dict(SD1, rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=True), 6,
        S.DDIMScheduler)
    for v in ("fixed_small", "fixed_small_log", "fixed_large"):
        add("ddpm", dict(SD1, variance_type=v), 7, S.DDPMScheduler, generator=rng)
    add("ddpm", dict(SD1, beta_schedule="sigmoid"), 7, S.DDPMScheduler, generator=rng)
    add("ddpm", dict(SD1, beta_schedule="laplace", clip_sample=True), 7, S.DDPMScheduler, generator=rng)
    add("ddpm", {}, 7, S.DDPMScheduler, generator=rng)
    for p in ("epsilon", "v_prediction", "sample"):
        c = dict(SD1, prediction_type=p)
        for n in (1, 2, 4, 8, 30):
            add("lcm", c, n, S.LCMScheduler, generator=rng)
            add("tcd", c, n, S.TCDScheduler, eta=0.0, generator=rng)
            add("tcd", c, n, S.TCDScheduler, eta=0.3, generator=rng)
    add("lcm", dict(SD1, original_inference_steps=100, timestep_scaling=8, clip_sample=True), 4, S.LCMScheduler,
        generator=rng)
    add("tcd", dict(SD1, _class_name="TCDScheduler"), 4, S.TCDScheduler, eta=1.0, generator=rng)
    for n in (1, 2, 5, 20):
        add("ipndm", SD1, n, S.IPNDMScheduler)


def sigma_cases(add):
    rng = "generators"
    for sp in SPACINGS:
        for p in ("epsilon", "v_prediction"):
            c = dict(SD1, timestep_spacing=sp, prediction_type=p)
            for n in (1, 3, 20):
                add("euler", c, n, S.EulerDiscreteScheduler)
                add("euler_a", c, n, S.EulerAncestralDiscreteScheduler, generator=rng)
                add("heun", c, n, S.HeunDiscreteScheduler)
                add("lms", c, n, S.LMSDiscreteScheduler)
                add("dpm2", c, n, S.KDPM2DiscreteScheduler)
                add("dpm2_a", c, n, S.KDPM2AncestralDiscreteScheduler, generator=rng)
        for flag in ("karras", "exponential", "beta"):
            c = dict(SD1, timestep_spacing=sp)
            for n in (2, 10):
                add("euler", c, n, S.EulerDiscreteScheduler, schedule=flag)
                add("heun", c, n, S.HeunDiscreteScheduler, schedule=flag)
                add("lms", c, n, S.LMSDiscreteScheduler, schedule=flag)
                add("dpm2", c, n, S.KDPM2DiscreteScheduler, schedule=flag)
                add("dpm2_a", c, n, S.KDPM2AncestralDiscreteScheduler, schedule=flag, generator=rng)
    s = dict(SD1, prediction_type="sample")
    for name, cls in (("euler", S.EulerDiscreteScheduler), ("heun", S.HeunDiscreteScheduler),
                      ("lms", S.LMSDiscreteScheduler)):
        add(name, s, 9, cls)
        add(name, {}, 9, cls)
        add(name, dict(SD1, sigma_min=0.1, sigma_max=9.0), 9, cls, schedule="karras")
        add(name, dict(SD1, use_karras_sigmas=True), 9, cls)
    add("heun", dict(SD1, clip_sample=True, clip_sample_range=0.7), 9, S.HeunDiscreteScheduler)
    add("heun", dict(SD1, beta_schedule="exp"), 9, S.HeunDiscreteScheduler)
    e = S.EulerDiscreteScheduler
    for more in (dict(final_sigmas_type="sigma_min"), dict(interpolation_type="log_linear"),
                 dict(interpolation_type="log_linear", use_karras_sigmas=True),
                 dict(rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"),
                 dict(rescale_betas_zero_snr=True, timestep_spacing="trailing"),
                 dict(timestep_type="continuous", prediction_type="v_prediction", use_karras_sigmas=True,
                      sigma_min=0.002, sigma_max=700.0),
                 dict(timestep_type="continuous", prediction_type="v_prediction", interpolation_type="log_linear"),
                 dict(beta_schedule="squaredcos_cap_v2"), dict(num_train_timesteps=500)):
        add("euler", dict(SD1, **more), 12, e)
    add("euler", SD1, 50, e)
    add("euler", dict(SD1, timestep_spacing="trailing"), 61, e)
    add("euler_a", dict(SD1, timestep_spacing="trailing"), 50, S.EulerAncestralDiscreteScheduler, generator=rng, n=27)
    add("euler_a", dict(SD1, rescale_betas_zero_snr=True, prediction_type="v_prediction"), 12,
        S.EulerAncestralDiscreteScheduler, generator=rng, n=10)
    add("euler", SD1, 0, e, sigmas=[14.0, 7.5, 3.0, 1.0, 0.2, 0.0])
    add("euler", dict(SD1, timestep_spacing="trailing", prediction_type="v_prediction"), 0, e,
        sigmas=[10.0, 2.0, 0.5, 0.0])


def lambda_cases(add):
    rng = "generators"
    multi, single = S.DPMSolverMultistepScheduler, S.DPMSolverSinglestepScheduler
    uni, deis, sa = S.UniPCMultistepScheduler, S.DEISMultistepScheduler, S.SASolverScheduler
    for sp in SPACINGS:
        for p in ("epsilon", "v_prediction", "sample"):
            c = dict(SD1, timestep_spacing=sp, prediction_type=p)
            for n in (1, 2, 7, 20):
                add("dpm++2m", c, n, multi)
                add("unipc", c, n, uni)
                add("deis", c, n, deis)
                add("sa_solver", c, n, sa, generator=rng)
            add("dpm++2m_sde", c, 7, multi, over=dict(algorithm_type="sde-dpmsolver++"), generator=rng)
            add("dpm++2s", c, 7, single)
        c = dict(SD1, timestep_spacing=sp)
        for flag in ("karras", "exponential", "beta", "lu"):
            for n in (3, 20):
                add("dpm++2m", c, n, multi, schedule=flag)
                if flag != "lu":
                    add("unipc", c, n, uni, schedule=flag)
                    add("deis", c, n, deis, schedule=flag)
                    add("sa_solver", c, n, sa, schedule=flag, generator=rng)
                    add("dpm++2s", c, n, single, schedule=flag)
                    add("dpm++2m_sde", c, n, multi, schedule=flag, over=dict(algorithm_type="sde-dpmsolver++"),
                        generator=rng)
    # the config alone, no sampler named: every order, solver and algorithm
    m = dict(SD, _class_name="DPMSolverMultistepScheduler", steps_offset=1)
    for order in (1, 2, 3):
        for algorithm in ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"):
            for solver in ("midpoint", "heun"):
                c = dict(m, solver_order=order, algorithm_type=algorithm, solver_type=solver)
                if not algorithm.endswith("++"):
                    c["final_sigmas_type"] = "sigma_min"
                if not (algorithm == "sde-dpmsolver" and order == 3):
                    add(None, c, 8, multi, generator=rng)
                    add(None, c, 20, multi, generator=rng)
                if algorithm != "sde-dpmsolver":
                    c = dict(c, _class_name="DPMSolverSinglestepScheduler")
                    for n in (6, 7, 8):
                        add(None, c, n, single, generator=rng)
                    add(None, dict(c, lower_order_final=True, prediction_type="v_prediction"), 9, single, generator=rng)
    for more in (dict(lower_order_final=False), dict(euler_at_final=True, final_sigmas_type="sigma_min"),
                 dict(final_sigmas_type="sigma_min"), dict(lambda_min_clipped=-2.0),
                 dict(lambda_min_clipped=-math.inf), dict(thresholding=True, sample_max_value=2.0),
                 dict(rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"),
                 dict(rescale_betas_zero_snr=True, prediction_type="epsilon"),
                 dict(beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True),
                 dict(use_lu_lambdas=True), dict(sigma_min=0.05, sigma_max=12.0, use_karras_sigmas=True),
                 dict(use_lu_lambdas=True, rescale_betas_zero_snr=True, prediction_type="v_prediction"),
                 dict(variance_type=None, solver_order=3, euler_at_final=True), dict(prediction_type="v_prediction")):
        add(None, dict(m, **more), 10, multi)
        add(None, dict(m, **more), 25, multi)
    add(None, dict(m, algorithm_type="dpmsolver", final_sigmas_type="sigma_min", thresholding=True), 10, multi)
    add("dpm++2m", dict(m, lambda_min_clipped=-3.0, timestep_spacing="leading"), 10, multi)
    add("dpm++2m", dict(m, lambda_min_clipped=-3.0, timestep_spacing="trailing"), 10, multi)
    add("dpm++2s", dict(m, lambda_min_clipped=-3.0), 10, single)
    add("dpm++2m", {}, 10, multi)
    u = dict(SD, _class_name="UniPCMultistepScheduler")
    for order in (1, 2, 3):
        for solver in ("bh1", "bh2"):
            for x0 in (True, False):
                c = dict(u, solver_order=order, solver_type=solver, predict_x0=x0, final_sigmas_type="sigma_min")
                add(None, c, 8, uni)
                add(None, dict(c, lower_order_final=False, prediction_type="v_prediction"), 8, uni)
    add("unipc_bh2", SD1, 9, uni)
    add("unipc_bh1", dict(SD1, final_sigmas_type="sigma_min"), 9, uni, over=dict(solver_type="bh1"))
    add(None, dict(u, disable_corrector=[0, 2], thresholding=True, sample_max_value=3.0), 9, uni)
    add(None, dict(u, final_sigmas_type="sigma_min", use_karras_sigmas=True), 9, uni)
    add(None, dict(u, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"), 9, uni)
    add("unipc", {}, 50, uni)
    d = dict(SD, _class_name="DEISMultistepScheduler")
    for order in (1, 2, 3):
        for n in (8, 20):
            add(None, dict(d, solver_order=order), n, deis)
            add(None, dict(d, solver_order=order, lower_order_final=False, prediction_type="v_prediction"), n, deis)
    add("deis", {}, 9, deis)
    q = dict(SD, _class_name="SASolverScheduler")
    for po in (1, 2, 3, 4):
        for co in (1, 2, 3, 4):
            add(None, dict(q, predictor_order=po, corrector_order=co), 9, sa, generator=rng)
    add(None, dict(q, algorithm_type="noise_prediction"), 9, sa, generator=rng)
    add(None, dict(q, algorithm_type="noise_prediction", predictor_order=3, corrector_order=3, lower_order_final=False,
                   prediction_type="v_prediction"), 9, sa, generator=rng)
    add(None, dict(q, lower_order_final=False), 25, sa, generator=rng)
    add("sa_solver", dict(m, algorithm_type="dpmsolver++"), 9, sa, over=dict(algorithm_type="data_prediction"),
        generator=rng)  # diffusers refuses its relative's name


def other_cases(add):
    rng = "generators"
    for cls, name in ((S.EDMEulerScheduler, "edm_euler"), (S.EDMDPMSolverMultistepScheduler, "edm_dpm++2m")):
        for p in ("epsilon", "v_prediction"):
            for schedule in ("karras", "exponential"):
                for final in ("zero", "sigma_min"):
                    c = dict(_class_name=cls.__name__, prediction_type=p, sigma_schedule=schedule,
                             final_sigmas_type=final)
                    add(name, c, 7, cls)
        add(name, {}, 1, cls)
        add(name, {}, 20, cls)
        add(name, dict(sigma_min=0.02, sigma_max=30.0, sigma_data=1.0, rho=5.0), 12, cls)
    e = dict(_class_name="EDMDPMSolverMultistepScheduler")
    for order in (1, 2, 3):
        for solver in ("midpoint", "heun"):
            for algorithm in ("dpmsolver++", "sde-dpmsolver++"):
                if not (order == 3 and algorithm.startswith("sde")):
                    add(None, dict(e, solver_order=order, solver_type=solver, algorithm_type=algorithm), 8,
                        S.EDMDPMSolverMultistepScheduler, generator=rng)
    for n in (1, 2, 5):
        add("cm", {}, n, S.CMStochasticIterativeScheduler, generator=rng)
    add("cm", dict(clip_denoised=False, s_noise=0.9, num_train_timesteps=18), 4, S.CMStochasticIterativeScheduler,
        generator=rng)
    flow, heun, lcm = S.FlowMatchEulerDiscreteScheduler, S.FlowMatchHeunDiscreteScheduler, S.FlowMatchLCMScheduler
    f = dict(_class_name="FlowMatchEulerDiscreteScheduler")
    for shift in (1.0, 3.0):
        for n in (1, 4, 20):
            c = dict(f, shift=shift)
            add("euler", c, n, flow)
            add("heun", c, n, heun)
            add("lcm", c, n, lcm, generator=rng)
            over = dict(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift)
            add("dpm++2m", c, n, S.DPMSolverMultistepScheduler, over=over)
            add("unipc", c, n, S.UniPCMultistepScheduler, over=over)
            add("deis", c, n, S.DEISMultistepScheduler, over=over)
            add("dpm++2s", c, n, S.DPMSolverSinglestepScheduler, over=over)
            add("sa_solver", c, n, S.SASolverScheduler, over=over, generator=rng)
            add("dpm++2m_sde", c, n, S.DPMSolverMultistepScheduler, generator=rng,
                over=dict(over, algorithm_type="sde-dpmsolver++"))
    for flag in ("karras", "exponential", "beta"):
        add("flow_euler", dict(f, shift=2.0), 8, flow, schedule=flag)
    for more in (dict(use_dynamic_shifting=True), dict(use_dynamic_shifting=True, time_shift_type="linear"),
                 dict(use_dynamic_shifting=True, base_shift=0.7, max_shift=1.3, shift_terminal=0.1)):
        add(None, dict(f, **more), 8, flow, tokens=1024)
    for more in (dict(shift_terminal=0.1, shift=2.0), dict(invert_sigmas=True), dict(stochastic_sampling=True),
                 dict(num_train_timesteps=500, shift=1.7)):
        add(None, dict(f, **more), 8, flow, generator=rng)
    add("flow_euler", dict(f, shift=3.0), 0, flow, sigmas=[1.0, 0.75, 0.5, 0.25], append_zero=True)
    for more in (dict(flow_shift=1.0), dict(flow_shift=3.0), dict(flow_shift=2.0, shift_terminal=0.1),
                 dict(flow_shift=3.0, final_sigmas_type="sigma_min")):
        u = dict(_class_name="UniPCMultistepScheduler", use_flow_sigmas=True, prediction_type="flow_prediction", **more)
        add("unipc", u, 0, S.UniPCMultistepScheduler, sigmas=[1.0, 0.8, 0.55, 0.3, 0.1])
        add("unipc", u, 0, S.UniPCMultistepScheduler, sigmas=[0.9, 0.5])
    add(None, dict(f, _class_name="FlowMatchHeunDiscreteScheduler", shift=3.0), 8, heun)
    g = dict(_class_name="DPMSolverMultistepScheduler", use_flow_sigmas=True, prediction_type="flow_prediction",
             flow_shift=3.0)
    add(None, g, 20, S.DPMSolverMultistepScheduler)
    add(None, dict(g, _class_name="UniPCMultistepScheduler", shift_terminal=0.05), 9, S.UniPCMultistepScheduler)
    add(None, dict(g, _class_name="UniPCMultistepScheduler", use_karras_sigmas=True), 9, S.UniPCMultistepScheduler)
    add(None, dict(g, _class_name="UniPCMultistepScheduler", use_dynamic_shifting=True), 9, S.UniPCMultistepScheduler,
        tokens=600)


LISTED = ("default", "karras", "exponential", "beta", "polyexponential", "sgm_uniform", "simple", "normal",
          "ddim_uniform", "linear_quadratic", "kl_optimal", "ays", "ays_sdxl")


def k_cases(add, comfy):
    from k_diffusion import sampling as K
    functions = [("dpm++2s_a", K.sample_dpmpp_2s_ancestral), ("dpm++sde", K.sample_dpmpp_sde),
                 ("dpm++3m_sde", K.sample_dpmpp_3m_sde)]
    if comfy:
        functions += [("res_multistep", comfy.sample_res_multistep), ("er_sde", comfy.sample_er_sde),
                      ("euler_cfg_pp", comfy.sample_euler_cfg_pp),
                      ("euler_a_cfg_pp", comfy.sample_euler_ancestral_cfg_pp)]
        add("res_multistep", SD1, 9, comfy.sample_res_multistep_ancestral, eta=1.0)
    for name, f in functions:
        for n in (1, 2, 7, 20):
            for p in ("epsilon", "v_prediction", "sample"):
                add(name, dict(SD1, prediction_type=p), n, f)
        for schedule in LISTED:
            add(name, SD1, 9, f, schedule=schedule)
        add(name, SD1, 0, f, sigmas=[12.0, 4.0, 1.0, 0.3, 0.0])
    # methods of diffusers over lists that it does not have
    for schedule in LISTED[4:]:
        c = dict(SD1, timestep_spacing="trailing")
        for n in (2, 9, 20):
            for name, f in (("euler", K.sample_euler), ("heun", K.sample_heun), ("lms", K.sample_lms),
                            ("dpm2", K.sample_dpm_2), ("dpm2_a", K.sample_dpm_2_ancestral),
                            ("euler_a", K.sample_euler_ancestral)):
                if (name, schedule) != ("lms", "linear_quadratic"):  # k-diffusion integrates to 1e-4 only
                    add(name, c, n, f, schedule=schedule)
            add("dpm++2m", c, n, K.sample_dpmpp_2m, schedule=schedule, vp=True)
            add("dpm++2m_sde", c, n, K.sample_dpmpp_2m_sde, schedule=schedule, vp=True, solver_type="midpoint")
    for schedule in LISTED:
        for n in (1, 2, 5, 11, 30):
            add("dpm++2s_a", SD1, n, K.sample_dpmpp_2s_ancestral, schedule=schedule, eta=0.0)
    for name, f in functions[:3]:
        add(name, SD1, 9, f, eta=0.5)
        add(name, {}, 9, f, schedule="karras", n=27)
    for n in (1, 2, 3, 4, 5, 6, 20):
        add("dpm_fast", SD1, n, K.sample_dpm_fast)
        add("dpm_fast", SD1, n, K.sample_dpm_fast, eta=0.7)
    add("dpm_fast", dict(SD1, prediction_type="v_prediction"), 9, K.sample_dpm_fast)
    add("dpm_adaptive", dict(SD1, prediction_type="v_prediction"), 9, K.sample_dpm_adaptive, batch=1)
    add("dpm_adaptive", SD1, 9, K.sample_dpm_adaptive, batch=1)
    add("dpm_adaptive", SD1, 9, K.sample_dpm_adaptive, batch=1, eta=0.5)


def load_comfy(path):
    """comfy/k_diffusion/sampling.py with the few things it takes from the rest of ComfyUI."""
    comfy = types.ModuleType("comfy")
    for name in ("model_patcher", "model_sampling", "memory_management", "utils"):
        module = types.ModuleType("comfy." + name)
        setattr(comfy, name, module)
        sys.modules["comfy." + name] = module
    sys.modules["comfy"] = comfy
    comfy.model_sampling.CONST = type("CONST", (), {})
    comfy.utils.model_trange = lambda *a, **k: range(*a)

    def set_hook(options, hook, disable_cfg1_optimization=False):
        return dict(options, hook=hook)

    comfy.model_patcher.set_model_options_post_cfg_function = set_hook
    package = types.ModuleType("comfy_k")
    package.__path__ = []
    sys.modules["comfy_k"] = package
    from k_diffusion import utils
    sys.modules["comfy_k.utils"] = utils
    for name in ("deis", "sa_solver"):
        sys.modules["comfy_k." + name] = types.ModuleType(name)
    for name in ("utils", "deis", "sa_solver"):
        setattr(package, name, sys.modules["comfy_k." + name])
    spec = importlib.util.spec_from_file_location("comfy_k.sampling", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bare_k_diffusion():
    """k-diffusion's package file imports training code and what that needs; its samplers need none of it."""
    spec = importlib.util.find_spec("k_diffusion")
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["k_diffusion"] = package
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, ndim: x[(...,) + (None,) * (ndim - x.ndim)]
    sys.modules["k_diffusion.utils"] = package.utils = utils


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--comfy")
    args = ap.parse_args()
    print("torch", torch.__version__, "diffusers", diffusers.__version__, "numpy", np.__version__)
    cases, skipped = [], []

    def finish(case, run):
        try:
            x, calls = run()
        except Exception as e:
            skipped.append((case, repr(e)[:90]))
            return
        if not torch.isfinite(x).all():
            skipped.append((case, "not finite"))
            return
        case["t"] = [float(f"{t:.7g}") for t in calls]
        case["x"] = [float(f"{v:.8g}") for v in x.reshape(-1).tolist()]
        cases.append(case)

    def add(sampler, config, steps, cls, schedule=None, eta=None, over=None, sigmas=None, tokens=None, n=None,
            generator=None, append_zero=None):
        case = case_of(sampler, config, steps, schedule=schedule, eta=eta, sigmas=sigmas, tokens=tokens, n=n)
        flags = dict(over or {}, **({FLAG[schedule]: True} if schedule else {}))
        step = {}
        if eta is not None:
            step["eta"] = eta
        if generator and "generator" in cls.step.__code__.co_varnames:
            step["generator"] = generator
        finish(case, lambda: run_diffusers(case, cls, flags, **step))

    def add_k(sampler, config, steps, function, schedule=None, eta=None, sigmas=None, n=None, batch=None, **more):
        case = case_of(sampler, config, steps, schedule=schedule, eta=eta, sigmas=sigmas, n=n, batch=batch)
        finish(case, lambda: run_k(case, function, **more, **({} if eta is None else {"eta": eta})))

    bare_k_diffusion()
    comfy = load_comfy(args.comfy) if args.comfy else None
    alpha_cases(add)
    sigma_cases(add)
    lambda_cases(add)
    other_cases(add)
    k_cases(add_k, comfy)
    out = args.out / "cases.json"
    if not comfy and out.exists():
        kept = ("res_multistep", "er_sde", "euler_cfg_pp", "euler_a_cfg_pp")
        cases += [c for c in json.loads(out.read_text())["cases"] if c["sampler"] in kept]
    args.out.mkdir(parents=True, exist_ok=True)
    made = f"tools/goldens/samplers.py: torch {torch.__version__}, diffusers {diffusers.__version__}, k-diffusion 0.1.1"
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    out.write_text('{"made_by":%s,"cases":[\n%s\n]}\n' % (json.dumps(made), lines))
    print(len(cases), "cases,", out.stat().st_size, "bytes")
    for case, why in skipped:
        print("no reference:", case["sampler"], case.get("schedule"), case["steps"], case["config"], why)


if __name__ == "__main__":
    main()
