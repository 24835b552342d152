"""A random checkpoint of Stable Diffusion 1.5's geometry (U-Net, VAE, scheduler), to time engines on.

    python bench/peers/make_sd15.py OUT [--seed 0] [--width 320]

OUT gets the diffusers layout in f16, 2.1 GB: what `rung -m OUT --embeds E.npy` and diffusers read. The text encoder is
for stable-diffusion.cpp, which does not start without one; model_index.json does not name it. Weights are normal
with a standard deviation of 1 / sqrt(fan in), so that activations keep their size from layer to layer; nothing that is
drawn with them means anything. --width: the U-Net's first number of channels, for a smaller one.
Needs torch, diffusers, transformers, safetensors; never more than one network's f16 in memory.
"""
import argparse
import json
import math
import pathlib

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

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
TEXT = {  # text_encoder/config.json
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "quick_gelu", "vocab_size": 49408, "max_position_embeddings": 77, "projection_dim": 768,
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


def save(path, network, seed, prefix=""):
    generator = torch.Generator().manual_seed(seed)
    tensors = {prefix + n: draw(n, tuple(t.shape), generator).half()
               for n, t in network.state_dict().items() if t.is_floating_point()}
    save_file(tensors, path, metadata={"format": "pt"})


def write(folder, cls, config, seed):
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        network = cls.from_config(config)
    network.save_config(folder)
    save(folder / "diffusion_pytorch_model.safetensors", network, seed)


def write_text_encoder(folder, seed):
    folder.mkdir(exist_ok=True)
    with torch.device("meta"):
        network = CLIPTextModel(CLIPTextConfig(**TEXT))
    prefix = "" if any(n.startswith("text_model.") for n in network.state_dict()) else "text_model."
    save(folder / "model.safetensors", network, seed, prefix)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=320)
    args = parser.parse_args()
    channels = [args.width * m for m in (1, 2, 4, 4)]
    write(args.out / "unet", UNet2DConditionModel, UNET | {"block_out_channels": channels}, args.seed)
    write(args.out / "vae", AutoencoderKL, VAE, args.seed + 1)
    write_text_encoder(args.out / "text_encoder", args.seed + 2)
    (args.out / "scheduler").mkdir(exist_ok=True)
    (args.out / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=1) + "\n")
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
             "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "DDIMScheduler"]}
    (args.out / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
