#!/usr/bin/env python3
"""Mixes two sets of weights of one network: (1 - SHARE) A + SHARE B, diffusers directories.

    mix.py A B SHARE OUT
"""
import shutil, sys
from safetensors.torch import load_file, save_file

WEIGHTS = "diffusion_pytorch_model.safetensors"


def main():
    a, b, share, out = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
    x, y = load_file(f"{a}/{WEIGHTS}"), load_file(f"{b}/{WEIGHTS}")
    shutil.copytree(a, out, ignore=shutil.ignore_patterns("*.pt", "*.csv", WEIGHTS), dirs_exist_ok=True)
    save_file({name: x[name].lerp(y[name], share) for name in x}, f"{out}/{WEIGHTS}")


if __name__ == "__main__":
    main()
