#!/usr/bin/env python3
"""Looks at an exported model (FP6 as it ships): VAE error on held-out icons, sample sheets of a fixed prompt list.

    evaluate.py [--model ../../assets/icons] [--steps 20 --cfg 4 --seed 0] [--sheet sheet.png] [--prompts FILE] [--no-vae]
"""
import argparse, json, os
import numpy as np, torch
from diffusers import AutoencoderKL
from transformers import BertConfig, BertModel, BertTokenizerFast
from fp6 import read
from model import LadderTransformer2DModel
from sampling import PROMPTS, decode, sample, sheet
from text import encode
from train_vae import psnr

HERE = os.path.dirname(os.path.abspath(__file__))


def load(folder):
    """(tokenizer, BertModel, LadderTransformer2DModel, AutoencoderKL, scheduler config) with the file's FP6 weights decoded."""
    config = lambda part: json.load(open(f"{folder}/{part}/config.json"))
    encoder = BertModel(BertConfig.from_dict(config("text_encoder"))).eval()
    encoder.load_state_dict(read(f"{folder}/text_encoder/model.safetensors"))
    parts = []
    for part, kind in (("transformer", LadderTransformer2DModel), ("vae", AutoencoderKL)):
        model = kind.from_config(config(part)).eval()
        model.load_state_dict(read(f"{folder}/{part}/diffusion_pytorch_model.safetensors"))
        parts.append(model)
    scheduler = {k: v for k, v in json.load(open(f"{folder}/scheduler/scheduler_config.json")).items() if k[0] != "_"}
    return BertTokenizerFast(vocab=f"{folder}/tokenizer/vocab.txt", do_lower_case=True), encoder, *parts, scheduler


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--model", default=os.path.normpath(f"{HERE}/../../assets/icons"))
    args.add_argument("--cache", default="../rung-train")
    args.add_argument("--steps", type=int, default=20)
    args.add_argument("--cfg", type=float, default=4.)
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--sheet", default="sheet.png")
    args.add_argument("--prompts", help="a file, one prompt a line")
    args.add_argument("--no-vae", action="store_true", help="skip the VAE's figures")
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer, encoder, denoiser, vae, scheduler = load(args.model)
    if not args.no_vae:
        held = np.load(f"{args.cache}/icons.npy")[np.load(f"{args.cache}/split.npz")["concept"]]
        print("VAE, %d icons of held-out concepts: pooled %.2f dB, mean of icons %.2f dB" % (len(held), *psnr(vae, held)))
    prompts = open(args.prompts).read().splitlines() if args.prompts else PROMPTS
    text = *encode(tokenizer, encoder, prompts), encode(tokenizer, encoder, [""])[0]
    sheet(decode(vae, sample(denoiser, text, args.steps, args.cfg, args.seed, scheduler))).save(args.sheet)


if __name__ == "__main__":
    main()
