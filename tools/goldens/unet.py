#!/usr/bin/env python3
"""Golden denoisers: tiny random networks of diffusers, their inputs and outputs.

    python tools/goldens/unet.py tests/golden/unet

One folder a network, in diffusers layout, weights in f16 (the reference runs in f32 from the rounded ones). Beside it
cases.safetensors: for case i "<i>.x" [b, h, w, c], "<i>.t" [b], "<i>.ctx" [b, n, d], "<i>.out" [b, h, w, c], NHWC, f32;
where the case has them "<i>.mask" [b, n], "<i>.image" [height, width], "<i>.pooled" [b, n]. timestep.safetensors: rows
of get_timestep_embedding, named dim.flip.shift.
"""
import copy
import json
import shutil
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import PixArtTransformer2DModel, UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
import model as ladder_model  # noqa: E402
from model import LadderTransformer2DModel  # noqa: E402

CROSS_DOWN, DOWN, CROSS_UP, UP = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"

# name: (config, cases); a case is (batch, h, w, n_ctx, timesteps, masked)
UNETS = {
    # SD1: attention_head_dim an int (a number of heads), 1x1 convolutions around the transformers
    "sd1": (dict(sample_size=16, block_out_channels=[8, 8, 8, 16], layers_per_block=2, norm_num_groups=4,
                 attention_head_dim=2, cross_attention_dim=12),
            [(2, 16, 16, 77, 481, False), (1, 9, 13, 5, 999, False), (3, 8, 24, 154, [1, 500.25, 999], False)]),
    # SD2 and SD-Turbo: a list of heads, linear layers around the transformers
    "sd2": (dict(sample_size=16, block_out_channels=[8, 16, 16, 16], layers_per_block=1, norm_num_groups=4,
                 attention_head_dim=[1, 2, 4, 4], cross_attention_dim=12, use_linear_projection=True,
                 upcast_attention=True),
            [(2, 16, 8, 77, 999, False), (1, 11, 7, 5, 0, True), (2, 2, 1, 1, 20, False)]),
    "one_level": (dict(block_out_channels=[8], layers_per_block=1, norm_num_groups=2, attention_head_dim=2,
                       cross_attention_dim=6, down_block_types=[CROSS_DOWN], up_block_types=[UP], mid_block_type=None),
                  [(2, 5, 3, 4, [7, 3], False)]),
    # every list, and every scalar that is usually left alone
    "lists": (dict(in_channels=5, out_channels=3, block_out_channels=[9, 6, 12], layers_per_block=[1, 2, 1],
                   transformer_layers_per_block=[2, 1, 2], attention_head_dim=[3, 2, 4], norm_num_groups=3,
                   norm_eps=1e-3, only_cross_attention=[True, False, True], cross_attention_dim=[10, 10, 10],
                   down_block_types=[CROSS_DOWN, DOWN, CROSS_DOWN], up_block_types=[UP, CROSS_UP, CROSS_UP],
                   mid_block_scale_factor=1.5, downsample_padding=0, freq_shift=1, flip_sin_to_cos=False,
                   center_input_sample=True, conv_in_kernel=1, conv_out_kernel=5, time_embedding_dim=24,
                   sample_size=[8, 12]),
              [(2, 8, 12, 6, 301, True), (1, 7, 9, 3, 999, False)]),
    "scale_shift": (dict(block_out_channels=[8, 8], layers_per_block=1, norm_num_groups=4, attention_head_dim=2,
                         cross_attention_dim=8, encoder_hid_dim=10, encoder_hid_dim_type="text_proj",
                         down_block_types=[DOWN, CROSS_DOWN], up_block_types=["UNetResUpBlock2D", UP],
                         mid_block_type="UNetMidBlock2D", mid_block_scale_factor=2.0, act_fn="swish",
                         resnet_time_scale_shift="scale_shift", time_embedding_act_fn="gelu",
                         timestep_post_act="silu", downsample_padding=2),
                    [(2, 9, 7, 3, 17, False), (2, 7, 5, 3, [17, 800], False)]),
    # SDXL: pooled text and the picture's sizes join the time embedding
    "sdxl": (dict(block_out_channels=[8, 16], layers_per_block=1, norm_num_groups=4, attention_head_dim=[2, 4],
                  cross_attention_dim=12, transformer_layers_per_block=[1, 2], use_linear_projection=True,
                  down_block_types=[DOWN, CROSS_DOWN], up_block_types=[CROSS_UP, UP],
                  addition_embed_type="text_time", addition_time_embed_dim=8,
                  projection_class_embeddings_input_dim=6 * 8 + 10, time_embedding_act_fn="silu"),
             [(2, 6, 4, 7, 901, False), (3, 5, 5, 7, [901, 20, 3], False)]),
    "no_depth": (dict(block_out_channels=[8, 8], layers_per_block=1, norm_num_groups=2, attention_head_dim=8,
                      cross_attention_dim=8, transformer_layers_per_block=[0, 1], down_block_types=[CROSS_DOWN] * 2,
                      up_block_types=[CROSS_UP, CROSS_UP]), [(1, 4, 4, 2, 500, False)]),
}
TRANSFORMERS = {
    # PixArt-alpha: resolution and aspect ratio (sample_size 128), captions projected, learned variance
    "pixart": (PixArtTransformer2DModel,
               dict(num_attention_heads=2, attention_head_dim=12, num_layers=2, cross_attention_dim=24,
                    caption_channels=20, sample_size=128),
               [(2, 8, 8, 7, 481, True), (3, 6, 10, 5, [0, 333.5, 999], True)]),
    # PixArt-sigma: neither; text of another width read as it is; no variance; the affine and bias switches turned
    "pixart_plain": (PixArtTransformer2DModel,
                     dict(num_attention_heads=2, attention_head_dim=8, num_layers=2, cross_attention_dim=10,
                          out_channels=None, sample_size=9, attention_bias=False, norm_elementwise_affine=True,
                          norm_eps=1e-4, interpolation_scale=1.5, activation_fn="geglu",
                          use_additional_conditions=False),
                     [(2, 8, 8, 3, 20, False), (1, 2, 14, 77, 999, True)]),
    "pixart_patch": (PixArtTransformer2DModel,
                     dict(num_attention_heads=1, attention_head_dim=12, num_layers=1, cross_attention_dim=12,
                          in_channels=3, out_channels=5, caption_channels=6, sample_size=6, patch_size=3,
                          activation_fn="linear-silu", use_additional_conditions=True),
                     [(2, 6, 6, 3, 20, False), (2, 3, 9, 3, [20, 900], False)]),
    "ladder": (LadderTransformer2DModel,
               dict(num_attention_heads=2, attention_head_dim=8, num_layers=3, cross_attention_dim=16, in_channels=4,
                    out_channels=4, caption_channels=12, sample_size=8),
               [(2, 8, 8, 6, 700, True), (2, 4, 6, 9, [999, 1], True)]),
    "ladder_off": (LadderTransformer2DModel,
                   dict(num_attention_heads=2, attention_head_dim=8, num_layers=2, cross_attention_dim=16,
                        in_channels=4, out_channels=4, caption_channels=12, sample_size=8, ladder=False),
                   [(1, 8, 8, 6, 700, True)]),
}

# Which stream the modules of a layer read, written out by hand; x_{i-1} and x_{i-2} are kept throughout.
LADDER_SMALL = dict(num_attention_heads=4, attention_head_dim=8, cross_attention_dim=32, in_channels=4, out_channels=4,
                    caption_channels=12, sample_size=8)


def hybrid_chain(layers):
    def chain(x, modules, _):
        newest = older = x
        for i, h in enumerate(modules):
            read = older if i // 3 in layers else newest
            newest, older = newest + h(read), newest
        return newest
    return chain


def parallel_chain(x, modules, _):
    modules = list(modules)
    for i in range(0, len(modules), 3):
        x = x + sum(h(x) for h in modules[i:i + 3])
    return x


# name: (layers, what config.json says, the chain)
LADDERS = {
    "ladder_hybrid": (5, {"ladder_layers": [1, 3]}, hybrid_chain({1, 3})),
    "ladder_last": (3, {"ladder_layers": 2}, hybrid_chain({1, 2})),
    "ladder_none": (2, {"ladder_layers": []}, hybrid_chain(set())),
    "parallel": (2, {"ladder": False, "parallel": True}, parallel_chain),
}


def write_ladders(root):
    for name, (layers, keys, chain) in LADDERS.items():
        torch.manual_seed(0)
        ladder_model.residual_chain = chain
        net = LadderTransformer2DModel(num_layers=layers, **LADDER_SMALL)
        write(root / name, net, "transformer", "rung", [(2, 8, 8, 6, 700, True), (2, 4, 6, 9, [999, 1], True)], 12)
        file = root / name / "transformer" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **keys}, indent=2) + "\n")


def randomise(model):
    """Norms and biases away from 1 and 0; all weights as f16 holds them."""
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            p.data.normal_(0, .2)
        elif p.ndim == 1:
            p.data.normal_(1, .3)
        p.data = p.data.half().float()
    return model.eval()


def nhwc(x):
    return x.permute(0, 2, 3, 1).contiguous()


def run_case(model, case, text_width):
    batch, h, w, n, t, masked = case
    unet = isinstance(model, UNet2DConditionModel)
    x, ctx = torch.randn(batch, model.config.in_channels, h, w), torch.randn(batch, n, text_width)
    t = torch.tensor(t if isinstance(t, list) else [t] * batch, dtype=torch.float32)
    out = {"x": nhwc(x), "t": t, "ctx": ctx}
    kwargs = {}
    if masked:
        mask = torch.tensor([[1.] * (n - i % n - 1) + [0.] * (i % n + 1) if n > 1 else [1.] for i in range(batch)])
        mask[:, 0] = 1
        out["mask"] = kwargs["encoder_attention_mask"] = mask
    if not unet and model.use_additional_conditions:
        image = torch.tensor([h * 8., w * 8.])
        out["image"] = image
        kwargs["added_cond_kwargs"] = {"resolution": image.repeat(batch, 1),
                                       "aspect_ratio": torch.tensor([[float(image[0] / image[1])]] * batch)}
    if unet and model.config.addition_embed_type:
        added = model.config.projection_class_embeddings_input_dim - 6 * model.config.addition_time_embed_dim
        out["pooled"], out["image"] = torch.randn(batch, added), torch.tensor([h * 8., w * 8.])
        kwargs["added_cond_kwargs"] = {"text_embeds": out["pooled"], "time_ids": torch.tensor(
            [[h * 8., w * 8., 0, 0, h * 8., w * 8.]] * batch)}
    with torch.no_grad():
        y = model(x, encoder_hidden_states=ctx, timestep=t, **kwargs).sample
    if not unet and model.config.out_channels == 2 * model.config.in_channels:
        y = y.chunk(2, dim=1)[0]
    assert y.shape[2:] == x.shape[2:] and y.isfinite().all()
    out["out"] = nhwc(y)
    return out


def write(folder, model, part, library, cases, text_width):
    shutil.rmtree(folder, ignore_errors=True)
    randomise(model)
    copy.deepcopy(model).half().save_pretrained(folder / part)  # a copy: the position buffer must stay f32
    (folder / "model_index.json").write_text(json.dumps(
        {"_class_name": "DiffusionPipeline", part: [library, type(model).__name__]}, indent=1) + "\n")
    tensors = {f"{i}.{k}": v.float().contiguous() for i, c in enumerate(cases)
               for k, v in run_case(model, c, text_width).items()}
    save_file(tensors, folder / "cases.safetensors")
    print(folder.name, sum(p.numel() for p in model.parameters()), "parameters,", len(cases), "cases")


def main(root):
    print("torch", torch.__version__, "diffusers", diffusers.__version__)
    torch.use_deterministic_algorithms(True)
    root.mkdir(parents=True, exist_ok=True)
    for name, (config, cases) in UNETS.items():
        torch.manual_seed(0)  # for each network: adding one leaves the others as they are
        model = UNet2DConditionModel(**config)
        cross = config["cross_attention_dim"]
        width = config.get("encoder_hid_dim") or (cross[0] if isinstance(cross, list) else cross)
        write(root / name, model, "unet", "diffusers", cases, width)
    for name, (cls, config, cases) in TRANSFORMERS.items():
        torch.manual_seed(0)
        width = config.get("caption_channels") or config["cross_attention_dim"]
        write(root / name, cls(**config), "transformer", "rung" if "ladder" in name else "diffusers", cases, width)
    write_ladders(root)
    t = torch.tensor([0, 1, 20.5, 481, 999])
    rows = {f"{dim}.{int(flip)}.{shift}": get_timestep_embedding(t, dim, flip, shift)
            for dim in (2, 5, 32, 320) for flip in (False, True) for shift in (0, 1) if dim // 2 != shift}
    save_file({"t": t, **{k: v.contiguous() for k, v in rows.items()}}, root / "timestep.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
