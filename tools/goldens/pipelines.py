"""Whole pipelines with tiny random weights: models, final latents and pixels, from diffusers' own pipelines.

    python tools/goldens/pipelines.py tests/golden/pipelines

Every norm weight and bias is random, so that a forgotten one is seen. cases.json holds the arguments of each picture;
LoRA needs the package peft. latents_<case>.npy are before the VAE and still scaled, pixels_<case>.npy are 0..255 as f32 [h, w, c].
"""
import copy, json, os, sys

import diffusers, numpy as np, torch, transformers
from diffusers import (AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler,
                       EulerDiscreteScheduler, LCMScheduler, PNDMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline,
                       UNet2DConditionModel)
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, BertTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "train"))
from model import LadderTransformer2DModel

SAMPLERS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler, "euler_a": EulerAncestralDiscreteScheduler,
            "dpm++2m": DPMSolverMultistepScheduler, "pndm": PNDMScheduler, "lcm": LCMScheduler}
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
WORDS = ["red apple", "a cat", "the blue house, sharp", "low quality"]


def randomise(model, seed, gain=1.0):
    """Random weights of a trained network's size, norms and biases included, rounded to f16 (what is stored)."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.copy_(torch.randn(p.shape, generator=g) * 0.1 + (1.0 if "norm" in name and "weight" in name else 0.0))
            else:
                p.copy_(torch.randn(p.shape, generator=g) * gain / max(1, p[0].numel()) ** 0.5)
            p.copy_(p.half().float())
    return model.eval()


def clip_tokenizer(pad):
    """Bytes, bytes with </w>, a few merges: enough for any text."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    chars = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    merges = [("t", "h"), ("th", "e</w>"), ("a", "p"), ("r", "e"), ("re", "d</w>"), ("l", "e</w>"), ("c", "a"), ("ca", "t</w>"),
              ("h", "o"), ("l", "i"), ("ap", "p"), ("app", "le</w>")]
    tokens = chars + [c + "</w>" for c in chars] + [a + b for a, b in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, model_max_length=77, pad_token=pad), len(tokens)


def clip(vocab, act, layers, seed):
    return randomise(CLIPTextModel(CLIPTextConfig(
        vocab_size=vocab, hidden_size=24, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=3,
        max_position_embeddings=77, hidden_act=act, bos_token_id=vocab - 2, eos_token_id=vocab - 1,
        pad_token_id=vocab - 1)), seed)


def vae(seed, channels=3, latents=4, blocks=(8, 16), attention=True, **more):
    return randomise(AutoencoderKL(
        in_channels=channels, out_channels=channels, latent_channels=latents, block_out_channels=blocks, layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * len(blocks), up_block_types=["UpDecoderBlock2D"] * len(blocks),
        norm_num_groups=4, mid_block_add_attention=attention, sample_size=32, **more), seed)


def stable_diffusion(kind):
    seed, linear = {"sd1": 1, "sd2": 2, "turbo": 3}[kind], kind != "sd1"
    tokenizer, vocab = clip_tokenizer("<|endoftext|>" if kind == "sd1" else "!")
    scheduler = {"sd1": PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False),
                 "sd2": DDIMScheduler(**BETAS, prediction_type="v_prediction", steps_offset=1, set_alpha_to_one=False,
                                      clip_sample=False),
                 "turbo": EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing", steps_offset=1)}[kind]
    unet = randomise(UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1 + linear, norm_num_groups=4, cross_attention_dim=24,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=[2, 4] if linear else 2, use_linear_projection=linear), seed + 10)
    pipe = StableDiffusionPipeline(vae=vae(seed + 20, attention=kind != "turbo"), tokenizer=tokenizer, unet=unet,
                                   text_encoder=clip(vocab, "gelu" if linear else "quick_gelu", 2, seed + 30),
                                   scheduler=scheduler, safety_checker=None, feature_extractor=None,
                                   requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sdxl(out):
    """No text encoders: embeddings come from files. The negative prompt is zeros, as SDXL's pipeline has it."""
    unet = randomise(UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=24,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), use_linear_projection=True, transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 20), 60)
    pipe = StableDiffusionXLPipeline(vae=vae(61), text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None,
                                     unet=unet, scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1),
                                     add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    g = torch.Generator().manual_seed(62)
    np.save(f"{out}/sdxl_embeds.npy", torch.randn(1, 77, 24, generator=g).numpy())
    np.save(f"{out}/sdxl_pooled.npy", torch.randn(1, 20, generator=g).numpy())
    return pipe


def run_sdxl(pipe, case):
    embeds, pooled = (torch.from_numpy(np.load(f"{sys.argv[1]}/{case[k]}")) for k in ("embeds", "pooled"))
    latents = {}
    image = pipe(prompt_embeds=embeds, pooled_prompt_embeds=pooled, negative_prompt_embeds=torch.zeros_like(embeds),
                 negative_pooled_prompt_embeds=torch.zeros_like(pooled), num_inference_steps=case["steps"],
                 guidance_scale=case["cfg"], height=case["height"], width=case["width"], output_type="np",
                 generator=torch.Generator().manual_seed(case["seed"]),
                 callback_on_step_end=lambda p, i, t, kw: latents.update(kw) or kw).images[0]
    return latents["latents"].numpy(), (image * 255).round().astype(np.uint8)


def save_half(part, folder):
    """In f16, from a copy: the way through f16 would round tables that are computed and not stored."""
    copy.deepcopy(part).to(torch.float16).save_pretrained(folder, safe_serialization=True)


def penultimate(pipe, prompt, skip):
    """Hidden states `skip` - 1 layers before the last, then the final norm: skip 1 is the ordinary output."""
    ids = pipe.tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    states = pipe.text_encoder(ids, output_hidden_states=True).hidden_states
    return pipe.text_encoder.final_layer_norm(states[-skip])


def run_sd(pipe, case):
    base = pipe.scheduler
    if case.get("sampler"):
        more = {"use_karras_sigmas": True} if case.get("scheduler") == "karras" else {}
        pipe.scheduler = SAMPLERS[case["sampler"]].from_config(base.config, **more)
    if case.get("lora"):
        pipe.load_lora_weights(sys.argv[1], weight_name=case["lora"])
        pipe.fuse_lora(lora_scale=case["lora_weight"])
        for p in pipe.unet.parameters(): p.copy_(p.half().float())  # a merged tensor keeps its dtype
    latents, text = {}, dict(prompt=case["prompt"], negative_prompt=case.get("negative"))
    if case.get("clip_skip"): text = {"prompt_embeds": penultimate(pipe, case["prompt"], case["clip_skip"]),
                                      "negative_prompt_embeds": penultimate(pipe, "", case["clip_skip"])}
    image = pipe(**text, num_inference_steps=case["steps"],
                 guidance_scale=case["cfg"], height=case["height"], width=case["width"], output_type="np",
                 generator=torch.Generator().manual_seed(case["seed"]),
                 callback_on_step_end=lambda p, i, t, kw: latents.update(kw) or kw).images[0]
    pipe.scheduler = base
    return latents["latents"].numpy(), (image * 255).round().astype(np.uint8)


def icons(folder):
    """BERT, a ladder transformer, an RGBA VAE: the shipped model's layout. diffusers has no pipeline for it."""
    os.makedirs(f"{folder}/tokenizer", exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "apple", "a", "cat", ",", "sharp", "the", "blue", "house",
             "low", "quality", "##s", *"abcdefghijklmnopqrstuvwxyz", *["##" + c for c in "abcdefghijklmnopqrstuvwxyz"]]
    with open(f"{folder}/tokenizer/vocab.txt", "w") as f: f.write("\n".join(words) + "\n")
    with open(f"{folder}/tokenizer/tokenizer_config.json", "w") as f:
        json.dump({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64}, f)
    tokenizer = BertTokenizer.from_pretrained(f"{folder}/tokenizer")
    bert = randomise(BertModel(BertConfig(vocab_size=len(words), hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
                                          intermediate_size=48, max_position_embeddings=64), add_pooling_layer=False), 40)
    dit = randomise(LadderTransformer2DModel(num_attention_heads=2, attention_head_dim=8, num_layers=3, in_channels=4,
                                             out_channels=4, caption_channels=24, cross_attention_dim=16, sample_size=16,
                                             ladder=True), 41)
    ae = vae(42, channels=4, blocks=(8, 16), attention=False, scaling_factor=0.45)
    scheduler = DPMSolverMultistepScheduler(**BETAS, prediction_type="v_prediction", timestep_spacing="trailing")
    for part, name in ((bert, "text_encoder"), (dit, "transformer"), (ae, "vae")): save_half(part, f"{folder}/{name}")
    scheduler.save_pretrained(f"{folder}/scheduler")
    with open(f"{folder}/model_index.json", "w") as f:
        json.dump({"_class_name": "RungIconPipeline", "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
                   "text_encoder": ["transformers", "BertModel"], "tokenizer": ["transformers", "BertTokenizer"],
                   "transformer": ["rung", "LadderTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"],
                   "default_steps": 6, "default_cfg_scale": 3.5}, f, indent=1)
    return tokenizer, bert, dit, ae, scheduler


def run_icons(parts, case):
    tokenizer, bert, dit, ae, scheduler = parts
    if case.get("sampler"): scheduler = SAMPLERS[case["sampler"]].from_config(scheduler.config)
    x = tokenizer([case.get("negative") or "", case["prompt"]], padding=True, truncation=True, return_tensors="pt")
    text = bert(**x).last_hidden_state
    g = torch.Generator().manual_seed(case["seed"])
    scheduler.set_timesteps(case["steps"])
    z = torch.randn(1, 4, case["height"] // 2, case["width"] // 2, generator=g) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        out = dit(scheduler.scale_model_input(torch.cat([z, z]), t), text, timestep=t.expand(2),
                  encoder_attention_mask=x["attention_mask"]).sample[:, :4]
        uncond, cond = out.chunk(2)
        noise = {"generator": g} if case.get("sampler") == "euler_a" else {}
        z = scheduler.step(uncond + case["cfg"] * (cond - uncond), t, z, **noise).prev_sample
    y = ae.decode(z / ae.config.scaling_factor).sample[0].permute(1, 2, 0).clamp(-1, 1) / 2 + 0.5
    y = torch.cat([(y[..., :3] / y[..., 3:].clamp(min=1e-6)).clamp(0, 1) * (y[..., 3:] > 0), y[..., 3:]], -1)
    return z.numpy(), (y * 255).round().numpy().astype(np.uint8)


def save_lora(unet, path):
    """A LoRA in kohya's spelling for a few layers of each kind. One rank for all: diffusers 0.42 scales mixed ranks wrongly."""
    g, tensors, rank, alpha = torch.Generator().manual_seed(50), {}, 2, 1.5
    for name, layer in unet.named_modules():
        if name.endswith(("attn1.to_q", "attn2.to_v", "to_out.0", "ff.net.2", "proj_in")):
            key = "lora_unet_" + name.replace(".", "_")
            down, up = layer.weight[:rank], layer.weight[:, :rank]  # for the shapes: a 1x1 convolution has 4 dimensions
            tensors[key + ".lora_down.weight"] = torch.randn(down.shape, generator=g) * 0.3
            tensors[key + ".lora_up.weight"] = torch.randn(up.shape, generator=g) * 0.3
            tensors[key + ".alpha"] = torch.tensor(alpha)
    save_file(tensors, path)


def cases():
    base = dict(width=32, height=32, seed=7, steps=6, cfg=5.0)
    yield "sd1", dict(base, prompt=WORDS[0])
    yield "sd1", dict(base, prompt=WORDS[2], negative=WORDS[3], width=48, height=24, seed=11)
    yield "sd1", dict(base, prompt="", cfg=1.0, seed=12345678901)
    yield "sd1", dict(base, prompt="ÉTÉ 猫 🍎 apple's", clip_skip=2)
    for name in SAMPLERS: yield "sd1", dict(base, prompt=WORDS[1], sampler=name, steps=5)
    for name in ("euler", "dpm++2m"): yield "sd1", dict(base, prompt=WORDS[1], sampler=name, scheduler="karras")
    yield "sd1", dict(base, prompt="a very long prompt, " * 60, literal=True)
    yield "sd2", dict(base, prompt=WORDS[0], negative=WORDS[3])
    yield "sd2", dict(base, prompt=WORDS[2], sampler="euler_a", width=40, height=24)
    yield "sd1", dict(base, prompt=WORDS[0], lora="lora.safetensors", lora_weight=0.7)
    yield "turbo", dict(base, prompt=WORDS[1], steps=1, cfg=1.0)
    yield "icons", dict(base, prompt=WORDS[0], cfg=3.5)
    yield "icons", dict(base, prompt="A blue cat, sharp houses zebra", negative="low quality", cfg=4.0, width=44, height=20)
    yield "icons", dict(base, prompt=WORDS[1], cfg=2.0, sampler="euler_a")
    yield "sdxl", dict(base, embeds="sdxl_embeds.npy", pooled="sdxl_pooled.npy", width=48)


@torch.no_grad()
def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    pipes = {kind: stable_diffusion(kind) for kind in ("sd1", "sd2", "turbo")}
    for kind, pipe in pipes.items():
        save_half(pipe, f"{out}/{kind}")
        # as a user's would be: a scheduler made in memory forgets its defaults in from_config, a loaded one does not
        pipe.scheduler = type(pipe.scheduler).from_pretrained(f"{out}/{kind}/scheduler")
    pipes["sdxl"] = sdxl(out)
    save_half(pipes["sdxl"], f"{out}/sdxl")
    save_lora(pipes["sd1"].unet, f"{out}/lora.safetensors")
    *icon_parts, scheduler = icons(f"{out}/icons")
    icon_parts.append(type(scheduler).from_pretrained(f"{out}/icons/scheduler"))
    listed = []
    for i, (model, case) in enumerate(cases()):
        run, what = {"icons": (run_icons, icon_parts), "sdxl": (run_sdxl, pipes["sdxl"])}.get(model, (run_sd, pipes.get(model)))
        latents, pixels = run(what, case)
        np.save(f"{out}/latents_{i}.npy", latents.astype(np.float32))
        np.save(f"{out}/pixels_{i}.npy", pixels.astype(np.float32))
        listed.append(dict(case, model=model))
        print(i, model, {k: v for k, v in case.items() if k != "prompt"}, "latent std %.3f" % latents.std(), flush=True)
    versions = dict(torch=torch.__version__, diffusers=diffusers.__version__, transformers=transformers.__version__)
    with open(f"{out}/cases.json", "w") as f: json.dump({"versions": versions, "cases": listed}, f, indent=1)


main()
