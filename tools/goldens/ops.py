#!/usr/bin/env python3
"""Golden operations: torch's attention with its masks, normalisations and activations on small random tensors.

    python tools/goldens/ops.py tests/golden/ops

One file, ops.safetensors, f32, computed in f64 and rounded once. attention.<case>.{q,k,v,o} [batch, tokens, heads, d],
with key_bias [batch, lk] or pair_bias [heads, lq, lk] where the case has one and scale [1]; layer_norm.*, rms_norm.*,
group_norm.* (x, y channels last), act.*.
"""
import sys
from pathlib import Path

import numpy as np
import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

RNG = torch.Generator().manual_seed(20)
OUT = {}


def randn(*shape, mean=0.0, std=1.0):
    return (torch.randn(shape, generator=RNG) * std + mean).float()


def put(name, t):
    OUT[name] = t.detach().float().contiguous()


def attention(name, batch, heads, d, lq, lk, key_mask=None, pair_bias=None, causal=False, scale=None):
    q, k, v = randn(batch, lq, heads, d, std=2), randn(batch, lk, heads, d), randn(batch, lk, heads, d)
    mask = None
    if key_mask is not None:
        put(f"attention.{name}.key_bias", torch.where(key_mask, 0.0, -torch.inf))
        mask = key_mask[:, None, None, :].expand(batch, heads, lq, lk)
    if pair_bias is not None:
        put(f"attention.{name}.pair_bias", pair_bias)
        mask = pair_bias.double()[None].expand(batch, heads, lq, lk)
    o = F.scaled_dot_product_attention(*(t.double().transpose(1, 2) for t in (q, k, v)), attn_mask=mask,
                                       is_causal=causal, scale=scale).transpose(1, 2)
    for n, t in dict(q=q, k=k, v=v, o=o, scale=torch.tensor([d**-0.5 if scale is None else scale])).items():
        put(f"attention.{name}.{n}", t)


def attentions():
    attention("plain", 2, 2, 40, 21, 37)
    attention("causal", 1, 3, 16, 45, 45, causal=True)
    attention("long", 1, 1, 8, 5, 700)
    key_mask = torch.rand((2, 33), generator=RNG) < 0.5
    key_mask[1] = False  # torch gives 0 for a query that sees no key
    attention("key_mask", 2, 2, 24, 18, 33, key_mask=key_mask)
    pair = randn(2, 19, 27, std=3)
    pair[torch.rand(pair.shape, generator=RNG) < 0.3] = -torch.inf
    pair[0, 4] = -torch.inf
    attention("pair_bias", 2, 2, 12, 19, 27, pair_bias=pair, scale=1.0)


def norms():
    x, w, b, scale, shift = randn(2, 5, 40, mean=3, std=2), randn(40, mean=1), randn(40), randn(2, 40), randn(2, 40)
    y = F.layer_norm(x.double(), (40,), w.double(), b.double(), 1e-6)
    mod = F.layer_norm(x.double(), (40,), None, None, 1e-6) * (1 + scale[:, None].double()) + shift[:, None].double()
    rms = F.rms_norm(x.double(), (40,), w.double(), 1e-6)
    for n, t in dict(x=x, w=w, b=b, scale=scale, shift=shift, y=y, modulated=mod, rms=rms).items():
        put(f"layer_norm.{n}", t)
    x, w, b = randn(2, 24, 5, 7, mean=-1, std=3), randn(24, mean=1), randn(24)
    y = F.group_norm(x.double(), 4, w.double(), b.double(), 1e-5)
    for n, t in dict(x=x.permute(0, 2, 3, 1), w=w, b=b, y=y.permute(0, 2, 3, 1),
                     silu=F.silu(y).permute(0, 2, 3, 1)).items():
        put(f"group_norm.{n}", t)


def acts():
    x = torch.cat([torch.linspace(-12, 12, 401), randn(100)])
    d = x.double()
    for n, t in dict(x=x, relu=F.relu(d), silu=F.silu(d), gelu=F.gelu(d), gelu_tanh=F.gelu(d, approximate="tanh"),
                     quick_gelu=d * torch.sigmoid(1.702 * d)).items():
        put(f"act.{n}", t)


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    attentions()
    norms()
    acts()
    versions = dict(torch=torch.__version__, numpy=np.__version__, safetensors=safetensors.__version__)
    save_file(OUT, out / "ops.safetensors", metadata=versions)
    print(versions, sum(t.numel() * 4 for t in OUT.values()), "bytes")


if __name__ == "__main__":
    main()
