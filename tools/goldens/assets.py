#!/usr/bin/env python3
"""Goldens of assets/: number formats, npy files, and single files in ldm layout with what diffusers makes of them.

    python3 tools/goldens/assets.py tests/golden/assets tests/fuzz/corpus

numbers.safetensors   every f8 code and some f32 numbers with torch's conversions to 16 bits
*.npy                 numpy's own files: f2, f4, f8, Fortran order, no dimension, an empty one
sd1.safetensors       a tiny random Stable Diffusion 1 in ldm layout; sd1.json: diffusers' names -> shape and CRC-32 of
sd2.safetensors       the bytes, and the configs' values. The ldm names are written out here after the original code's
                      constructors (openaimodel.UNetModel, ddpm, open_clip), diffusers converts them, and each converted
                      part loads into diffusers' / transformers' own class with nothing missing and nothing left.
fuzz_safetensors/, fuzz_json/, fuzz_npy/ in the second folder: seeds of the fuzz targets, right files and wrong ones.
"""
import json, os, struct, sys, zlib
import numpy as np, torch, diffusers, transformers, safetensors
import safetensors.torch
from safetensors.torch import save_file
from diffusers import UNet2DConditionModel, AutoencoderKL
from diffusers.loaders import single_file_utils as sfu
from transformers import CLIPTextConfig, CLIPTextModel

torch.manual_seed(11)


class Names(dict):
    """ldm tensors by name; each call adds the tensors of one module."""
    def conv(self, name, out, inp, k=3):
        self[name + ".weight"] = torch.randn(out, inp, k, k) * .1
        self[name + ".bias"] = torch.randn(out) * .1

    def linear(self, name, out, inp, bias=True):
        self[name + ".weight"] = torch.randn(out, inp) * .1
        if bias:
            self[name + ".bias"] = torch.randn(out) * .1

    def norm(self, name, n):
        self[name + ".weight"] = 1 + torch.randn(n) * .1
        self[name + ".bias"] = torch.randn(n) * .1


def unet(t, p, ch, depth, layers, context, linear, latent=4):
    """ldm's UNetModel: ch[level], depth[level] transformer blocks (0: no attention)."""
    emb = 4 * ch[0]
    def res(name, out, inp):
        t.norm(name + ".in_layers.0", inp)
        t.conv(name + ".in_layers.2", out, inp)
        t.linear(name + ".emb_layers.1", out, emb)
        t.norm(name + ".out_layers.0", out)
        t.conv(name + ".out_layers.3", out, out)
        if inp != out:
            t.conv(name + ".skip_connection", out, inp, 1)

    def attention(name, n, blocks):
        t.norm(name + ".norm", n)
        for proj in "proj_in", "proj_out":
            t.linear(f"{name}.{proj}", n, n) if linear else t.conv(f"{name}.{proj}", n, n, 1)
        for i in range(blocks):
            b = f"{name}.transformer_blocks.{i}"
            for attn, width in ("attn1", n), ("attn2", context):
                t.linear(f"{b}.{attn}.to_q", n, n, False)
                t.linear(f"{b}.{attn}.to_k", n, width, False)
                t.linear(f"{b}.{attn}.to_v", n, width, False)
                t.linear(f"{b}.{attn}.to_out.0", n, n)
            t.linear(f"{b}.ff.net.0.proj", 8 * n, n)
            t.linear(f"{b}.ff.net.2", n, 4 * n)
            for k in 1, 2, 3:
                t.norm(f"{b}.norm{k}", n)

    t.linear(p + "time_embed.0", emb, ch[0])
    t.linear(p + "time_embed.2", emb, emb)
    t.conv(p + "input_blocks.0.0", ch[0], latent)
    skips, now, i = [ch[0]], ch[0], 1
    for level, n in enumerate(ch):
        for _ in range(layers):
            res(f"{p}input_blocks.{i}.0", n, now)
            if depth[level]:
                attention(f"{p}input_blocks.{i}.1", n, depth[level])
            now, i = n, i + 1
            skips.append(n)
        if level + 1 < len(ch):
            t.conv(f"{p}input_blocks.{i}.0.op", n, n)
            skips.append(n)
            i += 1
    res(p + "middle_block.0", now, now)
    attention(p + "middle_block.1", now, 1)
    res(p + "middle_block.2", now, now)
    i = 0
    for level in reversed(range(len(ch))):
        for k in range(layers + 1):
            res(f"{p}output_blocks.{i}.0", ch[level], now + skips.pop())
            now = ch[level]
            if depth[level]:
                attention(f"{p}output_blocks.{i}.1", now, depth[level])
            if level and k == layers:
                t.conv(f"{p}output_blocks.{i}.{2 if depth[level] else 1}.conv", now, now)
            i += 1
    t.norm(p + "out.0", now)
    t.conv(p + "out.2", latent, now)


def vae(t, p, ch, layers, latent=4):
    """ldm's Encoder and Decoder, attention in the middle only."""
    def res(name, out, inp):
        t.norm(name + ".norm1", inp)
        t.conv(name + ".conv1", out, inp)
        t.norm(name + ".norm2", out)
        t.conv(name + ".conv2", out, out)
        if inp != out:
            t.conv(name + ".nin_shortcut", out, inp, 1)

    def mid(name, n):
        res(name + ".block_1", n, n)
        t.norm(name + ".attn_1.norm", n)
        for k in "q", "k", "v", "proj_out":
            t.conv(f"{name}.attn_1.{k}", n, n, 1)
        res(name + ".block_2", n, n)

    t.conv(p + "encoder.conv_in", ch[0], 3)
    now = ch[0]
    for level, n in enumerate(ch):
        for k in range(layers):
            res(f"{p}encoder.down.{level}.block.{k}", n, now)
            now = n
        if level + 1 < len(ch):
            t.conv(f"{p}encoder.down.{level}.downsample.conv", n, n)
    mid(p + "encoder.mid", now)
    t.norm(p + "encoder.norm_out", now)
    t.conv(p + "encoder.conv_out", 2 * latent, now)
    t.conv(p + "quant_conv", 2 * latent, 2 * latent, 1)
    t.conv(p + "post_quant_conv", latent, latent, 1)
    t.conv(p + "decoder.conv_in", now, latent)
    mid(p + "decoder.mid", now)
    for level in reversed(range(len(ch))):
        for k in range(layers + 1):
            res(f"{p}decoder.up.{level}.block.{k}", ch[level], now)
            now = ch[level]
        if level:
            t.conv(f"{p}decoder.up.{level}.upsample.conv", now, now)
    t.norm(p + "decoder.norm_out", now)
    t.conv(p + "decoder.conv_out", 3, now)


def clip(t, p, n, inner, layers, vocab, positions):
    t[p + "embeddings.token_embedding.weight"] = torch.randn(vocab, n)
    t[p + "embeddings.position_embedding.weight"] = torch.randn(positions, n)
    for i in range(layers):
        b = f"{p}encoder.layers.{i}"
        for k in "q_proj", "k_proj", "v_proj", "out_proj":
            t.linear(f"{b}.self_attn.{k}", n, n)
        t.norm(b + ".layer_norm1", n)
        t.norm(b + ".layer_norm2", n)
        t.linear(b + ".mlp.fc1", inner, n)
        t.linear(b + ".mlp.fc2", n, inner)
    t.norm(p + "final_layer_norm", n)


def open_clip(t, p, n, inner, layers, vocab, positions):
    t[p + "token_embedding.weight"] = torch.randn(vocab, n)
    t[p + "positional_embedding"] = torch.randn(positions, n)
    t[p + "text_projection"] = torch.randn(n, n)
    t[p + "logit_scale"] = torch.tensor(4.6)
    for i in range(layers):
        b = f"{p}transformer.resblocks.{i}"
        t[b + ".attn.in_proj_weight"] = torch.randn(3 * n, n)
        t[b + ".attn.in_proj_bias"] = torch.randn(3 * n)
        t.linear(b + ".attn.out_proj", n, n)
        t.norm(b + ".ln_1", n)
        t.norm(b + ".ln_2", n)
        t.linear(b + ".mlp.c_fc", inner, n)
        t.linear(b + ".mlp.c_proj", n, inner)
    t.norm(p + "ln_final", n)


def table(tensors):
    return {k: [list(v.shape), zlib.crc32(v.contiguous().numpy().tobytes())] for k, v in sorted(tensors.items())}


def load(model, tensors):
    """The converted names are exactly the model's own."""
    want = {k: list(v.shape) for k, v in model.state_dict().items() if not k.endswith("position_ids")}
    assert want == {k: list(v.shape) for k, v in tensors.items()}, set(want) ^ set(tensors)


def single_file(folder, name, sd2):
    ch, depth, layers, context = ([2, 4, 6], [1, 1, 0], 2, 8) if not sd2 else ([2, 4], [2, 1], 1, 8)
    vch, n, inner, positions, vocab = [2, 4, 4], 8, 12, 77, 30
    t = Names()
    unet(t, "model.diffusion_model.", ch, depth, layers, context, linear=sd2)
    vae(t, "first_stage_model.", vch, 1)
    if sd2:
        open_clip(t, "cond_stage_model.model.", n, inner, 3, vocab, positions)
    else:
        clip(t, "cond_stage_model.transformer.text_model.", n, inner, 2, vocab, positions)
    t["alphas_cumprod"] = torch.rand(10)
    t["model_ema.decay"] = torch.tensor(.5)
    t = {k: v.half().contiguous() for k, v in t.items()}
    if not sd2:    # a buffer that old files carry
        t["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(positions)[None]
    save_file(t, os.path.join(folder, name + ".safetensors"), {"format": "pt"})

    kinds = [("CrossAttn" if d else "") for d in depth]
    config = dict(in_channels=4, out_channels=4, block_out_channels=ch, layers_per_block=layers,
                  down_block_types=[k + "DownBlock2D" for k in kinds],
                  up_block_types=[k + "UpBlock2D" for k in reversed(kinds)], cross_attention_dim=context,
                  use_linear_projection=sd2, transformer_layers_per_block=depth[:-1] + [1])
    parts = {}
    parts["unet"] = sfu.convert_ldm_unet_checkpoint(t, config)
    load(UNet2DConditionModel(**config, norm_num_groups=2, attention_head_dim=1), parts["unet"])
    vconfig = dict(in_channels=3, out_channels=3, latent_channels=4, block_out_channels=vch, layers_per_block=1,
                   down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3)
    parts["vae"] = sfu.convert_ldm_vae_checkpoint(t, vconfig)
    load(AutoencoderKL(**vconfig, norm_num_groups=2), parts["vae"])
    tconfig = dict(vocab_size=vocab, hidden_size=n, intermediate_size=inner, num_hidden_layers=2,
                   num_attention_heads=1, max_position_embeddings=positions, hidden_act="gelu" if sd2 else "quick_gelu")
    model = CLIPTextModel(CLIPTextConfig(**tconfig))
    text = sfu.convert_open_clip_checkpoint(model, t) if sd2 else sfu.convert_ldm_clip_checkpoint(t)
    text = {k.removeprefix("text_model."): v for k, v in text.items() if not k.endswith("position_ids")}
    if sd2:        # the last layer conditions nothing: diffusers' config has one less, and ignores "resblocks.23"
        text.pop("text_projection.weight", None)
        text = {k: v for k, v in text.items() if not k.startswith("encoder.layers.2.")}
    load(model, text)
    parts["text_encoder"] = text
    golden = {"parts": {k: table(v) for k, v in parts.items()},
              "configs": {"unet": config, "vae": vconfig, "text_encoder": tconfig}}
    with open(os.path.join(folder, name + ".json"), "w") as f:
        json.dump(golden, f, indent=0)


def numbers(folder):
    codes = torch.arange(256, dtype=torch.uint8)
    g = torch.Generator().manual_seed(3)
    bits = torch.randint(-2**31, 2**31 - 1, (3000,), generator=g).to(torch.int32)
    x = torch.cat([bits.view(torch.float32),
                   torch.randn(1000, generator=g) * 2. ** torch.randint(-28, 18, (1000,), generator=g),
                   torch.tensor([0., -0., 65504., 65519.9, 65520., -65520., 2.**-24, 2.**-25, 2.**-25 * 1.0001, 2.**-14,
                                 6.0975e-05, float("inf"), -float("inf"), 1e-40])])
    ties = torch.randint(-2**15, 2**15 - 1, (400,), generator=g).to(torch.int32) * 65536 + 0x8000    # between two bf16
    half = torch.randint(0x38800000 >> 13, 0x47000000 >> 13, (400,), generator=g).to(torch.int32) * 8192
    half += 4096    # between two f16
    x = torch.cat([x, ties.view(torch.float32), half.view(torch.float32)])
    x = x[~x.isnan()]
    save_file({"e4m3": codes.view(torch.float8_e4m3fn), "e4m3_f32": codes.view(torch.float8_e4m3fn).float(),
               "e5m2": codes.clone().view(torch.float8_e5m2), "e5m2_f32": codes.view(torch.float8_e5m2).float(),
               "x": x, "x_f16": x.half(), "x_bf16": x.bfloat16()}, os.path.join(folder, "numbers.safetensors"))


def npy(folder):
    a = np.linspace(-3, 3, 24).reshape(2, 3, 4)
    for name, array in {"f2": a.astype("<f2"), "f4": a.astype("<f4"), "f8": a, "scalar": np.float32(2.5),
                        "fortran": np.asfortranarray(a.astype("<f4")), "empty": np.zeros((0, 4), "<f4"),
                        "i4": np.arange(4, dtype="<i4")}.items():
        np.save(os.path.join(folder, name + ".npy"), array)


def container(header, data=b""):
    """A safetensors file from any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def corpus(folder):
    def put(target, name, data):
        os.makedirs(os.path.join(folder, target), exist_ok=True)
        with open(os.path.join(folder, target, name), "wb") as f:
            f.write(data)

    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
             "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for dtype, size in sizes.items():
        header[dtype] = entry(dtype, [2, 2], at, at + 4 * size)
        at += 4 * size
    put("fuzz_safetensors", "dtypes", container(header, bytes(range(at))))
    six = {"x": entry("F6_E3M2", [2, 4], 0, 6), "x.scale": entry("F32", [2], 6, 14), "y": entry("F6_E2M3", [4], 14, 17)}
    put("fuzz_safetensors", "six_bits", container(six, bytes(6) + np.ones(2, "<f4").tobytes() + bytes(3)))
    put("fuzz_safetensors", "six_bits_f16_scale", container({"x": entry("F6_E3M2", [2, 4], 0, 6),
        "x.scale": entry("F16", [2], 6, 10)}, bytes(6) + np.ones(2, "<f2").tobytes()))
    put("fuzz_safetensors", "bad_scale", container(six, bytes(6) + np.array([1, np.nan], "<f4").tobytes() + bytes(3)))
    put("fuzz_safetensors", "wrapped", container({"x": entry("F32", [2**32, 2**32], 0, 0)}))
    put("fuzz_safetensors", "wrapped_empty", container({"x": entry("F32", [0, 2**40, 2**40], 0, 0)}))
    put("fuzz_safetensors", "overlap", container({"x": entry("U8", [4], 0, 4), "y": entry("U8", [4], 2, 6)}, bytes(6)))
    put("fuzz_safetensors", "long_header", struct.pack("<Q", 1 << 40) + b"{}")
    put("fuzz_safetensors", "deep", container(b"[" * 2000))
    put("fuzz_safetensors", "escape", container(
        b'{"\\u001b[2J":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"))
    put("fuzz_safetensors", "short", b"123")
    for name, sd2 in ("ldm_sd1", False), ("ldm_sd2", True):    # the smallest that is understood
        t = Names()
        unet(t, "model.diffusion_model.", [1], [1], 1, 1, sd2, latent=1)
        vae(t, "first_stage_model.", [1], 1, latent=1)
        if sd2:
            open_clip(t, "cond_stage_model.model.", 1, 1, 2, 1, 1)
        else:
            clip(t, "cond_stage_model.transformer.", 1, 1, 1, 1, 1)
        t = {k: v.to(torch.float8_e5m2).contiguous() for k, v in t.items()}
        put("fuzz_safetensors", name, safetensors.torch.save(t))
    for name, text in {
            "config": b'{"a": [1, 2, 3], "b": {"c": null, "d": true, "e": "\\u00e9\\ud83d\\ude00"}, "f": -1e-3}',
                       "python": b'{"a": NaN, "b": [-Infinity, Infinity]}', "twice": b'{"a": 1, "a": 2}',
                       "deep": b"[" * 500, "utf8": b'{"a": "\xff"}', "nul": b'{"a": "\\u0000"}',
                       "bom": b"\xef\xbb\xbf[1]",
                       "open": b'{"a": "\\', "int": b'{"a": 3}', "text": b'{"a": "x"}', "empty": b""}.items():
        put("fuzz_json", name, text)
    for name in "f2", "f4", "f8", "scalar", "fortran", "empty":
        put("fuzz_npy", name, open(os.path.join(sys.argv[1], name + ".npy"), "rb").read())
    good = open(os.path.join(sys.argv[1], "f4.npy"), "rb").read()
    put("fuzz_npy", "cut", good[:70])
    put("fuzz_npy", "huge_shape", good.replace(b"(2, 3, 4)", b"(9e9, 99)"))
    put("fuzz_npy", "version_2", b"\x93NUMPY\x02\x00" + struct.pack("<I", len(good) - 96 - 10) + good[10:])
    put("fuzz_npy", "long_header", b"\x93NUMPY\x01\x00\xff\xff{}")


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    print("torch", torch.__version__, "diffusers", diffusers.__version__, "transformers", transformers.__version__,
          "safetensors", safetensors.__version__, "numpy", np.__version__)
    numbers(folder)
    npy(folder)
    single_file(folder, "sd1", False)
    single_file(folder, "sd2", True)
    corpus(sys.argv[2])


main()
