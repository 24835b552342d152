"""rung's attention beside PyTorch's scaled_dot_product_attention at the U-Net's shapes, one after another in one run.

    python bench/peers/attention.py [--threads 2]

prints a table: milliseconds of each (best of the runs), the ratio, and what rung reaches of its measured peak. Both get
[batch, tokens, heads, d] as the projections leave it; PyTorch sees it as [batch, heads, tokens, d] by its strides.
The program is RUNG (build/rung). Needs torch.
"""
import argparse
import json
import os
import re
import subprocess
import time

import torch


def best(call, seconds=0.3):
    call()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    command = [os.environ.get("RUNG", "build/rung"), "bench", "attention", "-t", str(args.threads), "--json"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(f"| queries x keys | d | heads | batch | rung, ms | of its peak | PyTorch {torch.__version__}, ms | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for row in map(json.loads, out.splitlines()):
        lq, lk, d, heads, batch = map(int, re.findall(r"\d+", row["name"]))
        q, k, v = (torch.randn(batch, n, heads, d).transpose(1, 2) for n in (lq, lk, lk))
        theirs = best(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v))
        share = 100 * row["gflops"] / row["peak_gflops"]
        print(f'| {lq} x {lk} | {d} | {heads} | {batch} | {1e3 * row["seconds"]:.2f} | {share:.0f}% | {1e3 * theirs:.2f} '
              f'| {theirs / row["seconds"]:.2f} |')


if __name__ == "__main__":
    main()
