#!/usr/bin/env python3
"""What rung convert's types and sparsities cost: bytes, and the error of latents and pixels against f32 weights.

    quality.py --rung ../build/rung --model F32_MODEL [--prompts FILE] [--work DIR]     a model with a text encoder
    quality.py --rung ../build/rung --random WIDTH [--work DIR]                         random weights in SD1.5's geometry

Every setting is converted from the same f32 model, then draws the same prompts and seeds (20 steps, the model's own sampler). A row:
bytes of weights; 2-norm of the latents' error, relative, median over the pictures; root mean square of the
premultiplied pixels' error, of 255. --random: U-Net with WIDTH, 2 WIDTH, 4 WIDTH, 4 WIDTH channels, VAE with a quarter of that, torch's initialisation, seed 0.
"""
import argparse, glob, json, os, subprocess
import numpy as np
from PIL import Image

SETTINGS = [("f32", 0, False), ("f16", 0, False), ("bf16", 0, False), ("fp6", 0, False), ("e2m3", 0, False), ("fp5", 0, False)] + [
    ("fp6", s, wanda) for s in (.3, .5, .7) for wanda in (False, True)] + [("e2m3", .5, True)]
PROMPTS = ["a red apple", "a blue sailing boat, flat", "a smiling face", "a house with a garden, 3d", "a cat", "a bicycle, flat",
           "a cup of coffee", "a pine tree", "a rocket", "a pair of scissors, noto style", "an umbrella", "a yellow star"]


def random_model(folder, width):
    """An SD1.5-shaped model without text encoder; embeddings come from files."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    torch.manual_seed(0)
    channels = (width, 2 * width, 4 * width, 4 * width)
    UNet2DConditionModel(block_out_channels=channels, cross_attention_dim=768, attention_head_dim=8, sample_size=32
                         ).save_pretrained(f"{folder}/unet")
    vae = tuple(max(32, c // 4) for c in channels)
    AutoencoderKL(block_out_channels=vae, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                  layers_per_block=2, latent_channels=4).save_pretrained(f"{folder}/vae")
    PNDMScheduler(beta_start=.00085, beta_end=.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
                  ).save_pretrained(f"{folder}/scheduler")
    json.dump({"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "PNDMScheduler"],
               "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]},
              open(f"{folder}/model_index.json", "w"))
    for i in range(4):
        np.save(f"{folder}/embeds{i}.npy", torch.randn(1, 77, 768).numpy())
    np.save(f"{folder}/none.npy", torch.randn(1, 77, 768).numpy())


def pictures(args, model, out):
    """[(latents, pixels), ...] of the model at `model`."""
    if args.random:
        asked = [["--embeds", f"{args.model}/embeds{i}.npy", "--neg-embeds", f"{args.model}/none.npy", "-W", "256", "-H", "256"]
                 for i in range(4)]
    else:
        asked = [[prompt] for prompt in PROMPTS]
    result = []
    for i, words in enumerate(asked):
        subprocess.run([args.rung, "-m", model, "-q", "--steps", "20", "-s", str(i), "-o", f"{out}.png", "--save-latents", f"{out}.npy",
                        *words], check=True, stdout=subprocess.DEVNULL)
        pixels = np.asarray(Image.open(f"{out}.png").convert("RGBA")).astype(np.float64)
        pixels[..., :3] *= pixels[..., 3:] / 255        # the colour of what cannot be seen does not count
        result.append((np.load(f"{out}.npy"), pixels))
    return result


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--rung", default="build/rung")
    args.add_argument("--model")
    args.add_argument("--random", type=int)
    args.add_argument("--work", default="quality")
    args = args.parse_args()
    os.makedirs(args.work, exist_ok=True)
    if args.random:
        args.model = f"{args.work}/random"
        random_model(args.model, args.random)
    prompts = f"{args.work}/prompts.txt"
    with open(prompts, "w") as f:
        f.write("\n".join(PROMPTS[:8]) + "\n")
    reference = None
    print("| weights | MB | of f16 | latents | pixels |\n|---|---|---|---|---|")
    for kind, sparsity, wanda in SETTINGS:
        if wanda and args.random:
            continue                                    # calibration draws from prompts
        name = f"{kind}-{sparsity:g}{'-wanda' if wanda else ''}"
        out = f"{args.work}/{name}"
        command = [args.rung, "convert", args.model, out, "--type", kind, "--json"]
        command += ["--sparsity", str(sparsity)] if sparsity else []
        command += ["--calibrate", prompts, "--steps", "10", "-s", "1000"] if wanda else []
        if not os.path.exists(out):
            subprocess.run(command, check=True, stdout=open(f"{out}.json", "w"))
        size = sum(os.path.getsize(p) for p in glob.glob(f"{out}/*/*.safetensors"))
        half = sum(t["weights"] for t in json.load(open(f"{out}.json"))["tensors"]) * 2
        drawn = pictures(args, out, f"{args.work}/picture")
        reference = reference or drawn
        latents = [np.linalg.norm(a - b) / np.linalg.norm(b) for (a, _), (b, _) in zip(drawn, reference)]
        pixels = [np.sqrt(np.mean((a - b) ** 2)) for (_, a), (_, b) in zip(drawn, reference)]
        label = kind + (f", {sparsity:.0%} zeros by {'Wanda' if wanda else 'magnitude'}" if sparsity else "")
        print(f"| {label} | {size / 1e6:.1f} | {size / half:.3f} | {np.median(latents):.4f} | {np.median(pixels):.2f} |", flush=True)


if __name__ == "__main__":
    main()
