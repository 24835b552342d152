#!/usr/bin/env python3
"""Goldens of pruning: Wanda's scores, masks and input norms as torch has them.

    python3 tools/goldens/prune.py tests/golden/prune

linear_w [9, 33], linear_x [70, 33]; linear_norm [33] = ||x_j||_2
magnitude_25, wanda_25, ... u8 [9, 33]: 1 where a weight is kept at 25, 50, 90%: of each row the smallest |w|, or
    |w| * norm, go (Sun et al. 2024, prune_wanda: torch.sort(W_metric, dim=-1, stable=True))
conv_w [6, 5, 3, 3], conv_x [2, 9, 7, 5] (NHWC): norm [45] of the im2col columns (torch.nn.functional.unfold),
    conv_norm: padding 1; conv_strided: stride 2, padding 0 above and left, 1 below and right;
    conv_up: enlarged to 18 x 14 by nearest neighbours, padding 1;
    conv_fused: x * scale + shift [2, 5] each, then SiLU, then padding 1
"""
import os, sys
import torch, torch.nn.functional as F
from safetensors.torch import save_file

torch.manual_seed(5)
out = {}
w, x = torch.randn(9, 33), torch.randn(70, 33) * torch.rand(33) * 3
w[2, 5] = w[2, 6] = 0                               # ties at zero
w[3, 4], w[3, 9] = -w[3, 20], w[3, 20]              # ties in magnitude
norm = x.double().pow(2).sum(0).sqrt()
out.update(linear_w=w, linear_x=x, linear_norm=norm)
for percent in 25, 50, 90:
    for name, score in ("magnitude", w.abs()), ("wanda", (w.abs().double() * norm).float()):
        order = torch.sort(score, dim=-1, stable=True)[1]
        mask = torch.ones_like(w, dtype=torch.uint8)
        mask.scatter_(1, order[:, :int(percent / 100 * w.shape[1] + .5)], 0)
        out[f"{name}_{percent}"] = mask

cw, cx = torch.randn(6, 5, 3, 3), torch.randn(2, 9, 7, 5)
scale, shift = torch.rand(2, 5) + .5, torch.randn(2, 5)
out.update(conv_w=cw, conv_x=cx, conv_scale=scale, conv_shift=shift)


def norms(nchw, pad, stride=1):
    columns = F.unfold(F.pad(nchw, pad).double(), 3, stride=stride)     # [batch, 45, pixels]
    return columns.pow(2).sum((0, 2)).sqrt()


nchw = cx.permute(0, 3, 1, 2)
out["conv_norm"] = norms(nchw, (1, 1, 1, 1))
out["conv_strided"] = norms(nchw, (0, 1, 0, 1), 2)
out["conv_up"] = norms(F.interpolate(nchw, size=(18, 14), mode="nearest"), (1, 1, 1, 1))
out["conv_fused"] = norms(F.silu(nchw * scale[:, :, None, None] + shift[:, :, None, None]), (1, 1, 1, 1))
os.makedirs(sys.argv[1], exist_ok=True)
save_file({k: v.contiguous() for k, v in out.items()}, f"{sys.argv[1]}/prune.safetensors", {"torch": torch.__version__})
