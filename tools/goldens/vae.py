#!/usr/bin/env python3
"""Golden autoencoders: tiny random networks of diffusers, latents and what they decode to; PNG files of every kind.

    python tools/goldens/vae.py tests/golden/vae tests/fuzz/corpus/fuzz_png

One folder a network, in diffusers layout, weights in f16 (the reference runs in f32 from the rounded ones). Beside it
latents.npy f32 [h, w, c], as a sampler leaves them, and image.npy f32 [h * factor, w * factor, channels], about
[-1, 1]. pixels.npy f32 [16, 16, 3] and bytes.npy: what diffusers' VaeImageProcessor makes of them. spots.npy f32
[4, 32, 40]: an alpha channel, then what is left of it without isolated spots of at most 1, 12 and 64 pixels (scipy).
"""
import json
import shutil
import struct
import sys
import zlib
from pathlib import Path

import diffusers
import numpy as np
import PIL
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file
from scipy import ndimage

UP, DOWN = "UpDecoderBlock2D", "DownEncoderBlock2D"

# name: (channels, config, latent h, latent w)
KL = {
    # as SD1's: four levels, attention in the middle; the encoder's weights are there
    "kl_sd": ((8, 16, 16, 24), dict(layers_per_block=2, norm_num_groups=8), 5, 7),
    # as the icons': RGBA, no attention; as SD3's and Flux's: a shift, no post_quant_conv
    "kl_rgba": ((6, 10, 12, 16), dict(out_channels=4, latent_channels=8, norm_num_groups=2, mid_block_add_attention=False,
                                      use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159), 5, 7),
    "kl_one_level": ((9,), dict(latent_channels=16, norm_num_groups=3, layers_per_block=1), 3, 1),
    # widths that fall and repeat, one resnet a block, scaling by lists, the attention's old names
    "kl_lists": ((10, 5, 5), dict(norm_num_groups=5, layers_per_block=0, act_fn="swish", scaling_factor=0.5,
                                  latents_mean=[0.1, -0.2, 0.3, 0.05], latents_std=[0.9, 1.2, 0.7, 1.1]), 21, 6),
}
TINY = {
    "tiny_sd": (dict(decoder_block_out_channels=(8,) * 4, encoder_block_out_channels=(8,) * 4), 5, 7),
    "tiny_odd": (dict(decoder_block_out_channels=(6,) * 3, num_decoder_blocks=(1, 0, 2), out_channels=4,
                      encoder_block_out_channels=(6,), num_encoder_blocks=(1,), latent_channels=16, act_fn="silu",
                      upsampling_scaling_factor=3, scaling_factor=0.7, shift_factor=0.2), 7, 3),
}
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def randomise(net, rng):
    for name, p in net.named_parameters():
        if "norm" in name:
            p.data = torch.randn(p.shape, generator=rng) * 0.3 + (1 if name.endswith("weight") else 0)
        elif "to_q" in name or "to_k" in name:
            p.data *= 4  # else the softmax is all but flat
    for p in net.parameters():
        p.data = p.data.half().float()
    return net.eval()


def unscale(net, z):
    c = net.config
    if getattr(c, "latents_mean", None) is not None:
        mean, std = (torch.tensor(c[k]).view(1, -1, 1, 1) for k in ("latents_mean", "latents_std"))
        return z * std / c.scaling_factor + mean
    return z / c.scaling_factor + (c.shift_factor or 0)


@torch.no_grad()
def write_case(out, name, net, h, w, rng, keep_encoder, old_names=False):
    folder = out / name
    (folder / "vae").mkdir(parents=True)
    cls = type(net).__name__
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", cls]}))
    net.save_config(folder / "vae")
    state = {k: v.half().contiguous() for k, v in net.state_dict().items()
             if keep_encoder or not k.startswith(("encoder.", "quant_conv."))}
    if old_names:
        for new, old in OLD_NAMES.items():
            state = {k.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): v for k, v in state.items()}
    save_file(state, folder / "vae" / "diffusion_pytorch_model.safetensors")
    z = torch.randn(1, net.config.latent_channels, h, w, generator=rng) * 1.5
    image = net.decode(unscale(net, z)).sample
    np.save(folder / "latents.npy", z[0].permute(1, 2, 0).contiguous().numpy())
    np.save(folder / "image.npy", image[0].permute(1, 2, 0).contiguous().numpy())
    print(name, list(image.shape), f"std {image.std():.3f}")


def write_bytes(out, rng):
    x = torch.randn(1, 3, 16, 16, generator=rng)
    x.view(-1)[:600] = (torch.arange(600) - 44) / 255 - 1  # exact halves among them
    done = VaeImageProcessor().postprocess(x, output_type="np")[0]
    np.save(out / "pixels.npy", x[0].permute(1, 2, 0).contiguous().numpy())
    np.save(out / "bytes.npy", (done * 255).round().astype("uint8").astype("float32"))


def without_spots(alpha, largest, corners=np.ones((3, 3))):
    labels, n = ndimage.label(alpha > 12, corners)
    small = np.isin(labels, 1 + np.flatnonzero(np.bincount(labels.ravel(), minlength=n + 1)[1:] <= largest))
    around = ndimage.binary_dilation(small, corners) & (alpha <= 12)
    return np.where(small | around, 0, alpha)


def write_spots(out):
    rng = np.random.default_rng(7)
    field = ndimage.gaussian_filter(rng.standard_normal((32, 40)), 1.3)
    alpha = (420 * (field - .1)).clip(0, 255).round()
    alpha[4:22:9, 6:36:7] = (13, 12, 255, 1, 13)[:len(range(6, 36, 7))]
    np.save(out / "spots.npy", np.stack([alpha] + [without_spots(alpha, n) for n in (1, 12, 64)]).astype("float32"))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def adam7(a):
    """An interlaced RGB PNG of uint8 [h, w, 3]; Pillow writes none."""
    raw = b""
    for y0, x0, dy, dx in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)):
        part = a[y0::dy, x0::dx]
        if part.size:
            raw += b"".join(b"\0" + row.tobytes() for row in part)
    head = struct.pack(">IIBBBBB", a.shape[1], a.shape[0], 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def write_pngs(out):
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    rgb = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    rgba = rng.integers(0, 256, (9, 7, 4), dtype=np.uint8)
    for name, text in (("latin1", "caf\u00e9\nSteps: 20"), ("utf8", "\u732b, \u00e9\nSteps: 20")):
        info = PngInfo()
        info.add_text("Software", "x")
        try:
            info.add_text("parameters", text.encode("latin-1"))
        except UnicodeError:
            info.add_itxt("parameters", text)
        Image.fromarray(rgb).save(out / f"text_{name}.png", pnginfo=info)
    packed = PngInfo()
    packed.add_text("parameters", "packed " * 30, zip=True)
    Image.fromarray(rgba).save(out / "rgba_ztxt.png", pnginfo=packed)
    Image.fromarray(rgb).quantize(5).save(out / "palette.png", transparency=1)
    Image.fromarray(rgb[..., 0]).save(out / "grey.png")
    Image.fromarray(rgb[..., 0] > 99).save(out / "bit.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(out / "grey16.png")
    (out / "interlaced.png").write_bytes(adam7(rgb))
    whole = (out / "rgba_ztxt.png").read_bytes()
    (out / "cut.png").write_bytes(whole[:-40])
    (out / "huge.png").write_bytes(whole[:16] + struct.pack(">I", 1 << 30) + whole[20:])
    (out / "no_png").write_bytes(b"GIF89a nothing")


def main():
    out, corpus = Path(sys.argv[1]), Path(sys.argv[2])
    print(f"diffusers {diffusers.__version__} torch {torch.__version__} pillow {PIL.__version__}")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rng = torch.Generator().manual_seed(11)
    for seed, (name, (ch, config, h, w)) in enumerate(KL.items()):
        torch.manual_seed(seed)
        net = AutoencoderKL(block_out_channels=ch, up_block_types=(UP,) * len(ch), down_block_types=(DOWN,) * len(ch), **config)
        write_case(out, name, randomise(net, rng), h, w, rng, name == "kl_sd", name == "kl_lists")
    for seed, (name, (config, h, w)) in enumerate(TINY.items()):
        torch.manual_seed(100 + seed)
        write_case(out, name, randomise(AutoencoderTiny(**config), rng), h, w, rng, name == "tiny_sd")
    write_bytes(out, rng)
    write_spots(out)
    write_pngs(corpus)


if __name__ == "__main__":
    main()
