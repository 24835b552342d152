#!/usr/bin/env python3
"""Latents as the denoiser draws them, for the decoder: train_vae.py --drawn learns to leave out the specks that it sees in them.

    draw_latents.py [--count 2000] [--transformer assets/icons/transformer]

Captions are those of icons that are not held out, guidance lies between 2 and 7, the prompts of the evaluation are not looked at.
Writes CACHE/drawn.npy, f16 [count, C, 16, 16], unscaled as augment.py's.
"""
import argparse, json, os
import numpy as np, torch
from diffusers import AutoencoderKL
from model import LadderTransformer2DModel
from sampling import sample
from train_denoiser import initial

HERE = os.path.dirname(os.path.abspath(__file__))


def open_denoiser(folder):
    model = LadderTransformer2DModel.from_config(LadderTransformer2DModel.load_config(folder))
    initial(model, folder)
    return model.eval()


def embeddings(tokens, start, texts):
    """What sampling.sample wants of these texts, of the cache's stored embeddings; text 0 is the empty prompt."""
    longest = max(start[t + 1] - start[t] for t in texts)
    cond, mask = torch.zeros(len(texts), longest, tokens.shape[1]), torch.zeros(len(texts), longest)
    for k, t in enumerate(texts):
        cond[k, :start[t + 1] - start[t]] = torch.from_numpy(tokens[start[t]:start[t + 1]].astype(np.float32))
        mask[k, :start[t + 1] - start[t]] = 1
    return cond, mask, torch.from_numpy(tokens[:start[1]].astype(np.float32))[None]


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--cache", default="../rung-train")
    args.add_argument("--transformer", default=os.path.normpath(f"{HERE}/../../assets/icons/transformer"))
    args.add_argument("--vae", help="default: CACHE/vae")
    args.add_argument("--count", type=int, default=2000)
    args.add_argument("--steps", type=int, default=12)
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    factor = AutoencoderKL.load_config(args.vae or f"{args.cache}/vae")["scaling_factor"]
    captions = json.load(open(f"{args.cache}/captions.json"))["icons"]
    tokens, start = np.load(f"{args.cache}/tokens.npy", mmap_mode="r"), np.load(f"{args.cache}/starts.npy")
    seen = np.flatnonzero(~np.load(f"{args.cache}/split.npz")["concept"])
    model, rng, parts = open_denoiser(args.transformer), np.random.default_rng(args.seed), []
    for i in range(0, args.count, 50):
        texts = [rng.choice(captions[k]) for k in rng.choice(seen, min(50, args.count - i), replace=False)]
        parts.append(sample(model, embeddings(tokens, start, texts), args.steps, rng.uniform(2, 7), args.seed + 10000 + i) / factor)
        print(f"{i + len(texts)} of {args.count}", flush=True)
    np.save(f"{args.cache}/drawn.npy", torch.cat(parts).numpy().astype(np.float16))


if __name__ == "__main__":
    main()
