"""A random checkpoint of Stable Diffusion 1.5's geometry (U-Net, VAE, scheduler; no text encoder), to time engines on.

    python bench/peers/make_sd15.py OUT [--seed 0]

OUT gets the diffusers layout in f16, 1.9 GB: what `rung -m OUT --embeds E.npy` and diffusers read. Weights are normal
with a standard deviation of 1 / sqrt(fan in), so that activations keep their size from layer to layer; nothing that is
drawn with them means anything. Needs torch, diffusers, safetensors; never more than one network's f16 in memory.
"""
import argparse
import json
import math
import pathlib

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file

UNET = {  # runwayml/stable-diffusion-v1-5, unet/config.json
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768, "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
VAE = {  # vae/config.json
    "sample_size": 512, "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 2,
    "block_out_channels": [128, 256, 512, 512], "scaling_factor": 0.18215,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}
SCHEDULER = {
    "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
    "prediction_type": "epsilon",
}


def draw(name, shape, generator):
    x = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return x / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * x if name.endswith("weight") else 0.1 * x  # norms; biases


def write(folder, cls, config, seed):
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        network = cls.from_config(config)
    network.save_config(folder)
    generator = torch.Generator().manual_seed(seed)
    tensors = {n: draw(n, tuple(t.shape), generator).half() for n, t in network.state_dict().items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.out / "unet", UNet2DConditionModel, UNET, args.seed)
    write(args.out / "vae", AutoencoderKL, VAE, args.seed + 1)
    (args.out / "scheduler").mkdir(exist_ok=True)
    (args.out / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=1) + "\n")
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
             "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "DDIMScheduler"]}
    (args.out / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
