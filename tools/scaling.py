#!/usr/bin/env python3
"""Step time over ranks: a model fitted to `rung bench ladder --json`, and what it predicts elsewhere (docs/SCALING.md).

    tools/scaling.py ROWS.json...         prints the fit, model against measurement, then the predictions; a file for each
                                          way to compute (RUNG_CPU)

A module computes c seconds and reduces for r; a link serves reduces in order.

    r = 2 (N - 1) latency + 2 (N - 1) / N * bytes / bandwidth       one link's two numbers, fitted to its two models
    standard  every module waits: sum of c + r
    ladder    module i begins when i-1 has ended and i-2 is reduced
    parallel  one reduce a layer of three modules, all waited for

Of r the processor itself needs p, to copy and to add: standard and parallel have that in r, ladder's modules take p
longer. p is what makes the model's ladder the measured one, and should be the same on every link.
"""
import json
import sys

WIDTH, LAYERS, TEXT = 1152, 28, 120  # PixArt-XL


def reduce_time(ranks, size, latency, bandwidth):
    return 2 * (ranks - 1) * latency + 2 * (ranks - 1) / ranks * size / bandwidth


def standard(c, r):
    return sum(c) + len(c) * r


def ladder(c, r, p=0):
    end = link = 0
    reduced = [0, 0]  # of modules i-2 and i-1
    for i, x in enumerate(c):
        end = max(end, reduced[0]) + x + (p if i else 0)
        link = max(end, link) + r
        reduced = [reduced[1], link]
    return max(end, link)


def parallel(c, r):
    return sum(c) + len(c) / 3 * r


def recovered(c, r):
    return (standard(c, r) - ladder(c, r)) / (len(c) * r)


def processor_time(c, r, measured):
    """p of the ladder step that was measured; 0 when the model is slower without."""
    low, high = 0, max(r, max(c))
    for _ in range(50):
        p = (low + high) / 2
        low, high = (p, high) if ladder(c, r, p) < measured else (low, p)
    return low


def pixart_modules(rows, tokens):
    """FLOP of the three modules of a layer: rows of all pictures, tokens of one."""
    n = WIDTH
    return [rows * (8 * n * n + 4 * tokens * n), rows * (4 * n * n + 4 * TEXT * n), rows * 16 * n * n]


def fit(rows):
    """(latency, bandwidth) of a link between two ranks from what a standard step waits for reduces of two sizes."""
    waits = {(r["reduce_bytes"], r["waited"] / r["modules"]) for r in rows if r["mode"] == "standard"}
    (s0, r0), (s1, r1) = sorted(waits)[:2]
    bandwidth = (s1 - s0) / (r1 - r0)
    return max(0, (r0 - s0 / bandwidth) / 2), bandwidth


def measured(path):
    rows = [json.loads(x) for x in open(path) if x.startswith("{")]
    for link in dict.fromkeys((r["link"], r["progress"]) for r in rows if r["ranks"] == 2):
        here = [r for r in rows if r["ranks"] == 2 and (r["link"], r["progress"]) == link]
        latency, bandwidth = fit(here)
        print(f"\n{path}: {link[0]}, {link[1]}: latency {1e6 * latency:.0f} us, {bandwidth / 1e6:.0f} MB/s")
        for model in dict.fromkeys(r["model"] for r in here):
            step = {r["mode"]: r["step"] for r in here if r["model"] == model}
            row = next(r for r in here if r["model"] == model)
            share = [1] * 3 if model == "icons" else pixart_modules(1, 1024)
            c = [step["no-comm"] * x / sum(share) / (row["modules"] / 3) for x in share] * (row["modules"] // 3)
            r = reduce_time(2, row["reduce_bytes"], latency, bandwidth)
            p = processor_time(c, r, step["ladder"])
            got = (step["standard"] - step["ladder"]) / (step["standard"] - step["no-comm"])
            print(f"  {model:12} reduce {1e3 * r:.2f} ms, {100 * r * len(c) / sum(c):.0f}% of a module; ms/step measured (model):"
                  f" standard {1e3 * step['standard']:.1f} ({1e3 * standard(c, r):.1f}),"
                  f" ladder {1e3 * step['ladder']:.1f} ({1e3 * ladder(c, r):.1f}),"
                  f" parallel {1e3 * step['parallel']:.1f} ({1e3 * parallel(c, r):.1f}),"
                  f" no-comm {1e3 * step['no-comm']:.1f}; recovered {got:.2f} ({recovered(c, r):.2f});"
                  f" processor {1e3 * p:.1f} ms a reduce, {row['reduce_bytes'] / max(p, 1e-9) / 1e6:.0f} MB/s")


# name, ranks, FLOP/s of one rank, latency of one hop, bytes/s, pixels of a side, pictures
MACHINES = [
    ("8 GPUs, NVLink", 8, 400e12, 3e-6, 300e9, 1024, 2),
    ("8 GPUs, PCIe", 8, 400e12, 10e-6, 20e9, 1024, 2),
    ("16 machines, 100 Gbit/s", 16, 1.4e12, 10e-6, 11e9, 512, 2),
    ("16 machines, 10 Gbit/s", 16, 1.4e12, 30e-6, 1.1e9, 512, 2),
]


def predictions():
    print("\nPREDICTED, PixArt-XL, 28 layers, sums in f32:")
    for name, ranks, flops, latency, bandwidth, side, pictures in MACHINES:
        tokens = (side // 16) ** 2
        c = [x / ranks / flops for x in pixart_modules(pictures * tokens, tokens)] * LAYERS
        r = reduce_time(ranks, 4 * pictures * tokens * WIDTH, latency, bandwidth)
        print(f"  {name:24} {side} px x {pictures}: no-comm {1e3 * sum(c):.1f} ms, reduce {100 * r * len(c) / sum(c):.0f}% of a"
              f" module; standard {1e3 * standard(c, r):.1f}, ladder {1e3 * ladder(c, r):.1f}"
              f" ({standard(c, r) / ladder(c, r):.2f}x), parallel {1e3 * parallel(c, r):.1f}; recovered {recovered(c, r):.2f}")


if __name__ == "__main__":
    for path in sys.argv[1:]:
        measured(path)
    predictions()
