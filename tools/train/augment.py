#!/usr/bin/env python3
"""Latents of every icon and of its variants, computed once.

    augment.py [--vae CACHE/vae] [--threads 2]

Variants: as it is; mirrored, where a mirrored picture means the same; moved and a little smaller; and, for icons of one
clear colour, in two other colours (text.py names them in the captions). Writes CACHE/variants.npz (icon, kind, colour:
one row a variant; colour indexes colours.WORDS, -1: its own) and CACHE/latents.npy, f16 [rows, C, 16, 16], unscaled.
"""
import argparse, re
import numpy as np, torch
from PIL import Image
from diffusers import AutoencoderKL
from colours import HUES, WORDS, dominant_colour, recolour
from prepare import read_index

PLAIN, MIRRORED, MOVED, RECOLOURED = range(4)
SIDED_SUBGROUPS = {"time", "game", "currency", "money", "hotel", "place-map", "book-paper", "office", "mail", "computer", "sound",
                   "hand-fingers-open", "hand-fingers-partial", "hand-single-finger", "hand-fingers-closed", "hand-prop",
                   "body-parts"}
SIDED_NAMES = re.compile(
    r"clock|thirty|button|sign|flag|letter|keycap|number|left|right|calendar|memo|music|8 ball|atm|sos|question|percent|"
    r"hundred|dollar|yen|euro|pound|police|ambulance|bus|card|globe|moon|quarter|store|hotel|bank|post|zzz|sleep|thumb|point|"
    r"writing|medal|back|mahjong|chart|ticket|barber|t-rex|label|badge|japan|cyclone|dna|violin|thermometer|slot|soon|end arrow|top arrow")


def may_mirror(meta):
    return meta["subgroup"] not in SIDED_SUBGROUPS and not SIDED_NAMES.search(meta["name"].lower())


def plan(index, pack, seed=0):
    """(icon, kind, colour) rows. People keep their colours; so do icons without one dominant colour."""
    rng, rows = np.random.default_rng(seed), []
    for i, meta in enumerate(index):
        rows.append((i, PLAIN, -1))
        if may_mirror(meta):
            rows.append((i, MIRRORED, -1))
        rows.append((i, MOVED, -1))
        own = dominant_colour(pack[i]) if meta["split"] != "people" else None
        if own in HUES or own == "brown":
            near = {"brown": {"orange", "yellow"}, "red": {"pink", "orange"}}.get(own, {own})
            others = [w for w in HUES if w != own and w not in near]
            rows += [(i, RECOLOURED, WORDS.index(w)) for w in rng.choice(others, 2, replace=False)]
    return np.array(rows, np.int32)


def moved(icon, rng):
    """0.86 to 0.97 of its size, anywhere within the frame."""
    scale = rng.uniform(.86, .97)
    dx, dy = rng.uniform(0, 128 * (1 - scale), 2)
    inverse = (1 / scale, 0, -dx / scale, 0, 1 / scale, -dy / scale)
    planes = [Image.fromarray(np.pad(icon[..., k], 1)).transform(
        (128, 128), Image.Transform.AFFINE, tuple(v + (1 if k in (2, 5) else 0) for k, v in enumerate(inverse)),
        Image.Resampling.BICUBIC) for k in range(4)]
    out = np.stack([np.asarray(p) for p in planes], -1)
    out[..., :3] = np.minimum(out[..., :3], out[..., 3:])
    return out


def picture(icon, kind, colour, rng):
    if kind == MIRRORED:
        return icon[:, ::-1]
    if kind == MOVED:
        return moved(icon, rng)
    return recolour(icon, WORDS[colour]) if kind == RECOLOURED else icon


@torch.no_grad()
def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--icons", default="../shared/icons")
    args.add_argument("--cache", default="../rung-train")
    args.add_argument("--vae", help="default: CACHE/vae")
    args.add_argument("--threads", type=int, default=1)
    args.add_argument("--plan-only", action="store_true", help="variants.npz without latents (text.py needs no more)")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    pack = np.load(f"{args.cache}/icons.npy", mmap_mode="r")
    rows = plan(read_index(args.icons), pack)
    np.savez(f"{args.cache}/variants.npz", icon=rows[:, 0], kind=rows[:, 1], colour=rows[:, 2])
    print(len(rows), "variants:", np.bincount(rows[:, 1]), flush=True)
    if args.plan_only:
        return
    vae = AutoencoderKL.from_pretrained(args.vae or f"{args.cache}/vae").eval().to(memory_format=torch.channels_last)
    rng, z = np.random.default_rng(1), np.empty((len(rows), vae.config.latent_channels, 16, 16), np.float16)
    for i in range(0, len(rows), 16):
        x = np.stack([picture(pack[k], kind, colour, rng) for k, kind, colour in rows[i:i + 16]])
        x = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1
        z[i:i + 16] = vae.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist.mean.numpy()
        if i % 1600 == 0:
            print(i, flush=True)
    np.save(f"{args.cache}/latents.npy", z)


if __name__ == "__main__":
    main()
