#!/usr/bin/env python3
"""Trains the denoiser on the frozen VAE's latents: one process, one thread, one model.

    train_denoiser.py --samples 300000 [--name ladder] [--no-ladder] [--width 192 --heads 6 --layers 6] [--compile]
    train_denoiser.py --samples 19200 --name pruned --init PRUNED/transformer --keep-zeros --lr 5e-4 --decay-from 0 --fp6-from 0

Reads CACHE/latents.npy, variants.npz, captions.json, tokens.npy, starts.npy (augment.py, text.py). Writes CACHE/NAME/:
state.pt (resumed when there), log.csv, and every --sheet-minutes sheet-*.png and transformer/ with the averaged weights.
Step n draws its icons, captions, noise and timesteps from (seed, n) alone: two runs of one seed see the same samples in
the same order however often either was stopped. The learning rate follows the samples: warm-up, constant, and linear to
zero from --decay-from of --samples on; until then --samples may be changed by a new start.
log.csv: steps, samples, seconds of this clock, training loss of the last 100 steps, samples/s, and every 500 steps the
averaged weights' loss on the icons that split.npz holds out one by one (same noise every time).
"""
import argparse, copy, csv, json, os, time
import numpy as np, torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from augment import MIRRORED, MOVED, PLAIN, RECOLOURED
from fp6 import fake_quantise, is_fp6, read
from model import LadderTransformer2DModel, initialise
from muon import Muon
from prepare import read_index
from sampling import PROMPTS, decode, sample, sheet
from text import encode, load_encoder

STYLE_WEIGHT = {"fluent-3d": 1., "twemoji": .35, "noto": .25, "fluent-flat": .25, "fluent-color": .25, "blob": .02}
KIND_WEIGHT = {PLAIN: .6, MIRRORED: .2, MOVED: .08, RECOLOURED: .06}
PEOPLE, RARE = .5, .35
TEXT_LENGTH = 20            # one length for all batches: compiled once; the few longer captions lose their end


def common_names():
    """Names of common.txt: what people ask for first, drawn most often while the time to train is short."""
    with open(os.path.dirname(os.path.abspath(__file__)) + "/common.txt") as f:
        return {name.strip() for line in f for name in line.split(";")}


def draw_weight(meta, common, rare):
    """How often an icon is drawn: the default style and the common concepts most."""
    weight = STYLE_WEIGHT[meta["set"]] * (1 if meta["name"].lower() in common else rare)
    return weight * (PEOPLE if meta["split"] == "people" else 1)


class Batches:
    """Draws variants of icons by weight, with one of the variant's captions each, 10% of them empty."""
    def __init__(self, args, scale):
        self.seed, self.scale = args.seed, scale
        self.z = np.load(f"{args.cache}/latents.npy")
        self.captions = json.load(open(f"{args.cache}/captions.json"))
        self.tokens, self.start = (np.load(f"{args.cache}/{name}.npy", mmap_mode="r") for name in ("tokens", "starts"))
        table = np.load(f"{args.cache}/variants.npz")
        self.icon, self.kind = table["icon"], table["kind"]
        held, common = np.load(f"{args.cache}/split.npz")["icon"], common_names()
        weight = np.array([draw_weight(m, common, args.rare) for m in read_index(args.icons)]) * ~held
        share = np.array([KIND_WEIGHT[k] for k in self.kind])
        total = np.bincount(self.icon, share)                               # an icon's weight does not depend on its variants
        self.p = np.cumsum(weight[self.icon] * share / total[self.icon])
        self.p /= self.p[-1]
        self.held = np.flatnonzero((self.kind == PLAIN) & held[self.icon])

    def gather(self, rows, texts):
        """latents [B, C, 16, 16], text [B, TEXT_LENGTH, 384], mask [B, TEXT_LENGTH]."""
        context = np.zeros((len(rows), TEXT_LENGTH, 384), np.float32)
        mask = np.zeros((len(rows), TEXT_LENGTH), np.float32)
        for k, t in enumerate(texts):
            a, b = self.start[t], min(self.start[t + 1], self.start[t] + TEXT_LENGTH)
            context[k, :b - a], mask[k, :b - a] = self.tokens[a:b], 1
        z = torch.from_numpy(self.z[rows].astype(np.float32)) * self.scale
        return z, torch.from_numpy(context), torch.from_numpy(mask)

    def texts_of(self, row):
        return self.captions["recoloured"].get(str(row)) or self.captions["icons"][self.icon[row]]

    def draw(self, count, n):
        rng = np.random.default_rng((self.seed, n))
        rows = np.searchsorted(self.p, rng.random(count))
        return self.gather(rows, [0 if rng.random() < .1 else rng.choice(self.texts_of(r)) for r in rows])

    def held_out(self):
        return self.gather(self.held, [self.texts_of(r)[0] for r in self.held])


def alphas_bar():
    return torch.cumprod(1 - torch.linspace(.00085 ** .5, .012 ** .5, 1000) ** 2, 0)


def targets(z, noise, a, s, x, t, context, mask, teacher):
    """What v-prediction should be: from the data; with a teacher (model, from), its own answer where t, which rises along the batch,
    reaches `from`. An answer has no noise of its own: far fewer samples teach the same."""
    v = a * noise - s * z
    if teacher:
        k = int((t < teacher[1]).sum())
        with torch.no_grad():
            v[k:] = teacher[0](x[k:], context[k:], t[k:], encoder_attention_mask=mask[k:], return_dict=False)[0]
    return v


def v_loss(model, batch, bar, generator, surfaces=False, teacher=None):
    """v-prediction. First composition, which is decided at high t: those t drawn more, weight 1 up to SNR 5, then falling so that
    nearly clean latents do not dominate. Then surfaces, which are decided at low t: those drawn more, weight 1 throughout."""
    z, context, mask = batch
    u = (torch.arange(len(z)) + torch.rand(len(z), generator=generator)) / len(z)   # stratified: less noise in the gradient
    t = (1000 * u ** (1.5 if surfaces else .8)).long().clamp(max=999)
    a, s = bar[t].sqrt().view(-1, 1, 1, 1), (1 - bar[t]).sqrt().view(-1, 1, 1, 1)
    noise = torch.randn(z.shape, generator=generator)
    x = a * z + s * noise
    out = model(x, context, t, encoder_attention_mask=mask, return_dict=False)[0]
    snr = bar[t] / (1 - bar[t])
    weight = torch.ones_like(snr) if surfaces else (6 / (snr + 1)).clamp(max=1)
    return (weight * ((out - targets(z, noise, a, s, x, t, context, mask, teacher)) ** 2).mean((1, 2, 3))).mean()


def optimisers(model, args):
    """Muon for the blocks' matrices, AdamW for the rest."""
    hidden = [p for n, p in model.named_parameters()
              if n.startswith("transformer_blocks") and p.ndim == 2 and "table" not in n]
    ids = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in ids]
    return [Muon(hidden, lr=args.lr, weight_decay=.01, steps=4),
            torch.optim.AdamW(rest, lr=args.lr / 2, betas=(.9, .99), weight_decay=0)]


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

    def model(self, model):
        shadow = copy.deepcopy(model)
        shadow.load_state_dict(self.weights)
        return shadow.eval()


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


def publish(out, shadow, n, vae, text):
    """Averaged weights in diffusers form and a sheet of samples."""
    shadow.save_pretrained(f"{out}/transformer")
    sheet(decode(vae, sample(shadow, text, steps=12))).save(f"{out}/sheet-{n:06d}.png")


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


def initial(model, folder):
    """Start from a transformer directory, as trained or as shipped (FP6)."""
    path = f"{folder}/diffusion_pytorch_model.safetensors"
    try:
        weights = load_file(path)
    except Exception:                                                      # safetensors does not know F6_E3M2
        weights = read(path)
    missing, surplus = model.load_state_dict(weights, strict=False)
    assert not surplus and all("pos_embed" in k for k in missing), (missing, surplus)


def opened(folder):
    """A denoiser from its directory, for use alone."""
    model = LadderTransformer2DModel.from_config(LadderTransformer2DModel.load_config(folder))
    initial(model, folder)
    return model.eval()


def zero_masks(model):
    """[(matrix, 0 or 1 for each weight), ...] of the matrices that have been pruned."""
    return [(p, (p != 0).float()) for p in model.parameters() if p.ndim == 2 and (p == 0).float().mean() > .02]


def step(run, batch, bar, opts, args, fp6, n, teacher):
    """One update; the loss. Gradients are left zeroed."""
    done = n * args.batch / args.samples
    for opt, lr in zip(opts, (args.lr, args.lr / 2)):
        for group in opt.param_groups:
            group["lr"] = lr * lr_factor(n, done, args.decay_from)
    with Rounded(fp6 if done >= args.fp6_from else []):
        loss = v_loss(run, batch, bar, torch.Generator().manual_seed(args.seed * 1000003 + n), args.surfaces,
                      teacher)
        loss.backward()
    torch.nn.utils.clip_grad_norm_((p for opt in opts for group in opt.param_groups for p in group["params"]), 1.)
    for opt in opts:
        opt.step()
        opt.zero_grad()
    return loss.item()


@torch.no_grad()
def held_out_loss(shadow, held, bar, surfaces):
    """Mean over the held-out icons in chunks of 64, each with its own fixed noise."""
    parts = [[x[i:i + 64] for x in held] for i in range(0, len(held[0]), 64)]
    losses = [v_loss(shadow, part, bar, torch.Generator().manual_seed(k), surfaces) * len(part[0]) for k, part in enumerate(parts)]
    return sum(losses).item() / len(held[0])


def train(args, out):
    torch.manual_seed(args.seed)
    vae = AutoencoderKL.from_pretrained(args.vae or f"{args.cache}/vae").eval().to(memory_format=torch.channels_last)
    channels = vae.config.latent_channels
    model = initialise(LadderTransformer2DModel(
        num_attention_heads=args.heads, attention_head_dim=args.width // args.heads, cross_attention_dim=args.width,
        num_layers=args.layers, in_channels=channels, out_channels=channels, ladder=not args.no_ladder))
    if args.init:
        initial(model, args.init)
    masks = zero_masks(model) if args.keep_zeros else []
    teacher = (opened(args.teacher), args.teacher_from) if args.teacher else None
    opts, average = optimisers(model, args), Average(model, args.ema)
    n, elapsed = resume(f"{out}/state.pt", model, average, opts)
    batches, bar, text = Batches(args, vae.config.scaling_factor), alphas_bar(), prompt_embeddings(PROMPTS)
    held = batches.held_out()
    fp6 = [p for name, p in model.named_parameters() if is_fp6("transformer", name, p)]
    run = torch.compile(model, dynamic=False) if args.compile else model
    log = csv.writer(open(f"{out}/log.csv", "a", buffering=1))
    start, losses = time.time() - elapsed, []
    saved = drawn = tick = time.time()
    while n * args.batch < args.samples:
        losses.append(step(run, batches.draw(args.batch, n), bar, opts, args, fp6, n, teacher))
        for p, mask in masks:
            p.data.mul_(mask)
        n += 1
        average.update(model, n)
        last = n * args.batch >= args.samples
        if n % 100 == 0:
            rate, tick = 100 * args.batch / (time.time() - tick), time.time()
            check = f"{held_out_loss(average.model(model), held, bar, args.surfaces):.4f}" if n % 500 == 0 else ""
            log.writerow([n, n * args.batch, f"{time.time() - start:.0f}", f"{np.mean(losses):.4f}", f"{rate:.1f}", check])
            losses = []
        if last or time.time() - saved > 60 * args.save_minutes:
            save(out, model, average, opts, n, time.time() - start)
            saved = time.time()
        if last or time.time() - drawn > 60 * args.sheet_minutes:
            publish(out, average.model(model), n, vae, text)
            drawn = time.time()


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--samples", type=int, default=300000)
    args.add_argument("--icons", default="../shared/icons")
    args.add_argument("--cache", default="../rung-train")
    args.add_argument("--vae", help="default: CACHE/vae")
    args.add_argument("--name", default="ladder")
    args.add_argument("--width", type=int, default=192)
    args.add_argument("--heads", type=int, default=6)
    args.add_argument("--layers", type=int, default=6)
    args.add_argument("--no-ladder", action="store_true", help="the standard residual: PixArt itself")
    args.add_argument("--init", help="start from this transformer directory, e.g. assets/icons/transformer")
    args.add_argument("--keep-zeros", action="store_true", help="of --init's matrices: what rung convert --sparsity took away")
    args.add_argument("--batch", type=int, default=32)
    args.add_argument("--lr", type=float, default=4e-3, help="Muon's; AdamW takes half")
    args.add_argument("--decay-from", type=float, default=.6)
    args.add_argument("--fp6-from", type=float, default=.85, help="from this share on, train through FP6 rounding")
    args.add_argument("--rare", type=float, default=RARE, help="how often a concept that common.txt lacks is drawn, against one it has")
    args.add_argument("--surfaces", action="store_true", help="low noise levels count in full: for the end of a training")
    args.add_argument("--teacher", help="transformer directory whose answers are learned from --teacher-from on, in place of the data")
    args.add_argument("--teacher-from", type=int, default=150, help="timestep")
    args.add_argument("--ema", type=float, default=.998)
    args.add_argument("--save-minutes", type=float, default=4, help="between checkpoints")
    args.add_argument("--sheet-minutes", type=float, default=20, help="between sheets and transformer/")
    args.add_argument("--compile", action="store_true", help="1.15 times as fast here; a minute to start")
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    out = f"{args.cache}/{args.name}"
    os.makedirs(out, exist_ok=True)
    torch.set_num_threads(args.threads)
    train(args, out)


if __name__ == "__main__":
    main()
