#!/usr/bin/env python3
"""Trains the denoiser on the frozen VAE's latents.

    train_denoiser.py --minutes 80 [--name ladder] [--width 256 --heads 8 --layers 8] [--no-ladder]

Reads CACHE/icons.npy, captions.json, tokens.npy, starts.npy and the VAE's diffusers directory. Writes CACHE/NAME/:
state.pt (resumed when there), log.csv (step, seconds, loss, samples/s), and every --sheet-minutes sheet-*.png and
transformer/ with the averaged weights. Latents of all icons are cached beside the VAE: delete latents.npy when the VAE changes.
The learning rate follows the clock: warm-up, constant, then linear to zero from --decay-from of --minutes on.
"""
import argparse, copy, csv, json, os, time
import numpy as np, torch
import torch.distributed as dist
from diffusers import AutoencoderKL
from fp6 import fake_quantise, is_fp6
from model import LadderTransformer2DModel, initialise
from muon import Muon
from prepare import read_index
from sampling import PROMPTS, decode, sample, sheet
from text import encode, load_encoder

STYLE_WEIGHT = {"fluent-3d": 1., "twemoji": .35, "noto": .2, "fluent-flat": .2, "fluent-color": .2, "blob": .02}
RARE = .2


def common_names():
    """Names of common.txt: what people ask for first, drawn most often while the time to train is short."""
    with open(os.path.dirname(os.path.abspath(__file__)) + "/common.txt") as f:
        return {name.strip() for line in f for name in line.split(";")}


def draw_weight(meta, common):
    """How often an icon is drawn: the default style and the common concepts most."""
    return STYLE_WEIGHT[meta["set"]] * (1 if meta["name"].lower() in common else RARE)


@torch.no_grad()
def encode_icons(args):
    """Latents of all icons, f32 [N, C, 16, 16], unscaled, cached beside the VAE; icons without captions stay zero."""
    path = f"{args.vae}/latents.npy"
    if os.path.exists(path):
        return
    vae = AutoencoderKL.from_pretrained(args.vae).eval().to(memory_format=torch.channels_last)
    pack = np.load(f"{args.cache}/icons.npy")
    used = np.flatnonzero([bool(c) for c in json.load(open(f"{args.cache}/captions.json"))["icons"]])
    z = np.zeros((len(pack), vae.config.latent_channels, 16, 16), np.float32)
    for i in range(0, len(used), 32):
        x = torch.from_numpy(pack[used[i:i + 32]]).permute(0, 3, 1, 2).float() / 127.5 - 1
        z[used[i:i + 32]] = vae.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist.mean.numpy()
    np.save(path, z)


class Batches:
    """Draws icons by weight, one of an icon's captions each, 10% of them empty."""
    def __init__(self, args, z, seed):
        self.z, self.rng = z, np.random.default_rng(seed)
        self.icons = json.load(open(f"{args.cache}/captions.json"))["icons"]
        self.tokens, self.start = (np.load(f"{args.cache}/{name}.npy", mmap_mode="r") for name in ("tokens", "starts"))
        common = common_names()
        weight = np.array([draw_weight(m, common) if c else 0 for m, c in zip(read_index(args.icons), self.icons)])
        self.p = weight / weight.sum()

    def draw(self, count):
        """latents [B, C, 16, 16], text [B, n, 384], mask [B, n]; n is a multiple of 4."""
        pick = self.rng.choice(len(self.p), count, p=self.p)
        texts = [0 if self.rng.random() < .1 else self.rng.choice(self.icons[i]) for i in pick]
        spans = [(self.start[t], self.start[t + 1]) for t in texts]
        n = -(-max(b - a for a, b in spans) // 4) * 4
        context, mask = np.zeros((count, n, 384), np.float32), np.zeros((count, n), np.float32)
        for row, (a, b) in enumerate(spans):
            context[row, :b - a], mask[row, :b - a] = self.tokens[a:b], 1
        return self.z[pick], torch.from_numpy(context), torch.from_numpy(mask)


def alphas_bar():
    return torch.cumprod(1 - torch.linspace(.00085 ** .5, .012 ** .5, 1000) ** 2, 0)


def v_loss(model, z, context, mask, bar):
    """v-prediction; weight 1 up to SNR 5, then falling so that nearly clean latents do not dominate."""
    u = (torch.arange(len(z)) + torch.rand(len(z))) / len(z)                # stratified: less noise in the gradient
    t = (1000 * u ** .8).long().clamp(max=999)                              # composition is decided at high t: draw it more
    a, s = bar[t].sqrt().view(-1, 1, 1, 1), (1 - bar[t]).sqrt().view(-1, 1, 1, 1)
    noise = torch.randn_like(z)
    out = model(a * z + s * noise, context, t, encoder_attention_mask=mask, return_dict=False)[0]
    snr = bar[t] / (1 - bar[t])
    weight = (6 / (snr + 1)).clamp(max=1)
    return (weight * ((out - (a * noise - s * z)) ** 2).mean((1, 2, 3))).mean()


def optimisers(model, args):
    """Muon for the blocks' matrices, AdamW for the rest."""
    hidden = [p for n, p in model.named_parameters() if n.startswith("transformer_blocks") and p.ndim == 2 and "table" not in n]
    ids = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in ids]
    return [Muon(hidden, lr=args.lr, weight_decay=.01, steps=4), torch.optim.AdamW(rest, lr=args.lr / 2, betas=(.9, .99), weight_decay=0)]


def lr_factor(n, done, decay_from):
    return min(1, (n + 1) / 200) * min(1, max(0, (1 - done) / (1 - decay_from)) + .01)


class Average:
    """Exponential moving average of the weights, its window growing with the steps."""
    def __init__(self, model, decay):
        self.weights, self.decay = {k: v.clone() for k, v in model.state_dict().items()}, decay

    @torch.no_grad()
    def update(self, model, n):
        keep = min(self.decay, (1 + n) / (20 + n))
        for k, v in model.state_dict().items():
            self.weights[k].lerp_(v, 1 - keep)


class Rounded:
    """Inside, the parameters are what FP6 makes of them; the gradients go to the full ones (straight through)."""
    def __init__(self, params):
        self.params = params

    def __enter__(self):
        self.full = [p.data for p in self.params]
        for p in self.params:
            p.data = fake_quantise(p.data)

    def __exit__(self, *_):
        for p, full in zip(self.params, self.full):
            p.data = full


def prompt_embeddings(prompts):
    tokenizer, encoder = load_encoder()
    cond, mask = encode(tokenizer, encoder, prompts)
    return cond, mask, encode(tokenizer, encoder, [""])[0]


def save(out, model, average, opts, n, elapsed):
    torch.save({"model": model.state_dict(), "average": average.weights, "opts": [o.state_dict() for o in opts], "n": n,
                "elapsed": elapsed}, f"{out}/state.tmp")
    os.replace(f"{out}/state.tmp", f"{out}/state.pt")


def publish(out, model, average, n, vae, text, threads):
    """Averaged weights in diffusers form and a sheet of samples (with all threads: the other ranks wait)."""
    own = torch.get_num_threads()
    torch.set_num_threads(threads)
    shadow = copy.deepcopy(model)
    shadow.load_state_dict(average.weights)
    shadow.eval().save_pretrained(f"{out}/transformer")
    sheet(decode(vae, sample(shadow, text, steps=12))).save(f"{out}/sheet-{n:06d}.png")
    torch.set_num_threads(own)


def average_gradients(model, done):
    """Mean gradient over the ranks, and rank 0's clock: every rank must stop and decay at the same step."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    clock = torch.tensor([done if dist.get_rank() == 0 else 0.])
    flat = torch.cat([g.flatten() for g in grads] + [clock])
    dist.all_reduce(flat)
    at = 0
    for g in grads:
        g.copy_(flat[at:at + g.numel()].view_as(g)).div_(dist.get_world_size())
        at += g.numel()
    return flat[-1].item()


def resume(path, model, average, opts):
    """(steps, seconds) done before."""
    if not os.path.exists(path):
        return 0, 0.
    state = torch.load(path)
    model.load_state_dict(state["model"])
    average.weights = state["average"]
    for opt, saved in zip(opts, state["opts"]):
        opt.load_state_dict(saved)
        for group in opt.param_groups:
            group.update(opt.defaults)                                     # settings are the command line's, not the file's
    return state["n"], state["elapsed"]


def train(rank, args):
    """One rank: a process of its own with its own batches. Under a shared CPU two ranks of one thread lose less than one of two."""
    out = f"{args.cache}/{args.name}"
    torch.set_num_threads(args.threads // args.ranks)
    if args.ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=args.ranks)
    torch.manual_seed(args.seed)
    vae = AutoencoderKL.from_pretrained(args.vae).eval().to(memory_format=torch.channels_last)
    channels = vae.config.latent_channels
    model = initialise(LadderTransformer2DModel(
        num_attention_heads=args.heads, attention_head_dim=args.width // args.heads, cross_attention_dim=args.width,
        num_layers=args.layers, in_channels=channels, out_channels=channels, ladder=not args.no_ladder))
    z = torch.from_numpy(np.load(f"{args.vae}/latents.npy")) * vae.config.scaling_factor
    opts, average = optimisers(model, args), Average(model, args.ema)
    n, elapsed = resume(f"{out}/state.pt", model, average, opts)
    seed = args.seed + 1000003 * rank + n
    torch.manual_seed(seed)
    batches, bar = Batches(args, z, seed), alphas_bar()
    text = prompt_embeddings(PROMPTS) if rank == 0 else None
    fp6 = [p for name, p in model.named_parameters() if is_fp6("transformer", name, p)]
    run = torch.compile(model, dynamic=False) if args.compile else model
    log = csv.writer(open(f"{out}/log.csv", "a", buffering=1)) if rank == 0 else None
    start, losses = time.time() - elapsed, []
    saved = drawn = tick = time.time()
    done = elapsed / (60 * args.minutes)
    while done < 1 and not 0 < args.steps <= n:
        for opt, lr in zip(opts, (args.lr, args.lr / 2)):
            for g in opt.param_groups:
                g["lr"] = lr * lr_factor(n, done, args.decay_from)
        with Rounded(fp6 if done > args.fp6_from else []):
            loss = v_loss(run, *batches.draw(args.batch // args.ranks), bar)
            loss.backward()
        done = (time.time() - start) / (60 * args.minutes)
        if args.ranks > 1:
            done = average_gradients(model, done)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        for opt in opts:
            opt.step()
            opt.zero_grad()
        n += 1
        losses.append(loss.item())
        if rank == 0:
            average.update(model, n)
            if n % 50 == 0:
                rate = 50 * args.batch / (time.time() - tick)
                log.writerow([n, f"{time.time() - start:.0f}", f"{np.mean(losses):.4f}", f"{rate:.1f}"])
                losses, tick = [], time.time()
            if time.time() - saved > 60 * args.save_minutes or done >= 1:
                save(out, model, average, opts, n, time.time() - start)
                saved = time.time()
            if time.time() - drawn > 60 * args.sheet_minutes or done >= 1:
                publish(out, model, average, n, vae, text, args.threads)
                drawn = time.time()


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--minutes", type=float, required=True)
    args.add_argument("--icons", default="../shared/icons")
    args.add_argument("--cache", default="../rung-train")
    args.add_argument("--vae", default="../rung-train/vae")
    args.add_argument("--name", default="ladder")
    args.add_argument("--width", type=int, default=256)
    args.add_argument("--heads", type=int, default=8)
    args.add_argument("--layers", type=int, default=8)
    args.add_argument("--no-ladder", action="store_true")
    args.add_argument("--batch", type=int, default=64)
    args.add_argument("--lr", type=float, default=3e-3, help="Muon's; AdamW takes half")
    args.add_argument("--decay-from", type=float, default=.3)
    args.add_argument("--fp6-from", type=float, default=.85, help="from this share of the time on, train through FP6 rounding")
    args.add_argument("--ema", type=float, default=.996)
    args.add_argument("--save-minutes", type=float, default=3, help="between checkpoints")
    args.add_argument("--sheet-minutes", type=float, default=10, help="between sheets and transformer/")
    args.add_argument("--steps", type=int, default=0, help="stop here already (for measurements)")
    args.add_argument("--compile", action="store_true")
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--ranks", type=int, default=2, help="processes that share the batch")
    args = args.parse_args()
    out = f"{args.cache}/{args.name}"
    os.makedirs(out, exist_ok=True)
    if os.path.exists(f"{out}/rendezvous"):
        os.remove(f"{out}/rendezvous")
    torch.set_num_threads(args.threads)
    encode_icons(args)
    if args.ranks > 1:
        torch.multiprocessing.spawn(train, (args,), args.ranks)
    else:
        train(0, args)


if __name__ == "__main__":
    main()
