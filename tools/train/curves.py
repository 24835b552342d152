#!/usr/bin/env python3
"""Draws the logs of train_denoiser.py into one SVG: training loss thin, held-out loss of the averaged weights thick.

    curves.py OUT.svg NAME=log.csv [NAME=log.csv ...]
"""
import csv, math, sys

WIDTH, HEIGHT, LEFT, TOP = 720, 400, 56, 20
COLOURS = ("#1f6fb4", "#d1731c", "#3a9a4a", "#8a4fb0")


def read_log(path):
    """[(samples, training loss, held-out loss or None)] of a log, with or without a line of names."""
    with open(path) as f:
        return [(int(r[1]), float(r[3]), float(r[5]) if len(r) > 5 and r[5] else None) for r in csv.reader(f) if r[0].isdigit()]


def chart(series):
    """SVG text. series: [(name, rows of read_log)]; both axes are logarithmic."""
    points = [v for _, rows in series for _, a, b in rows for v in (a, b) if v]
    samples = [r[0] for _, rows in series for r in rows]
    first, last = min(samples), max(samples)
    low, high = min(points) * .98, min(max(points), 3 * min(points))
    x = lambda n: LEFT + (WIDTH - LEFT - 20) * math.log(n / first) / math.log(last / first)
    y = lambda v: TOP + (HEIGHT - TOP - 40) * math.log(high / min(v, high)) / math.log(high / low)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for v in (.1, .12, .14, .16, .18, .2, .25, .3, .35, .4, .5, .6):
        if low <= v <= high:
            out.append(f'<path d="M{LEFT} {y(v):.1f}H{WIDTH - 20}" stroke="#ddd"/><text x="{LEFT - 6}" y="{y(v) + 4:.1f}" '
                       f'text-anchor="end">{v:g}</text>')
    for n in (5000, 10000, 20000, 50000, 100000, 200000, 300000):
        if first <= n <= last:
            out.append(f'<path d="M{x(n):.1f} {TOP}V{HEIGHT - 40}" stroke="#ddd"/><text x="{x(n):.1f}" y="{HEIGHT - 24}" '
                       f'text-anchor="middle">{n:,}</text>')
    out.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">samples (loss: v-prediction, weighted)</text>')
    for k, (name, rows) in enumerate(series):
        for column, stroke in ((1, 1), (2, 2.5)):
            line = " ".join(f"{x(r[0]):.1f},{y(r[column]):.1f}" for r in rows if r[column])
            out.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[k % 4]}" stroke-width="{stroke}" '
                       f'opacity="{.5 if stroke == 1 else 1}"/>')
        out.append(f'<text x="{WIDTH - 30}" y="{TOP + 20 + 18 * k}" text-anchor="end" fill="{COLOURS[k % 4]}">'
                   f'{name}: training (thin), held-out icons (thick)</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    if len(sys.argv) < 3 or any("=" not in a for a in sys.argv[2:]):
        sys.exit(__doc__)
    series = [(name, read_log(path)) for name, path in (a.split("=", 1) for a in sys.argv[2:])]
    with open(sys.argv[1], "w") as f:
        f.write(chart(series))


if __name__ == "__main__":
    main()
