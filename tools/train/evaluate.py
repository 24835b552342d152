#!/usr/bin/env python3
"""Measures models by the pictures that rung draws of prompts.txt. One row of a table a model and setting.

    evaluate.py [--model DIR ...] [--steps 4 8 20 50] [--cfg 1 3 5 7] [--seeds 2] [--options="--sampler euler"]
                [--csv FILE] [--real]

Pictures come from `rung batch` (what ships is what is measured) and stay in CACHE/pictures/ for another run; the judge
is train_encoder.py's, which saw real icons only. Columns:
  R@1, R@5     share of pictures whose concept is the judge's first / among its first five of all concepts
  style        share of the pictures with a style word in the prompt that the judge takes for that style
  3d           share of the pictures without a style word that it takes for fluent-3d, the default
  FD           Frechet distance between the judge's features of the pictures and of the held-out icons
  soft         share of pixels with 0.05 < alpha < 0.95
  dirt         share of pixels with 0 < alpha <= 0.05 (a background that is not truly 0), in 1/1000
  specks       isolated spots of at most 12 pixels (alpha > 0.05, neighbours over corners too), a picture
  near, copy   root mean square distance (premultiplied RGBA in 0..1 at 32x32) to the nearest training icon: its median,
               and the share below 0.04
--real: the same figures of real pictures first: training icons, held-out icons, and held-out icons through the VAE.
"""
import argparse, csv, glob, json, os, re, subprocess, zlib
import numpy as np, torch
from PIL import Image
from scipy import ndimage
import train_encoder as judge
from prepare import read_index
from fp6 import read
from train_vae import to_input

HERE = os.path.dirname(os.path.abspath(__file__))
STYLES = ((r"\b3d\b", {"fluent-3d"}), (r"noto style", {"noto", "blob"}), (r"soft gradient", {"fluent-color"}),
          (r"fluent flat", {"fluent-flat"}), (r"\bflat\b", {"twemoji", "fluent-flat"}))
COLUMNS = ("R@1", "R@5", "style", "3d", "FD", "soft", "dirt", "specks", "near", "copy")


def specks(alpha, most=12):
    """How many isolated spots of at most `most` pixels (neighbours over corners too) an 8-bit alpha [128, 128] shows."""
    spots, n = ndimage.label(alpha > 12, np.ones((3, 3)))
    return (np.bincount(spots.ravel(), minlength=n + 1)[1:] <= most).sum()


def read_prompts():
    """[(prompt, [code, ...])] of prompts.txt."""
    with open(f"{HERE}/prompts.txt") as f:
        rows = [line.rstrip("\n").split("\t") for line in f if line[0] != "#"]
    return [(prompt, codes.split()) for prompt, codes in rows]


def asked_style(prompt):
    """The sets that a prompt's style words allow, or None."""
    return next((sets for pattern, sets in STYLES if re.search(pattern, prompt)), None)


def draw(args, model, steps, cfg, prompts):
    """uint8 [prompts * seeds, 128, 128, 4] premultiplied, drawn with the engine, seed by seed."""
    weights = b"".join(open(path, "rb").read() for path in sorted(glob.glob(f"{model}/*/*.safetensors")))
    options = re.sub(r"[^a-z0-9]+", "-", args.options)
    folder = f"{args.cache}/pictures/{zlib.crc32(weights):08x}-{steps}-{cfg:g}{options}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/prompts.jsonl", "w") as f:
        for seed in range(args.seeds):
            for prompt, _ in prompts:
                f.write(json.dumps({"prompt": prompt, "seed": seed}) + "\n")
    settings = ["-q", "-m", model, "--steps", str(steps), "--cfg-scale", str(cfg), "-t", str(args.threads)]
    settings += args.options.split()
    subprocess.run([args.rung, "batch", f"{folder}/prompts.jsonl", *settings, "-o", f"{folder}/{{line}}.png"], check=True,
                   stdout=subprocess.DEVNULL)
    with open(f"{folder}/manifest.jsonl") as f:
        output = {entry["line"]: entry["output"] for entry in map(json.loads, f)}
    return np.stack([premultiplied(output[line + 1]) for line in range(args.seeds * len(prompts))])


def premultiplied(path):
    a = np.asarray(Image.open(path).convert("RGBA")).astype(np.float32)
    a[..., :3] *= a[..., 3:] / 255
    return (a + .5).astype(np.uint8)


def frechet(a, b):
    """Frechet distance of two feature sets taken for Gaussians."""
    (ma, ca), (mb, cb) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (a, b))
    w, v = np.linalg.eigh(ca)
    root = (v * np.sqrt(w.clip(0))) @ v.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cb @ root).clip(0)).sum()
    return ((ma - mb) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * cross


def thumbs(pictures):
    """f32 [N, 32 * 32 * 4] in 0..1, areas averaged."""
    return (pictures.reshape(-1, 32, 4, 32, 4, 4).mean((2, 4)) / 255).reshape(len(pictures), -1).astype(np.float32)


def nearest(a, b):
    """Root mean square distance of each row of a to the nearest of b."""
    square = (a ** 2).sum(1)[:, None] + (b ** 2).sum(1) - 2 * a @ b.T
    return np.sqrt(square.min(1).clip(0) / a.shape[1])


def measure(pictures, wanted, styles, world, own=False):
    """One row. wanted: lists of concept numbers; styles: sets asked for, or None; own: these are training icons."""
    features, logits, style = judge.run(world["encoder"], pictures)
    order = logits.argsort(1, descending=True)
    rank = np.array([min((row == w).nonzero().item() for w in ws) for row, ws in zip(order, wanted)])
    guess = [judge.SETS[k] for k in style.argmax(1)]
    asked = [g in s for g, s in zip(guess, styles) if s]
    plain = [g == "fluent-3d" for g, s in zip(guess, styles) if not s]
    alpha = pictures[..., 3]
    near = None if own else nearest(thumbs(pictures), world["training"])
    return {"R@1": (rank < 1).mean(), "R@5": (rank < 5).mean(),
            "style": np.mean(asked or np.nan), "3d": np.mean(plain or np.nan),
            "FD": frechet(features.numpy(), world["held features"]), "soft": ((alpha > 12) & (alpha < 243)).mean(),
            "dirt": 1000 * ((alpha > 0) & (alpha <= 12)).mean(), "specks": np.mean([specks(a) for a in alpha]),
            "near": np.nan if own else np.median(near), "copy": np.nan if own else (near < .04).mean()}


@torch.no_grad()
def through_vae(folder, pictures):
    """The pictures as the model's VAE gives them back."""
    from diffusers import AutoencoderKL
    vae = AutoencoderKL.from_config(json.load(open(f"{folder}/vae/config.json"))).eval()
    vae.load_state_dict(read(f"{folder}/vae/diffusion_pytorch_model.safetensors"))
    out = []
    for i in range(0, len(pictures), 16):
        out.append(vae.decode(vae.encode(to_input(pictures[i:i + 16])).latent_dist.mean).sample.clamp(-1, 1))
    return ((torch.cat(out) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def show(name, row, writer):
    cells = [f"{row[c]:.3f}" if c not in ("FD", "dirt") else f"{row[c]:.1f}" for c in COLUMNS]
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    if writer:
        writer.writerow([name] + [f"{row[c]:.4f}" for c in COLUMNS])


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--model", nargs="+", default=[os.path.normpath(f"{HERE}/../../assets/icons")])
    args.add_argument("--icons", default="../shared/icons")
    args.add_argument("--cache", default="../rung-train")
    args.add_argument("--rung", default=os.path.normpath(f"{HERE}/../../build/rung"))
    args.add_argument("--steps", type=int, nargs="+", default=[20])
    args.add_argument("--cfg", type=float, nargs="+", default=[3.])
    args.add_argument("--seeds", type=int, default=2)
    args.add_argument("--options", default="", help="more options for rung")
    args.add_argument("--csv", help="append the rows to this file")
    args.add_argument("--real", action="store_true", help="also the rows of real icons")
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    index = read_index(args.icons)
    concept, _, codes = judge.labels(index)
    pack, held = np.load(f"{args.cache}/icons.npy", mmap_mode="r"), np.load(f"{args.cache}/split.npz")
    single = held["icon"] & np.isin(concept, concept[~held["icon"]])
    encoder = judge.load(args.cache, len(codes))
    world = {"encoder": encoder, "held features": judge.run(encoder, pack[single])[0].numpy(),
             "training": thumbs(pack[~held["icon"]])}
    writer = csv.writer(open(args.csv, "a", buffering=1)) if args.csv else None
    print("| pictures | " + " | ".join(COLUMNS) + " |\n" + "|---" * (1 + len(COLUMNS)) + "|")
    if args.real:
        real = lambda rows: ([[c] for c in concept[rows]], [{index[r]["set"]} for r in rows])
        training = np.random.default_rng(0).choice(np.flatnonzero(~held["icon"]), 400, replace=False)
        show("training icons", measure(pack[training], *real(training), world, own=True), writer)
        rows = np.flatnonzero(single)
        show("held-out icons", measure(pack[rows], *real(rows), world), writer)
        show("held-out icons through the VAE", measure(through_vae(args.model[0], pack[rows]), *real(rows), world), writer)
    prompts, number = read_prompts(), {c: k for k, c in enumerate(codes)}
    wanted = [[number[c] for c in cs] for _, cs in prompts] * args.seeds
    styles = [asked_style(p) for p, _ in prompts] * args.seeds
    for model in args.model:
        for steps in args.steps:
            for cfg in args.cfg:
                row = measure(draw(args, model, steps, cfg, prompts), wanted, styles, world)
                name = os.path.basename(os.path.normpath(model))
                show(f"{name}, {steps} steps, cfg {cfg:g} {args.options}".rstrip(), row, writer)


if __name__ == "__main__":
    main()
