#!/usr/bin/env python3
"""Icons to one uint8 pack: the first step of training.

    prepare.py [--icons ../shared/icons] [--cache ../rung-train]

Writes CACHE/icons.npy, uint8 [N, 128, 128, 4], RGB premultiplied by alpha, area-averaged from 256x256 in premultiplied
space, and CACHE/split.npz with two bool masks over the lines of index.jsonl, both from a fixed seed:
`concept`: 5% of the concepts (all icons of a code), which the VAE never sees; `icon`: 5% of the other icons, one by one.
"""
import argparse, json, os
import numpy as np
from PIL import Image

SEED = 20


def read_index(icons):
    """The icons' metadata, one dict a line; its order is the order of every array made from it."""
    with open(f"{icons}/index.jsonl") as lines:
        return [json.loads(line) for line in lines]


def load_icon(path):
    """uint8 [128, 128, 4], premultiplied."""
    a = np.asarray(Image.open(path).convert("RGBA"), np.float32)
    a = np.concatenate([a[..., :3] * (a[..., 3:] / 255), a[..., 3:]], -1)
    return (a.reshape(128, 2, 128, 2, 4).mean((1, 3)) + .5).clip(0, 255).astype(np.uint8)


def split(index):
    """(concept, icon): bool [N] each. Concepts are held out whole, so that no style of one is seen in training."""
    rng = np.random.default_rng(SEED)
    codes = sorted({m["code"] for m in index})
    held = set(rng.choice(codes, len(codes) // 20, replace=False))
    concept = np.array([m["code"] in held for m in index])
    return concept, ~concept & (rng.random(len(index)) < .05)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--icons", default="../shared/icons")
    args.add_argument("--cache", default="../rung-train")
    args = args.parse_args()
    os.makedirs(args.cache, exist_ok=True)
    index = read_index(args.icons)
    np.save(f"{args.cache}/icons.npy", np.stack([load_icon(f"{args.icons}/{m['file']}") for m in index]))
    concept, icon = split(index)
    np.savez(f"{args.cache}/split.npz", concept=concept, icon=icon)
    print(f"{len(index)} icons; held out: {concept.sum()} by concept, {icon.sum()} single")


if __name__ == "__main__":
    main()
