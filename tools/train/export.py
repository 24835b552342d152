#!/usr/bin/env python3
"""Writes the model that ships: diffusers layout, FP6 weights, into assets/icons.

    export.py [--out ../../assets/icons] [--transformer CACHE/ladder/transformer] [--vae CACHE/vae] [--f32]

Which weights are FP6 is is_fp6()'s rule in fp6.py; other weights with two or more axes are F16, all else F32. --f32 rounds
nothing: to see what FP6 costs.
"""
import argparse, json, os, shutil
import diffusers
from safetensors.torch import load_file
from fp6 import NOTE, is_fp6, write
from sampling import SCHEDULER
from text import minilm_folder

HERE = os.path.dirname(os.path.abspath(__file__))
RULE = {"vae": "all convolutions and linears except conv_in, conv_out, quant_conv, post_quant_conv",
        "transformer": "all linears except pos_embed.proj, proj_out and the scale_shift_tables",
        "text_encoder": "all linears and word_embeddings, not position and token type embeddings"}
INDEX = {"_class_name": "RungIconPipeline", "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
         "text_encoder": ["transformers", "BertModel"], "tokenizer": ["transformers", "BertTokenizer"],
         "transformer": ["rung", "LadderTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}
LICENSES = """# Credits and licences of these weights

- Text encoder: all-MiniLM-L6-v2, sentence-transformers, Apache License 2.0, https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
  (rounded to FP6; from nreimers/MiniLM-L6-H384-uncased, MIT, Microsoft's MiniLM; vocabulary of Google's BERT, Apache License 2.0)
- The transformer and the VAE were trained by tools/train/ on pictures of:
  - Noto Emoji, Copyright Google Inc., Apache License 2.0, https://github.com/googlefonts/noto-emoji
  - Twemoji graphics, Copyright Twitter, Inc and other contributors, CC BY 4.0, https://creativecommons.org/licenses/by/4.0/
    (rasterised, cropped), https://github.com/twitter/twemoji
  - Fluent Emoji, Copyright (c) Microsoft Corporation, MIT License, https://github.com/microsoft/fluentui-emoji
- Captions were made from emojibase-data 17.0.0 and emojilib 4.0.3 (MIT; names from Unicode CLDR, Unicode License v3).

No share-alike, proprietary or trademarked artwork was used. The pictures themselves are not part of this repository.
Whether weights are derived works of the pictures they were trained on is legally unsettled; keeping this notice beside the weights
meets the conditions either way.
"""


def dump(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def write_part(part, source, target, f32):
    """Quantise one safetensors file (not with f32); returns its size."""
    tensors = {k: v for k, v in load_file(source).items() if v.is_floating_point()}        # no position_ids buffer
    if f32:
        write(target, tensors, set(), set(), {"format": "pt"})
        return os.path.getsize(target)
    fp6 = {k for k, v in tensors.items() if is_fp6(part, k, v)}
    half = {k for k, v in tensors.items() if v.ndim > 1 and k not in fp6 and "scale_shift_table" not in k}
    write(target, tensors, fp6, half, {"format": "pt", "rung.fp6": NOTE, "rung.fp6.rule": RULE[part]})
    return os.path.getsize(target)


def clean(config):
    """A config without the path it was loaded from."""
    return {k: v for k, v in config.items() if k != "_name_or_path"}


def export(args):
    out = args.out
    os.makedirs(out, exist_ok=True)
    version = diffusers.__version__
    dump(f"{out}/model_index.json", {"_class_name": INDEX["_class_name"], "_diffusers_version": version, **INDEX,
                                    "default_steps": args.steps, "default_cfg_scale": args.cfg,
                                    "clear_spots": args.clear_spots})
    dump(f"{out}/scheduler/scheduler_config.json",
         {"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": version, **SCHEDULER,
          "clip_sample": False})  # DDIM and DDPM would cut the latents to [-1, 1] without it
    total = 0
    for part, folder in (("transformer", args.transformer), ("vae", args.vae)):
        dump(f"{out}/{part}/config.json", clean(json.load(open(f"{folder}/config.json"))))
        file = "diffusion_pytorch_model.safetensors"
        total += write_part(part, f"{folder}/{file}", f"{out}/{part}/{file}", args.f32)
    bert = minilm_folder()
    dump(f"{out}/text_encoder/config.json", clean(json.load(open(f"{bert}/config.json"))))
    total += write_part("text_encoder", f"{bert}/model.safetensors", f"{out}/text_encoder/model.safetensors", args.f32)
    dump(f"{out}/tokenizer/tokenizer_config.json",
         {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None,
          "model_max_length": 512, "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
          "mask_token": "[MASK]"})
    shutil.copyfile(f"{bert}/vocab.txt", f"{out}/tokenizer/vocab.txt")
    with open(f"{out}/LICENSES.md", "w") as f:
        f.write(LICENSES)
    print(f"{out}: {total / 1e6:.1f} MB of weights")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--out", default=os.path.normpath(f"{HERE}/../../assets/icons"))
    args.add_argument("--transformer", default="../rung-train/ladder/transformer")
    args.add_argument("--vae", default="../rung-train/vae")
    args.add_argument("--steps", type=int, default=20, help="the model's default")
    args.add_argument("--cfg", type=float, default=3, help="the model's default")
    args.add_argument("--clear-spots", type=int, default=12, help="pixels: isolated spots up to this are made transparent; 0: none")
    args.add_argument("--f32", action="store_true")
    export(args.parse_args())


if __name__ == "__main__":
    main()
