#!/usr/bin/env python3
"""Trains the icon VAE: AutoencoderKL, premultiplied RGBA in [-1, 1], f8, 8 latent channels, 128x128.

    train_vae.py --samples 12000 [--init DIR] [--channels 8]       encoder and decoder, from a diffusers directory
    train_vae.py --samples 9600 --decoder-only [--fp6] --init CACHE/vae --name vae-decoder
                              latents frozen, read from augment.py's; --fp6: through the weights as they ship
    ... --decoder-only --drawn CACHE/drawn.npz      most of each batch are latents as the denoiser leaves them
                              (draw_latents.py); their target is the icon they come from

The learning rate follows the samples.

Reads CACHE/icons.npy and split.npz (prepare.py). Writes CACHE/NAME/: vae.pt (resumed when there), log.csv (step,
seconds, loss, held-out PSNR pooled and mean of icons, samples/s) and the diffusers directory. --init may hold a VAE with
fewer latent channels: the others start small and random.
Preload jemalloc (README.md): with glibc's malloc much of the time goes into page faults.
"""
import argparse, csv, os, time
import numpy as np, torch, torch.nn.functional as F
from diffusers import AutoencoderKL
from torch.nn.utils import parametrize
from augment import MOVED, picture
from fp6 import FakeFP6, is_fp6

LR = 1e-3


def build(channels):
    """Two norm groups: with 8 groups of 2 channels, normalisation removed colour."""
    return AutoencoderKL(in_channels=4, out_channels=4, down_block_types=["DownEncoderBlock2D"] * 4,
                         up_block_types=["UpDecoderBlock2D"] * 4, block_out_channels=(16, 32, 64, 128),
                         layers_per_block=1, latent_channels=channels, norm_num_groups=2,
                         mid_block_add_attention=False, sample_size=128)


def widen(vae, old):
    """Copy `old` (fewer latent channels) into vae: old channels stay themselves, new ones start random and small."""
    a, b, params = old.config.latent_channels, vae.config.latent_channels, old.state_dict()
    new = vae.state_dict()
    rows = list(range(a)) + list(range(b, b + a))                       # mean and log variance of the old channels
    extra = list(range(a, b)) + list(range(b + a, 2 * b))
    for name, w in params.items():
        if name.startswith("encoder.conv_out"):
            new[name][rows] = w
            new[name][extra] = torch.randn_like(new[name][extra]) * w.std() if w.ndim > 1 else w.repeat(b // a - 1)
        elif name == "quant_conv.weight":
            new[name][:] = torch.eye(2 * b)[:, :, None, None]
            new[name][torch.tensor(rows)[:, None], rows] = w
        elif name == "quant_conv.bias":
            new[name].zero_()
            new[name][rows] = w
            new[name][b + a:] = w[a:].mean()
        elif name == "post_quant_conv.weight":
            new[name][:] = torch.eye(b)[:, :, None, None]
            new[name][:a, :a] = w
        elif name == "post_quant_conv.bias":
            new[name].zero_()
            new[name][:a] = w
        elif name == "decoder.conv_in.weight":
            new[name][:, :a] = w
            new[name][:, a:] = torch.randn_like(new[name][:, a:]) * w.std() * .3
        else:
            new[name].copy_(w)
    vae.load_state_dict(new)


def to_input(pack):
    """uint8 [B, 128, 128, 4] premultiplied -> f32 [B, 4, 128, 128] in [-1, 1]."""
    return (torch.from_numpy(pack).permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


class Pictures:
    """Batches for encoder and decoder: flips; and permuted colour channels in a share of the samples, which makes hue matter
    (half of the icons are yellow)."""
    def __init__(self, pack, rng):
        self.pack, self.rng = pack, rng

    def draw(self, count, done):
        x = to_input(self.pack[self.rng.choice(len(self.pack), count, replace=False)])
        for i in np.flatnonzero(self.rng.random(count) < (.5 if done < .6 else .2)):
            x[i, :3] = x[i, torch.from_numpy(self.rng.permutation(3))].clone()
        return x.flip(3) if self.rng.random() < .5 else x


class Decoded:
    """Batches for the decoder alone: augment.py's latents (but of moved icons, whose place was random) and their pictures; with
    `drawn`, three quarters of them draw_latents.py's."""
    def __init__(self, cache, pack, concept, rng, drawn=None):
        table = np.load(f"{cache}/variants.npz")
        self.rows = np.flatnonzero((table["kind"] != MOVED) & ~concept[table["icon"]])
        self.icon, self.kind, self.colour = table["icon"], table["kind"], table["colour"]
        self.z, self.pack, self.rng = np.load(f"{cache}/latents.npy", mmap_mode="r"), pack, rng
        own = np.load(drawn) if drawn else {"z": self.z[:0], "row": self.rows[:0]}
        self.drawn_z, self.drawn_row = own["z"], own["row"]

    def draw(self, count):
        """(latents, pictures)"""
        k = self.rng.choice(len(self.drawn_row), count * 3 // 4 if len(self.drawn_row) else 0)
        rows = self.rng.choice(self.rows, count - len(k), replace=False)
        z, rows = np.concatenate([self.drawn_z[k], self.z[rows]]), np.concatenate([self.drawn_row[k], rows])
        x = np.stack([picture(self.pack[self.icon[r]], self.kind[r], self.colour[r], self.rng) for r in rows])
        return torch.from_numpy(z.astype(np.float32)), to_input(x)


def edges(x):
    return x[:, :, 1:] - x[:, :, :-1], x[:, :, :, 1:] - x[:, :, :, :-1]


def saturate(y, x):
    """What clamping shows where the target is a bound (a background below -1 is right); elsewhere y, so that it keeps a gradient."""
    return torch.where((y < -1) & (x <= -1) | (y > 1) & (x >= 1), x, y)


def reconstruction_loss(y, x, drawn=False):
    """drawn: the latents tell less than the picture knows. Squares would ask for the mean of what it could be, a haze; without them it is
    the median."""
    y = saturate(y, x)
    (dy, dx), (ty, tx) = edges(y), edges(x)
    faint = F.relu(y[:, 3] + 1) * (x[:, 3] <= -1)                       # an empty background must be exactly empty
    sharp = ((y - x).abs().mean() + (4 if drawn else 1) * faint.mean()
             + .4 * ((dy - ty).abs().mean() + (dx - tx).abs().mean())
             + (F.avg_pool2d(y, 4) - F.avg_pool2d(x, 4)).abs().mean())
    return sharp if drawn else (sharp + 4 * ((y - x) ** 2).mean()
                                + 8 * ((F.avg_pool2d(y, 8) - F.avg_pool2d(x, 8)) ** 2).mean())


@torch.no_grad()
def psnr(vae, pack):
    """(PSNR of the pooled error, mean of each icon's PSNR) in dB over premultiplied RGBA, peak 2 ([-1, 1])."""
    errors = []
    for i in range(0, len(pack), 32):
        x = to_input(pack[i:i + 32])
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        errors.append(((y - x) ** 2).mean((1, 2, 3)))
    errors = torch.cat(errors)
    return (10 * torch.log10(4 / errors.mean())).item(), (10 * torch.log10(4 / errors)).mean().item()


def quantise_aware(vae):
    """Route every weight that ships as FP6 through quantise-dequantise, gradients straight through."""
    for name, module in list(vae.named_modules()):
        if hasattr(module, "weight") and is_fp6("vae", f"{name}.weight", module.weight):
            parametrize.register_parametrization(module, "weight", FakeFP6())


def train(vae, args, pack, concept, out):
    if args.decoder_only:
        vae.encoder.requires_grad_(False), vae.quant_conv.requires_grad_(False)
        if args.fp6:
            quantise_aware(vae)
    params = [p for p in vae.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=args.lr, betas=(.9, .99), weight_decay=1e-4)
    elapsed, n = 0., 0
    if os.path.exists(f"{out}/vae.pt"):
        state = torch.load(f"{out}/vae.pt")
        vae.load_state_dict(state["vae"]), opt.load_state_dict(state["opt"])
        elapsed, n = state["elapsed"], state["n"]
    rng = np.random.default_rng((args.seed, n))
    batches = Decoded(args.cache, pack, concept, rng, args.drawn) if args.decoder_only else Pictures(pack[~concept], rng)
    log = csv.writer(open(f"{out}/log.csv", "a", buffering=1))
    start = time.time() - elapsed
    while (done := n * args.batch / args.samples) < 1:
        for g in opt.param_groups:
            g["lr"] = args.lr * min(1, (n + 1) / 100) * (1 - done) ** .8 + 1e-5
        if args.decoder_only:
            z, x = batches.draw(args.batch)
            loss = reconstruction_loss(vae.decode(z + args.noise * torch.randn_like(z)).sample, x, bool(args.drawn))
        else:
            x = batches.draw(args.batch, done)
            posterior = vae.encode(x).latent_dist
            loss = reconstruction_loss(vae.decode(posterior.sample()).sample, x) + 2.5e-7 * posterior.kl().mean()
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.)
        opt.step()
        n += 1
        if n % 50 == 0:
            now, (pooled, mean) = time.time() - start, psnr(vae, pack[concept][::3])
            rate = n * args.batch / now
            log.writerow([n, f"{now:.0f}", f"{loss.item():.4f}", f"{pooled:.2f}", f"{mean:.2f}", f"{rate:.1f}"])
            torch.save({"vae": vae.state_dict(), "opt": opt.state_dict(), "elapsed": now, "n": n}, f"{out}/vae.pt")
    if args.fp6:
        for module in list(vae.modules()):
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight")


@torch.no_grad()
def normalise(vae, images):
    """Fold each latent channel's mean into the two 1x1 convs and set scaling_factor = 1/std, over 1,024 training icons.

    scaled_linear keeps a little signal at the last timestep, so a mean far from 0 would show as a tint of the first step."""
    pick = np.random.default_rng(0).choice(len(images), 1024, replace=False)
    z = torch.cat([vae.encode(to_input(images[pick[i:i + 32]])).latent_dist.mean for i in range(0, 1024, 32)])
    mean, channels = z.mean((0, 2, 3)), z.shape[1]
    print("latent channels: mean", mean.tolist(), "std", z.std((0, 2, 3)).tolist())
    vae.quant_conv.bias[:channels] -= mean
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ mean
    vae.register_to_config(scaling_factor=1 / (z - mean[:, None, None]).std().item())


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--samples", type=int, default=12000)
    args.add_argument("--cache", default="../rung-train")
    args.add_argument("--name", default="vae", help="folder in the cache")
    args.add_argument("--init", default="../shared/vae", help="diffusers directory to start from")
    args.add_argument("--channels", type=int, default=8)
    args.add_argument("--batch", type=int, default=16)
    args.add_argument("--lr", type=float, default=LR)
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--decoder-only", action="store_true")
    args.add_argument("--noise", type=float, default=0., help="decoder-only: noise on the latents, as a sampler leaves it")
    args.add_argument("--drawn", help="decoder-only: draw_latents.py's file")
    args.add_argument("--fp6", action="store_true", help="decoder-only: train the weights as FP6 will round them")
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    out = f"{args.cache}/{args.name}"
    os.makedirs(out, exist_ok=True)
    pack, concept = np.load(f"{args.cache}/icons.npy", mmap_mode="r"), np.load(f"{args.cache}/split.npz")["concept"]
    old = AutoencoderKL.from_pretrained(args.init)
    vae = old
    if old.config.latent_channels != args.channels:
        vae = build(args.channels)
        widen(vae, old)
    vae = vae.float().to(memory_format=torch.channels_last)
    train(vae, args, pack, concept, out)
    print("held-out PSNR: pooled %.2f dB, mean of icons %.2f dB" % psnr(vae, pack[concept]))
    if not args.decoder_only:
        normalise(vae, pack[~concept])
    vae.save_pretrained(out)


if __name__ == "__main__":
    main()
