"""What Winograd costs in precision: the U-Net's prediction with and without --exact, against PyTorch.

    python bench/peers/error_budget.py /tmp/sd15 [--size 256] [--threads 2] [--f64]

One Euler step to sigma 0 leaves x - sigma * prediction, so the final latents give the prediction back. The reference is
diffusers' network in f32 without Winograd (its own error is some 1e-6), or in f64 for a U-Net that fits (make_sd15.py
--width 64). Prints the relative L2 distances, last that of rung with and without Winograd.
"""
import argparse
import os
import pathlib
import subprocess
import tempfile

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--f64", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    cells = args.size // 8
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 4, cells, cells, generator=generator)
    embeds = torch.randn(1, 77, 768, generator=generator)
    scheduler = EulerDiscreteScheduler.from_pretrained(args.model / "scheduler")
    scheduler.set_timesteps(1)
    x = noise * scheduler.init_noise_sigma
    sigma = scheduler.sigmas[0].item()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        np.save(folder / "noise.npy", noise.numpy())
        np.save(folder / "embeds.npy", embeds.numpy())
        for name, extra in {"winograd": [], "exact": ["--exact"]}.items():
            command = [os.environ.get("RUNG", "build/rung"), "-m", args.model, "--embeds", folder / "embeds.npy",
                       "--noise", folder / "noise.npy", "--sampler", "euler", "--steps", "1", "--cfg-scale", "1", "-W",
                       str(args.size), "-H", str(args.size), "-t", str(args.threads), "-q", "--save-latents",
                       folder / "latents.npy", "-o", folder / "picture.png", *extra]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found[name] = (x - torch.from_numpy(np.load(folder / "latents.npy"))) / sigma
    scaled = scheduler.scale_model_input(x, scheduler.timesteps[0])
    dtype = torch.float64 if args.f64 else torch.float32
    unet = UNet2DConditionModel.from_pretrained(args.model / "unet", torch_dtype=dtype)
    want = unet(scaled.to(dtype), scheduler.timesteps[0], encoder_hidden_states=embeds.to(dtype)).sample
    for name, got in found.items():
        print(f"{name}: {((got - want).norm() / want.norm()).item():.2e}")
    print(f'between: {((found["winograd"] - found["exact"]).norm() / found["exact"].norm()).item():.2e}')


if __name__ == "__main__":
    main()
