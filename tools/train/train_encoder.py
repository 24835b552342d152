#!/usr/bin/env python3
"""Trains the judge of evaluate.py: an image encoder that tells concepts and styles of icons apart, on real icons only.

    train_encoder.py [--epochs 24] [--threads 1]

It shares nothing with the VAE or the denoiser. Left out of its training: the icons that split.npz holds out one by one
(their concepts are known from other styles); its accuracy is measured on them. Writes CACHE/encoder/: encoder.pt (resumed
when there) and log.csv (epoch, seconds, training loss, held-out top-1, top-5, style top-1).
"""
import argparse, csv, os, time
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from augment import may_mirror
from prepare import read_index

SETS = ("fluent-3d", "fluent-color", "fluent-flat", "noto", "twemoji", "blob")
SIDE, FEATURES = 64, 128


class Block(nn.Module):
    """Half the side, with a skip."""
    def __init__(self, a, b):
        super().__init__()
        conv = lambda i, o, k, s: nn.Conv2d(i, o, k, s, k // 2, bias=False)
        self.first, self.second, self.skip = conv(a, b, 3, 2), conv(b, b, 3, 1), conv(a, b, 1, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _ in range(2))

    def forward(self, x):
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.skip(F.avg_pool2d(x, 2)))


class Encoder(nn.Module):
    """f32 [B, 4, 64, 64] premultiplied in [-1, 1] -> features [B, 128], concept logits, style logits."""
    def __init__(self, concepts):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(4, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.blocks = nn.Sequential(Block(32, 64), Block(64, 128), Block(128, 256))
        self.neck = nn.Sequential(nn.Linear(256 * 16, FEATURES, bias=False), nn.BatchNorm1d(FEATURES))
        self.concept, self.style = nn.Linear(FEATURES, concepts), nn.Linear(FEATURES, len(SETS))

    def forward(self, x):
        y = self.blocks(self.stem(x))
        features = self.neck(F.dropout(y.flatten(1), .2, self.training))
        return features, self.concept(F.relu(features)), self.style(F.relu(features))


def to_side(pack):
    """uint8 [B, 128, 128, 4] premultiplied -> f32 [B, 4, 64, 64] in [-1, 1], averaged."""
    x = torch.from_numpy(np.array(pack)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.avg_pool2d(x, 128 // SIDE).contiguous(memory_format=torch.channels_last)


def disturb(x, mirrored, generator):
    """Moved, scaled, tilted, blurred, in other colours and noisy: what makes no other concept."""
    count = len(x)
    rand = lambda *shape: torch.rand(*shape, generator=generator) * 2 - 1
    scale, angle = 1 + .15 * rand(count), .15 * rand(count)
    flip = torch.where(mirrored & (rand(count) > 0), -1., 1.)
    theta = torch.stack([torch.stack([flip * angle.cos() / scale, -angle.sin() / scale, .12 * rand(count)], 1),
                         torch.stack([flip * angle.sin() / scale, angle.cos() / scale, .12 * rand(count)], 1)], 1)
    x = F.grid_sample(x + 1, F.affine_grid(theta, x.shape, align_corners=False), align_corners=False)
    tint = torch.cat([1 + .25 * rand(count, 3), torch.ones(count, 1)], 1)[..., None, None]
    x = torch.minimum(x * tint, x[:, 3:])
    blurred = F.avg_pool2d(x, 3, 1, 1)
    x = torch.where((rand(count) > .4)[:, None, None, None], blurred, x)
    return x - 1 + .06 * rand(count, 1, 1, 1).abs() * torch.randn(x.shape, generator=generator)


def labels(index):
    """(concept number, style number) of each icon, and the codes in the order of the numbers."""
    codes = sorted({m["code"] for m in index})
    number = {c: k for k, c in enumerate(codes)}
    return np.array([number[m["code"]] for m in index]), np.array([SETS.index(m["set"]) for m in index]), codes


@torch.no_grad()
def run(encoder, pack):
    """(features, concept logits, style logits) of uint8 [N, 128, 128, 4] premultiplied pictures."""
    encoder.eval()
    parts = [encoder(to_side(pack[i:i + 64])) for i in range(0, len(pack), 64)]
    return [torch.cat(p) for p in zip(*parts)]


def accuracy(encoder, pack, concept, style):
    """Held-out (top-1, top-5, style top-1)."""
    _, logits, styles = run(encoder, pack)
    hit = logits.topk(5, 1).indices == torch.from_numpy(concept)[:, None]
    return hit[:, 0].float().mean().item(), hit.any(1).float().mean().item(), \
        (styles.argmax(1) == torch.from_numpy(style)).float().mean().item()


def load(cache, concepts):
    encoder = Encoder(concepts).to(memory_format=torch.channels_last)
    encoder.load_state_dict(torch.load(f"{cache}/encoder/encoder.pt")["encoder"])
    return encoder.eval()


def train(args, out):
    index = read_index(args.icons)
    concept, style, codes = labels(index)
    held = np.load(f"{args.cache}/split.npz")["icon"]
    pack = np.load(f"{args.cache}/icons.npy", mmap_mode="r")
    small = torch.cat([to_side(pack[i:i + 64]) for i in range(0, len(pack), 64)])
    mirrored, used = torch.tensor([may_mirror(m) for m in index]), np.flatnonzero(~held)
    known = held & np.isin(concept, concept[used])
    torch.manual_seed(args.seed)
    encoder = Encoder(len(codes)).to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(encoder.parameters(), lr=2e-3, weight_decay=.05)
    first, elapsed = 0, 0.
    if os.path.exists(f"{out}/encoder.pt"):
        state = torch.load(f"{out}/encoder.pt")
        encoder.load_state_dict(state["encoder"]), opt.load_state_dict(state["opt"])
        first, elapsed = state["epoch"], state["elapsed"]
    log = csv.writer(open(f"{out}/log.csv", "a", buffering=1))
    steps, start = len(used) // args.batch, time.time() - elapsed
    for epoch in range(first, args.epochs):
        encoder.train()
        order, losses = np.random.default_rng((args.seed, epoch)).permutation(used), []
        generator = torch.Generator().manual_seed(args.seed + epoch)
        for k in range(steps):
            for group in opt.param_groups:
                group["lr"] = 2e-3 * min(1, (epoch * steps + k + 1) / 200) * (1 - (epoch + k / steps) / args.epochs) + 1e-5
            pick = order[k * args.batch:(k + 1) * args.batch]
            _, logits, styles = encoder(disturb(small[pick], mirrored[pick], generator))
            loss = F.cross_entropy(logits, torch.from_numpy(concept[pick]), label_smoothing=.1) \
                + .3 * F.cross_entropy(styles, torch.from_numpy(style[pick]))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
        now, figures = time.time() - start, accuracy(encoder, pack[known], concept[known], style[known])
        log.writerow([epoch + 1, f"{now:.0f}", f"{np.mean(losses):.3f}", *(f"{v:.3f}" for v in figures)])
        torch.save({"encoder": encoder.state_dict(), "opt": opt.state_dict(), "epoch": epoch + 1, "elapsed": now},
                   f"{out}/encoder.pt")
    print(f"{known.sum()} held-out icons of known concepts, {len(codes)} concepts: top-1 %.3f, top-5 %.3f, style %.3f"
          % accuracy(encoder, pack[known], concept[known], style[known]))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--icons", default="../shared/icons")
    args.add_argument("--cache", default="../rung-train")
    args.add_argument("--epochs", type=int, default=24)
    args.add_argument("--batch", type=int, default=64)
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    out = f"{args.cache}/encoder"
    os.makedirs(out, exist_ok=True)
    torch.set_num_threads(args.threads)
    train(args, out)


if __name__ == "__main__":
    main()
