#!/usr/bin/env python3
"""Latents as the denoiser leaves them, each beside the icon it should have been: train_vae.py --drawn learns clean surfaces from them.

    draw_latents.py [--count 5000] [--transformer assets/icons/transformer]

An icon's latents get the noise of a random place in a sampler's schedule, and the denoiser takes it from there with the icon's
caption. From a late place on the shape stays the icon's own, and only what the denoiser does to surfaces and small parts differs;
places are drawn from the last sixty percent, the late ones more often. Icons that are held out, from either part, and moved ones (their
place was random) are left out. Writes CACHE/drawn.npz: z, f16 [count, C, 16, 16], unscaled as augment.py's, and row, of variants.npz.
"""
import argparse, os
import numpy as np, torch
from diffusers import AutoencoderKL
from augment import MOVED
from sampling import sample
from train_denoiser import RARE, Batches, opened

HERE = os.path.dirname(os.path.abspath(__file__))


class Icons(Batches):
    """The denoiser's training icons and captions in its own proportions, for a decoder: without the concepts held out from that."""
    def __init__(self, args, scale):
        super().__init__(args, scale)
        unfit = np.load(f"{args.cache}/split.npz")["concept"][self.icon] | (self.kind == MOVED)
        p = np.diff(self.p, prepend=0) * ~unfit
        self.p, self.empty = np.cumsum(p / p.sum()), torch.from_numpy(self.tokens[:self.start[1]].astype(np.float32))[None]

    def choose(self, count, rng):
        """(rows, latents, text as sampling.sample wants it)"""
        rows = np.searchsorted(self.p, rng.random(count))
        z, cond, mask = self.gather(rows, [rng.choice(self.texts_of(r)) for r in rows])
        return rows, z, (cond, mask, self.empty)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--icons", default="../shared/icons")
    args.add_argument("--cache", default="../rung-train")
    args.add_argument("--transformer", default=os.path.normpath(f"{HERE}/../../assets/icons/transformer"))
    args.add_argument("--vae", help="default: CACHE/vae")
    args.add_argument("--count", type=int, default=5000)
    args.add_argument("--steps", type=int, default=20)
    args.add_argument("--rare", type=float, default=RARE, help="as train_denoiser.py's")
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    factor = AutoencoderKL.load_config(args.vae or f"{args.cache}/vae")["scaling_factor"]
    icons, model = Icons(args, factor), opened(args.transformer)
    rng, rows, latents = np.random.default_rng(args.seed), [], []
    while len(rows) < args.count:
        chosen, z, text = icons.choose(50, rng)
        left = 1 + int(.6 * args.steps * rng.random() ** 1.5)               # steps that remain
        z = sample(model, text, args.steps, rng.uniform(1.5, 5), args.seed + 10000 + len(rows), start=(z, left))
        rows.extend(chosen), latents.append(z / factor)
        print(f"{len(rows)} of {args.count}", flush=True)
    np.savez(f"{args.cache}/drawn.npz", z=torch.cat(latents).numpy().astype(np.float16), row=np.array(rows))


if __name__ == "__main__":
    main()
