"""The costs by which kernels/cpu/winograd.c chooses a way, from measured times.

    for cpu in avx512 avx2; do RUNG_CPU=$cpu build/rung bench winograd -t 2 --json; done > /tmp/winograd.jsonl
    python tools/winograd_costs.py /tmp/winograd.jsonl --table bench/winograd.csv

writes the table (milliseconds and relative errors of every way) and prints the costs: of a tile and of a weight's own
transform, in hundredths of a multiplication, for each way. They are searched, coordinate by coordinate, for the least
sum of squares of (time of the chosen way / time of the fastest - 1) over all rows; among equal ones the nearest to where
the search starts, the costs in the code. Without --table a committed table is read: python tools/winograd_costs.py
bench/winograd.csv. Needs nothing but Python.
"""
import argparse
import csv
import json
import math
import pathlib
import re

WAYS = {"direct": 0, "F(2x2)": 2, "F(4x4)": 4, "F(6x6)": 6}
COLUMNS = ["isa", "batch", "in", "out", "side"] + [f"{what}_{way}" for what in ("ms", "error") for way in WAYS.values()]
NAME = re.compile(r"winograd (\d+)->(\d+) (\d+)x\d+ batch (\d+) (\S+)$")
START = {6: [7680, 30000], 4: [4320, 8000], 2: [1920, 4500]}


def read_rows(path):
    if path.suffix == ".csv":
        with open(path, newline="") as f:
            return [{k: v if k == "isa" else float(v) for k, v in row.items()} for row in csv.DictReader(f)]
    rows = {}
    for line in path.read_text().splitlines():
        r = json.loads(line)
        inputs, outputs, side, batch, way = NAME.match(r["name"]).groups()
        isa = "avx2" if r["isa"] == "avx2" else "avx512"
        row = rows.setdefault((isa, batch, inputs, outputs, side),
                              dict(zip(COLUMNS, [isa, *map(int, (batch, inputs, outputs, side))])))
        row[f"ms_{WAYS[way]}"] = round(1e3 * r["seconds"], 4)
        row[f"error_{WAYS[way]}"] = float(f'{r["error"]:.2g}')
    return list(rows.values())


def choice(costs, side):
    best, way = side * side * 900, 0
    for out, (tile, weight) in costs.items():
        cost = math.ceil(side / out) ** 2 * tile + weight
        if cost < best:
            best, way = cost, out
    return way


def regrets(costs, rows):
    return [r[f"ms_{choice(costs, r['side'])}"] / min(r[f"ms_{w}"] for w in WAYS.values()) - 1 for r in rows]


def search(rows):
    costs = {way: list(c) for way, c in START.items()}

    def loss():
        return sum(x * x for x in regrets(costs, rows))

    best, improved = loss(), True
    while improved:
        improved = False
        for way in costs:
            for i in range(2):
                start, kept = START[way][i], costs[way][i]
                for percent in sorted(range(20, 500, 2), key=lambda p: abs(p - 100)):
                    costs[way][i] = start * percent // 100
                    if loss() < best - 1e-9:
                        best, kept, improved = loss(), costs[way][i], True
                costs[way][i] = kept
    return costs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--table", type=pathlib.Path)
    args = parser.parse_args()
    rows = read_rows(args.file)
    if args.table:
        with open(args.table, "w", newline="") as f:
            table = csv.DictWriter(f, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
    for name, costs in {"start": START, "found": search(rows)}.items():
        lost = regrets(costs, rows)
        print(f"{name}: {costs}, slower than the fastest way by {100 * sum(lost) / len(lost):.1f}% in the mean, "
              f"{100 * max(lost):.0f}% at most; off by more than 5%:")
        for row, x in zip(rows, lost):
            if x > 0.05:
                print(f"  {row['isa']} {row['in']:.0f}->{row['out']:.0f} {row['side']:.0f} batch {row['batch']:.0f}: "
                      f"{choice(costs, row['side'])}, {100 * x:.0f}%", {w: row[f"ms_{w}"] for w in WAYS.values()})
    for way in WAYS.values():
        print(f"largest error of way {way}: {max(r[f'error_{way}'] for r in rows):.2g}")


if __name__ == "__main__":
    main()
